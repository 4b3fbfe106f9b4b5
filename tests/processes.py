"""Whether what a test ends or closes is gone."""

import os
import time

import psutil


def has_ended(process: psutil.Process) -> bool:
    """Whether a process is gone, or a zombie that its parent has not collected yet."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def command_of(process: psutil.Process) -> str:
    """The command line of a process; nothing for one that is gone."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # a zombie has none, too
        return ""


def open_descriptors() -> set[tuple[str, str]]:
    """The number and the target of every descriptor of this process."""
    found = set()
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))  # noqa: PTH115
        except FileNotFoundError:  # closed since it was listed, as the descriptor of the listing itself is
            continue
    return found


def left_open(before: set[tuple[str, str]], wait_s: float = 10) -> set[tuple[str, str]]:
    """Descriptors that are open now, were not `before`, and do not close within `wait_s` seconds.

    Threads of other libraries open and close descriptors at any time; only what stays is a leak.
    """
    deadline = time.monotonic() + wait_s
    while (opened := open_descriptors() - before) and time.monotonic() < deadline:
        time.sleep(0.1)
    return opened
