"""What a process can give up without Landlock or seccomp: resources, rights, descriptors."""

from __future__ import annotations

import ctypes
import math
import os
import resource
import signal
import struct
from collections.abc import Iterable

from pipeline.sandbox.libc import prctl, syscall

MOST_FILES = 64
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP = 1, 38, 24
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_DAC_READ_SEARCH, _MOST_CAPABILITIES = 2, 64


def limit_resources(memory_bytes: int, cpu_s: float, shared_bytes: int, threads: bool) -> dict[str, int]:
    """Set the limits of this process, for good.

    Args:
        memory_bytes: private memory on top of what the process holds now.
        cpu_s: processor seconds of all threads; SIGXCPU ends the process.
        shared_bytes: shared memory that it will map; it counts as address space only.
        threads: leave the number of processes as it is, which counts threads too.

    Returns:
        The limits by name.
    """
    size, data = memory_of_process()
    seconds = math.ceil(cpu_s) + _cpu_seconds()
    limits = {
        # Private memory, and address space, so that shared mappings do not get around it.
        "RLIMIT_DATA": data + memory_bytes,
        "RLIMIT_AS": size + memory_bytes + shared_bytes,
        "RLIMIT_CPU": seconds,
        "RLIMIT_FSIZE": 0,
        "RLIMIT_NOFILE": MOST_FILES,
        "RLIMIT_CORE": 0,
        "RLIMIT_MEMLOCK": 0,
        "RLIMIT_MSGQUEUE": 0,
    }
    if not threads:
        limits["RLIMIT_NPROC"] = 0
    for name, value in limits.items():
        kind: int = getattr(resource, name)
        hard = value + 1 if name == "RLIMIT_CPU" else value  # one second between the signal and the kill
        outer = resource.getrlimit(kind)[1]
        if outer != resource.RLIM_INFINITY:
            hard = min(hard, outer)  # a container may set tighter limits
        resource.setrlimit(kind, (min(value, hard), hard))
    return limits


def memory_of_process() -> tuple[int, int]:
    """(address space, private writable memory) in bytes, as RLIMIT_AS and RLIMIT_DATA count them."""
    with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123
        fields = dict(line.split(":", 1) for line in status)
    return tuple(1024 * int(fields[name].split()[0]) for name in ("VmSize", "VmData"))  # type: ignore[return-value]


def _cpu_seconds() -> int:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return math.ceil(usage.ru_utime + usage.ru_stime)


def drop_rights() -> None:
    """Give up every capability but reading files of other users, and all ways to gain new ones.

    Builds often run as root in a container. The one capability is kept because the file is opened again by its
    descriptor, and root may have been given files that only their owner may read.
    """
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    for capability in range(_MOST_CAPABILITIES):
        try:
            prctl(_PR_CAPBSET_DROP, capability)
        except OSError:  # not known to this kernel, or not held: then it cannot be gained either
            break
    permitted = _permitted_capabilities() & (1 << _CAP_DAC_READ_SEARCH)
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0))
    low, high = permitted & 0xFFFFFFFF, permitted >> 32
    data = ctypes.create_string_buffer(struct.pack("=6I", low, low, 0, high, high, 0))
    syscall(_CAPSET[os.uname().machine], _pointer(header), _pointer(data))


_CAPSET = {"x86_64": 126, "aarch64": 91}


def _permitted_capabilities() -> int:
    with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123
        return next(int(line.split()[1], 16) for line in status if line.startswith("CapPrm:"))


def end_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent ends; returns only while that one lives."""
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def keep_only(descriptors: Iterable[int]) -> None:
    """Close every descriptor but these; standard input, output and error become /dev/null."""
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    start = 3
    for kept in sorted(descriptors):
        os.closerange(start, kept)
        start = kept + 1
    os.closerange(start, os.sysconf("SC_OPEN_MAX"))


def _pointer(buffer: ctypes.Array[ctypes.c_char]) -> ctypes.c_void_p:
    return ctypes.cast(buffer, ctypes.c_void_p)
