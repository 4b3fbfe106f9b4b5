"""Attacks by a decoder that a video has taken over; runs confined, in place of `pipeline.sandbox.child`.

The content of the "video" names the attack, and may go on with a line of argument. An attack that returns has
succeeded; one that the kernel answers with an error reports that error.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable

import numpy as np

from pipeline.rejection import Rejection
from pipeline.sandbox import protocol
from pipeline.sandbox.libc import prctl, syscall
from pipeline.sandbox.ring import Ring
from pipeline.sandbox.syscalls import numbers
from shards.schema import Reason

NUMBERS = numbers() or {}
PROBE = {
    "frames": 3,
    "container": "avi",
    "codec": "h264",
    "coded_width": 64,
    "coded_height": 48,
    "rotation_deg": 0,
    "pixel_aspect": "1/1",
    "video_streams": 1,
    "color_transfer": "bt709",
    "start_s": 0.0,
    "late_s": 0.0,
}


class Attack:
    """One confined process.

    Args:
        parent: socket to the build.
        source: descriptor of the "video".
        memory: descriptor of the shared memory.
        argument: of the attack.
    """

    def __init__(self, parent: socket.socket, source: int, memory: int, argument: str) -> None:
        self.parent = parent
        self.source = source
        self.memory = memory
        self.argument = argument
        self.ring = Ring(memory, writable=True)

    def say(self, text: str) -> None:
        self.parent.send(protocol.write_rejection(Rejection(Reason.INTERNAL_ERROR, text)))

    def probe(self, times_s: tuple[float, ...] = (0.0, 0.04, 0.08), **changes: object) -> None:
        """Answer the first request as a decoder does, with the given values in place of the real ones."""
        self.ring.put(0, np.array(times_s, np.float64))
        self.parent.send(protocol.write_json(b"P", PROBE | changes))

    def frame(self, index: int, slot: int, height: int = 48, width: int = 64) -> None:
        self.parent.send(protocol.FRAME.pack(b"F", index, slot, height, width))

    # --- files

    def open_other_file(self) -> None:
        os.open(self.argument, os.O_RDONLY)

    def list_directory(self) -> None:
        os.listdir(self.argument)  # noqa: PTH208

    def create_file(self) -> None:
        os.open(self.argument, os.O_WRONLY | os.O_CREAT)

    def create_file_with_old_call(self) -> None:
        path = ctypes.create_string_buffer(self.argument.encode())
        syscall(85, ctypes.cast(path, ctypes.c_void_p), 0o600)  # creat, of x86_64

    def open_video_for_writing(self) -> None:
        os.open(f"/proc/self/fd/{self.source}", os.O_RDWR)

    def write_to_video(self) -> None:
        os.write(self.source, b"x")

    def truncate_video(self) -> None:
        os.ftruncate(self.source, 0)

    def delete_file(self) -> None:
        os.unlink(self.argument)  # noqa: PTH108

    def rename_file(self) -> None:
        os.rename(self.argument, self.argument + ".gone")  # noqa: PTH104

    def change_mode(self) -> None:
        os.chmod(self.argument, 0o644)  # noqa: PTH101

    def open_own_memory(self) -> None:
        os.open("/proc/self/mem", os.O_RDONLY)

    def open_video_again(self) -> None:
        again = os.open(f"/proc/self/fd/{self.source}", os.O_RDONLY)
        self.say("read " + os.read(again, 100).decode().split("\n")[0])

    # --- descriptors and shared memory

    def count_descriptors(self) -> None:
        """A descriptor is known by its inode, for mapping the shared memory duplicates its descriptor."""
        known = {os.fstat(each).st_ino for each in (0, 1, 2, self.source, self.memory, self.parent.fileno())}
        found = []
        for descriptor in range(5000):
            try:
                found.append((descriptor, os.fstat(descriptor).st_ino))
            except OSError:
                continue
        unknown = [descriptor for descriptor, inode in found if inode not in known]
        self.say(f"{len(known)} known, unknown: {unknown}")

    def exhaust_descriptors(self) -> None:
        for _ in range(10_000):
            os.dup(self.source)

    def shrink_shared_memory(self) -> None:
        os.ftruncate(self.memory, 0)

    def write_to_shared_memory_by_call(self) -> None:
        os.write(self.memory, b"x")

    def read_environment(self) -> None:
        self.say(f"{dict(os.environ)} in {os.getcwd()}")  # noqa: PTH109

    # --- network

    def connect_tcp(self) -> None:
        socket.socket().connect(("127.0.0.1", int(self.argument)))

    def send_udp(self) -> None:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", int(self.argument)))

    def connect_unix(self) -> None:
        socket.socket(socket.AF_UNIX).connect(self.argument)

    def make_socket_pair(self) -> None:
        socket.socketpair()

    def make_io_uring(self) -> None:
        syscall(NUMBERS["io_uring_setup"], 8, ctypes.cast(ctypes.create_string_buffer(120), ctypes.c_void_p))

    # --- processes

    def fork(self) -> None:
        if os.fork() == 0:
            os._exit(0)

    def start_thread(self) -> None:
        thread = threading.Thread(target=time.sleep, args=(0,))
        try:
            thread.start()
        except RuntimeError as error:
            self.say(str(error))
            return
        thread.join()

    def run_program(self) -> None:
        os.execv("/bin/true", ["true"])  # noqa: S606

    def trace_parent(self) -> None:
        syscall(NUMBERS["ptrace"], 16, os.getppid(), 0, 0)  # PTRACE_ATTACH

    def read_parent_memory(self) -> None:
        syscall(NUMBERS["process_vm_readv"], os.getppid(), None, 0, None, 0, 0)

    def kill_parent(self) -> None:
        os.kill(os.getppid(), signal.SIGKILL)

    def kill_build(self) -> None:
        os.kill(int(self.argument), signal.SIGKILL)

    def kill_thread_of_build(self) -> None:
        build = int(self.argument)
        syscall(NUMBERS["tgkill"], build, build, signal.SIGKILL)

    def ask_for_signal_from_kernel(self) -> None:
        fcntl.fcntl(self.source, fcntl.F_SETOWN, int(self.argument))

    def become_another_user(self) -> None:
        os.setuid(1)

    def make_namespace(self) -> None:
        syscall(NUMBERS["unshare"], 0x10000000)  # CLONE_NEWUSER

    def use_x32_calls(self) -> None:
        syscall(0x40000000 | NUMBERS["getpid"])

    # --- resources

    def allocate(self) -> None:
        _ = [bytearray(64 << 20) for _ in range(1000)]

    def allocate_shared(self) -> None:
        _ = [mmap.mmap(-1, 64 << 20, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS) for _ in range(1000)]

    def allocate_until_it_ends(self) -> None:
        held = []
        while True:
            try:
                held.append(bytearray(1 << 20))
            except MemoryError:
                held.append(bytearray(1))

    def map_code(self) -> None:
        mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_EXEC)

    def make_memory_file(self) -> None:
        os.memfd_create("more")

    def raise_limit(self) -> None:
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
        except ValueError:  # Python's for EPERM
            raise PermissionError(errno.EPERM, "setrlimit") from None

    def allow_new_privileges(self) -> None:
        prctl(38, 0)

    def burn_cpu(self) -> None:
        while True:
            pass

    def hang(self) -> None:
        time.sleep(1000)

    def stop_itself(self) -> None:
        syscall(NUMBERS["tgkill"], os.getpid(), os.getpid(), signal.SIGSTOP)
        time.sleep(1000)

    # --- ends

    def crash(self) -> None:
        ctypes.string_at(0)

    def abort(self) -> None:
        os.abort()

    def crash_once(self) -> None:
        """Shared memory outlives the process, as a file that is damaged now and then would."""
        if not self.ring.times(1)[0]:
            self.ring.put(0, np.ones(1))
            ctypes.string_at(0)
        self.say("the second attempt")

    def exit_quietly(self) -> None:
        os._exit(0)

    def raise_error(self) -> None:
        raise ZeroDivisionError

    # --- messages

    def send_too_much(self) -> None:
        self.parent.send(b"R" * 100_000)

    def send_nothing(self) -> None:
        self.parent.send(b"")
        time.sleep(1000)

    def close_socket(self) -> None:
        self.parent.close()
        time.sleep(1000)

    def send_no_json(self) -> None:
        self.parent.send(b"P{")

    def send_deep_json(self) -> None:
        self.parent.send(b"P" + b"[" * 16_000)

    def send_long_number(self) -> None:
        self.parent.send(b'P{"frames":' + b"9" * 16_000 + b"}")

    def send_unknown_type(self) -> None:
        self.parent.send(b"Zhello")

    def send_unknown_reason(self) -> None:
        self.parent.send(protocol.write_json(b"R", {"reason": "accepted", "detail": None}))

    def send_reason_of_no_decoder(self) -> None:
        self.parent.send(protocol.write_json(b"R", {"reason": "no_face", "detail": None}))

    def send_long_text(self) -> None:
        self.parent.send(protocol.write_json(b"R", {"reason": "unreadable", "detail": "x" * 10_000}))

    def send_control_characters(self) -> None:
        self.parent.send(protocol.write_json(b"R", {"reason": "unreadable", "detail": "a\x1b[2J\nb"}))

    def send_probe_with_wrong_type(self) -> None:
        self.probe(coded_width="64")

    def send_probe_with_more_fields(self) -> None:
        self.probe(extra=1)

    def send_huge_frame_size(self) -> None:
        self.probe(coded_width=1 << 30, coded_height=1 << 30)

    def send_zero_aspect(self) -> None:
        self.probe(pixel_aspect="0/1")

    def send_infinite_start(self) -> None:
        self.parent.send(
            b"P" + protocol.write_json(b"", PROBE).replace(b'"start_s": 0.0', b'"start_s": Infinity')
        )

    def send_many_frames(self) -> None:
        self.probe(frames=9_999_999_999)

    def send_no_frames(self) -> None:
        self.probe(frames=0)

    def send_times_that_are_not_numbers(self) -> None:
        self.probe(times_s=(0.0, float("nan"), 0.08))

    def send_times_that_end_with_nan(self) -> None:
        self.probe(times_s=(0.0, 0.04, float("nan")))

    def send_falling_times(self) -> None:
        self.probe(times_s=(0.0, 0.08, 0.04))

    def send_endless_times(self) -> None:
        self.probe(times_s=(0.0, 0.04, float("inf")))

    def send_descriptors(self) -> None:
        """A descriptor that arrived would let the build keep what this process chose open."""
        socket.send_fds(self.parent, [protocol.write_json(b"P", PROBE)], [self.source] * 20)
        self.parent.recv(protocol.MOST_BYTES)
        self.say("sent")

    def lose_storage(self) -> None:
        self.parent.send(b"L")

    def run_out_of_memory(self) -> None:
        self.parent.send(b"M")

    # --- messages about frames, after a sound probe

    def _until_frames(self) -> None:
        self.probe()
        self.parent.recv(protocol.MOST_BYTES)

    def send_wrong_slot(self) -> None:
        self._until_frames()
        self.frame(0, slot=4)

    def send_wrong_index(self) -> None:
        self._until_frames()
        self.frame(3, slot=0)

    def send_frame_again(self) -> None:
        self._until_frames()
        self.frame(1, slot=0)
        self.frame(1, slot=0)

    def send_frame_larger_than_slot(self) -> None:
        self._until_frames()
        self.frame(0, slot=0, height=1 << 31, width=1 << 31)

    def send_empty_frame(self) -> None:
        self._until_frames()
        self.frame(0, slot=0, height=0, width=64)

    def send_short_frame_message(self) -> None:
        self._until_frames()
        self.parent.send(b"F")

    def send_frames_without_end(self) -> None:
        self._until_frames()
        index = 0
        while True:
            self.parent.send(protocol.DAMAGED.pack(b"D", min(index, 2)))
            index += 1

    def send_probe_for_frames(self) -> None:
        self._until_frames()
        self.probe()

    def change_pixels_later(self) -> None:
        """Send a white frame and make it black after the parent has read the message."""
        self._until_frames()
        self.ring.put(0, np.full((48, 64, 3), 255, np.uint8))
        self.frame(0, slot=0)
        self.parent.recv(1)
        self.ring.put(0, np.zeros((48, 64, 3), np.uint8))
        self.frame(1, slot=0)
        self.parent.send(protocol.DAMAGED.pack(b"D", 2))
        self.parent.send(b"E")


def serve(parent: socket.socket, source: int, memory: int) -> None:
    """Wait for the first request, then attack."""
    name, _, argument = os.pread(source, 1000, 0).decode().partition("\n")
    attack = Attack(parent, source, memory, argument)
    run: Callable[[], None] = getattr(attack, name)
    parent.recv(protocol.MOST_BYTES)
    try:
        run()
    except OSError as error:
        attack.say(errno.errorcode[error.errno or 0])
        return
    except MemoryError:
        attack.parent.send(b"M")
        return
    attack.say("succeeded")
