"""Landlock: the kernel lets a process give up the file system and the network for good.

Called through raw system calls: the numbers are the same on every architecture, and the bindings on PyPI are young
and one more dependency for some sixty lines. Rights that a kernel does not know yet are left out, by its
ABI version; each version adds rights and takes none away.

Source: https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.sandbox.libc import syscall

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1

READ_FILE = 1 << 2
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
"""File system rights by the ABI that brought them: all of 1, REFER, TRUNCATE, IOCTL_DEV."""
_TCP_BIND_AND_CONNECT = 0b11  # ABI 4
_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11  # ABI 6


class _RulesetAttr(ctypes.Structure):
    _fields_ = (
        ("handled_fs", ctypes.c_uint64),
        ("handled_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneathAttr(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def landlock_abi() -> int:
    """The kernel's Landlock ABI; 0 where the kernel or the container has none."""
    try:
        return syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    except OSError as error:
        if error.errno in {errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}:
            return 0
        raise


def restrict_to(readable_fd: int) -> int:
    """Deny this process every file but one, TCP, abstract sockets and signals to others, as far as the ABI goes.

    Needs `no_new_privs`. Descriptors that are open already stay usable.

    Args:
        readable_fd: an open regular file, which may be opened again for reading.

    Returns:
        The ABI that is enforced; 0 when the kernel has no Landlock.

    Raises:
        OSError: the kernel has Landlock and rejects the rules.
    """
    abi = landlock_abi()
    if abi == 0:
        return 0
    attributes = _RulesetAttr(
        handled_fs=sum(rights for since, rights in _FILE_RIGHTS.items() if since <= abi),
        handled_net=_TCP_BIND_AND_CONNECT if abi >= 4 else 0,
        scoped=_ABSTRACT_SOCKETS_AND_SIGNALS if abi >= 6 else 0,
    )
    # An older kernel knows a shorter structure, and accepts a longer one whose tail is zero.
    ruleset = syscall(_CREATE_RULESET, _pointer(attributes), ctypes.sizeof(attributes), 0)
    try:
        rule = _PathBeneathAttr(allowed=READ_FILE, parent_fd=readable_fd)
        with _internal_files_need_no_rule():
            syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, _pointer(rule), 0)
        syscall(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return abi


@contextmanager
def _internal_files_need_no_rule() -> Iterator[None]:
    """A file outside of any file system (memfd) takes no rule; Landlock does not restrict it."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EBADFD:
            raise


def _pointer(structure: ctypes.Structure) -> ctypes.c_void_p:
    return ctypes.cast(ctypes.byref(structure), ctypes.c_void_p)
