"""The system call filter of the decoding process: what decoding needs is allowed, everything else is not.

Three answers. Allowed: reading, memory, time, and messages on sockets that are open already. Killed (SIGSYS): what
only an attacker does, such as a new program, a new process, a new socket, another process's memory; it ends the
video with a clear detail. Denied with an error (EPERM, ENOSYS): everything else, because C libraries and FFmpeg
probe for newer calls and go on without them.

Source: https://docs.kernel.org/userspace-api/seccomp_filter.html
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator

from pipeline.sandbox import syscalls
from pipeline.sandbox.libc import prctl

_ALLOWED = (
    # the file, and the sockets and memory that are open already
    *(
        "read",
        "readv",
        "pread64",
        "preadv",
        "write",
        "writev",
        "lseek",
        "close",
        "fstat",
        "newfstatat",
        "statx",
    ),
    *("stat", "lstat", "sendto", "sendmsg", "recvfrom", "recvmsg", "poll", "ppoll"),
    # memory
    *("munmap", "mremap", "brk", "madvise"),
    # time and locks
    *("futex", "nanosleep", "clock_nanosleep", "clock_gettime", "clock_getres", "gettimeofday", "times"),
    *("sched_yield", "sched_getaffinity", "getrandom", "set_robust_list", "rseq"),
    # signals to itself, and the end
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "exit", "exit_group"),
    # identity of the process
    *(
        "getpid",
        "gettid",
        "getuid",
        "getgid",
        "geteuid",
        "getegid",
        "getcwd",
        "uname",
        "sysinfo",
        "getrusage",
    ),
)
_KILLED = (
    *("execve", "execveat", "fork", "vfork"),
    *("socket", "socketpair", "connect", "bind", "listen", "accept", "accept4"),
    *("ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "pidfd_open", "pidfd_getfd"),
    *("kill", "tkill", "pidfd_send_signal", "rt_sigqueueinfo", "rt_tgsigqueueinfo"),
    *("setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid"),
    *("mount", "open_tree", "unshare", "setns", "bpf", "perf_event_open", "userfaultfd", "io_uring_setup"),
)
_O_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PROT_EXEC = 4
_CLONE_THREAD = 0x00010000
_FCNTL_HARMLESS = (0, 1, 2, 3, 1030)
"""F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC. Others send signals, take locks or set seals."""

_RET_KILL, _RET_ERRNO, _RET_ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_DENY = _RET_ERRNO | errno.EPERM
_LOAD, _AND, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16
_X32 = 0x40000000
"""Calls of the x32 ABI have this bit: the same kernel functions under other numbers."""
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2

Instruction = tuple[int, int, int, int]
"""Operation, jump if true, jump if false, operand: struct sock_filter."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def filter_system_calls(threads: bool) -> bool:
    """Install the filter for this process, for good. Needs `no_new_privs` and a single thread.

    Args:
        threads: allow more threads of this process, which decord cannot do without.

    Returns:
        Whether it is enforced; False on an architecture without a table and on a kernel without seccomp.
    """
    numbers = syscalls.numbers()
    if numbers is None:
        return False
    code = b"".join(struct.pack("=HBBI", *step) for step in _program(numbers, os.getpid(), threads))
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    try:
        prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.cast(ctypes.byref(program), ctypes.c_void_p))
    except OSError as error:
        if error.errno in {errno.EINVAL, errno.ENOSYS, errno.EPERM}:
            return False
        raise
    return True


def _program(numbers: dict[str, int], pid: int, threads: bool) -> Iterator[Instruction]:
    machine = platform.machine()
    yield (_LOAD, 0, 0, _ARCH_AT)
    yield (_EQUAL, 1, 0, syscalls.AUDIT_ARCH[machine])
    yield (_RETURN, 0, 0, _RET_KILL)
    yield (_LOAD, 0, 0, _NUMBER_AT)
    if machine == "x86_64":
        yield (_AT_LEAST, 0, 1, _X32)
        yield (_RETURN, 0, 0, _RET_KILL)
    answers = _answers(pid, threads)
    for name, number in numbers.items():
        answer = answers[name]
        yield (_EQUAL, 0, len(answer), number)
        yield from answer
    yield (_RETURN, 0, 0, _DENY)


def _answers(pid: int, threads: bool) -> dict[str, list[Instruction]]:
    """The instructions for a recognised call, by name; they end in a return on every path."""
    # FFmpeg goes on with one thread when it gets no more, as on a full machine.
    thread = _RET_ALLOW if threads else _RET_ERRNO | errno.EAGAIN
    return {
        **{name: [(_RETURN, 0, 0, _RET_ALLOW)] for name in _ALLOWED},
        **{name: [(_RETURN, 0, 0, _RET_KILL)] for name in _KILLED},
        "openat": _if_masked(2, _O_WRITES, 0, otherwise=_DENY),
        "open": _if_masked(1, _O_WRITES, 0, otherwise=_DENY),
        "mmap": _if_masked(2, _PROT_EXEC, 0, otherwise=_DENY),
        "mprotect": _if_masked(2, _PROT_EXEC, 0, otherwise=_DENY),
        "fcntl": _if_one_of(1, _FCNTL_HARMLESS, otherwise=_DENY),
        "tgkill": _if_one_of(0, (pid,), otherwise=_RET_KILL),  # abort() signals its own process
        "clone": _if_masked(0, _CLONE_THREAD, _CLONE_THREAD, otherwise=_RET_KILL, then=thread),
        # Its flags are in memory, where a filter cannot read; C libraries then use clone.
        "clone3": [(_RETURN, 0, 0, _RET_ERRNO | errno.ENOSYS)],
    }


def _if_masked(
    argument: int, mask: int, value: int, otherwise: int, then: int = _RET_ALLOW
) -> list[Instruction]:
    return [
        (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * argument),
        (_AND, 0, 0, mask),
        (_EQUAL, 0, 1, value),
        (_RETURN, 0, 0, then),
        (_RETURN, 0, 0, otherwise),
    ]


def _if_one_of(argument: int, values: tuple[int, ...], otherwise: int) -> list[Instruction]:
    tests: list[Instruction] = [
        (_EQUAL, len(values) - position, 0, value) for position, value in enumerate(values)
    ]
    return [
        (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * argument),
        *tests,
        (_RETURN, 0, 0, otherwise),
        (_RETURN, 0, 0, _RET_ALLOW),
    ]
