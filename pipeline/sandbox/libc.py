"""The C library, for system calls that Python does not wrap."""

from __future__ import annotations

import ctypes
import os

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long
_LIBC.prctl.restype = ctypes.c_int


def syscall(number: int, *arguments: int | ctypes.c_void_p | None) -> int:
    """Call the kernel by system call number.

    Raises:
        OSError: the kernel returned an error.
    """
    # variadic: every argument takes a full register, as the kernel reads it
    words = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return _checked(_LIBC.syscall(ctypes.c_long(number), *words))


def prctl(option: int, second: int = 0, third: int | ctypes.c_void_p = 0) -> int:
    """Set or read an attribute of this process.

    Raises:
        OSError: the kernel returned an error.
    """
    last = ctypes.c_ulong(third) if isinstance(third, int) else third
    zero = ctypes.c_ulong(0)
    return _checked(_LIBC.prctl(option, ctypes.c_ulong(second), last, zero, zero))


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
