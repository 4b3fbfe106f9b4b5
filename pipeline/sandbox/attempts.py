"""What the end of a decoding process means for its video, and whether the video is tried again."""

from __future__ import annotations

import signal

from pipeline.rejection import Rejection
from shards.schema import Reason

MOST_KILLS = 5
"""How often a video is tried again after something outside ended its process, such as the kernel's OOM killer."""
OUT_OF_MEMORY_EXIT = 71
_KILLED = (-signal.SIGKILL, -signal.SIGTERM)


class DecodeFailed(Exception):  # noqa: N818 - names the event
    """A video is dropped, with the reason.

    Args:
        rejection: for the video's row.
    """

    def __init__(self, rejection: Rejection) -> None:
        super().__init__(f"{rejection.reason}: {rejection.detail}")
        self.rejection = rejection


class Attempts:
    """Counts the ends of one video's processes.

    Args:
        crash_retries: how often a video is tried again after a crash: the machine may be at fault.
        memory_limit: for the message.
    """

    def __init__(self, crash_retries: int, memory_limit: str) -> None:
        self._crashes_left = crash_retries
        self._kills_left = MOST_KILLS
        self._memory_limit = memory_limit

    def ended(self, exit_code: int) -> Rejection | None:
        """Decide on the end of a process.

        Args:
            exit_code: negative for a signal.

        Returns:
            Why the video fails; None when it is tried again.
        """
        if exit_code == -signal.SIGSYS:
            detail = (
                "the sandbox stopped the decoder (SIGSYS): it made a system call that decoding never needs"
            )
            return Rejection(Reason.SANDBOX_VIOLATION, detail)
        if exit_code == -signal.SIGXCPU:
            return Rejection(Reason.TIMEOUT, "the decoder used up its CPU time (run.video_timeout_s)")
        if exit_code == OUT_OF_MEMORY_EXIT:
            return self.out_of_memory()
        if exit_code in _KILLED:
            return self.killed(_death(exit_code))
        self._crashes_left -= 1
        return Rejection(Reason.DECODER_CRASHED, _death(exit_code)) if self._crashes_left < 0 else None

    def killed(self, detail: str) -> Rejection | None:
        """The process was ended from outside. The video is not at fault, so it gets more attempts."""
        self._kills_left -= 1
        return Rejection(Reason.DECODER_CRASHED, detail) if self._kills_left < 0 else None

    def out_of_memory(self) -> Rejection:
        """The decoder did not get the memory that it requested."""
        return Rejection(Reason.OUT_OF_MEMORY, f"more than {self._memory_limit}; --retry-failed tries again")


def _death(exit_code: int) -> str:
    if exit_code >= 0:
        return f"the decoder ended with exit code {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    hint = "; the kernel does this when memory runs out" if name == "SIGKILL" else ""
    return f"the decoder was ended by {name}{hint}"
