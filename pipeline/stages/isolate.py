"""Run the analysis of each video in a process of its own, so that a video can cost no more than itself.

Decoders crash, hang and swallow memory on damaged files; nothing inside the same process can catch that. The
process lives on from video to video, so the networks are loaded once, and it is replaced when it dies.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import resource
import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import cv2

from faces.registry import Weights
from pipeline.config import Config
from pipeline.errors import MachineFault
from pipeline.rejection import Rejection
from pipeline.sources.manifest import Video
from pipeline.stages.analyse import AnalysedVideo, VideoAnalyser, failed
from shards.schema import Reason

START_TIMEOUT_S = 300.0
"""Loading the networks takes seconds; on a crowded machine with cold disks, a minute."""
# Not forked: a copy of threads and locks of the parent's libraries would hang.
_SPAWN = multiprocessing.get_context("spawn")


GRACE_S = 10.0
"""How long a process may take to die."""
KILLED = (-signal.SIGKILL, -signal.SIGTERM)
"""Exit codes of a process that somebody else ended: not the video's doing, so it is tried again more often."""
MOST_KILLS = 5

Answer = AnalysedVideo | Rejection | MachineFault


class _DiedError(Exception):
    """The process ended without an answer."""


@dataclass(frozen=True)
class _NotLoaded:
    """The networks could not be loaded, and why; said instead of an answer, for nobody reads a child's stack."""

    why: str


class IsolatedAnalyser:
    """A VideoAnalyser behind a process boundary, with limits on time and memory.

    Args:
        config: of the build.
        weights: the networks' files, by name.

    Raises:
        RuntimeError: the networks cannot be loaded.
    """

    def __init__(self, config: Config, weights: Weights) -> None:
        self._config = config
        self._weights = weights
        self._start()

    def analyse(self, video: Video) -> AnalysedVideo:
        """The analysis of a video, or the failure that ended it.

        Raises:
            MachineFault: the video cannot be judged here and now.
        """
        run = self._config.run
        crashes = kills = 0
        while True:
            if not self._process.is_alive():
                self._start()
            try:
                answer = self._ask(video, run.video_timeout_s)
            except TimeoutError:
                limit = f"longer than {run.video_timeout_s:g} s (run.video_timeout_s)"
                return failed(video, Rejection(Reason.TIMEOUT, f"{limit}; --retry-failed tries again"))
            except _DiedError:
                exit_code = self._process.exitcode or 0
                kills += exit_code in KILLED
                crashes += exit_code not in KILLED
                if crashes > run.crash_retries or kills > MOST_KILLS:
                    return failed(video, Rejection(Reason.WORKER_CRASHED, _death(exit_code)))
                continue
            if isinstance(answer, MachineFault):
                raise answer
            return failed(video, answer) if isinstance(answer, Rejection) else answer

    def close(self) -> None:
        """End the process; one that waits for a dead disk does not even die, and is left behind."""
        self._process.kill()
        self._process.join(GRACE_S)
        self._connection.close()

    def _start(self) -> None:
        self._connection, theirs = _SPAWN.Pipe()
        arguments = (theirs, self._config, self._weights)
        self._process = _SPAWN.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        # The child has its own copy; ours would keep the pipe open when it dies.
        theirs.close()
        rejection = "the process that analyses videos could not load its networks"
        try:
            loaded = self._receive(START_TIMEOUT_S)
        except TimeoutError as error:
            raise RuntimeError(f"{rejection} within {START_TIMEOUT_S:g} s") from error
        except _DiedError as error:
            raise RuntimeError(f"{rejection}: {_death(self._process.exitcode or 0)}") from error
        if isinstance(loaded, _NotLoaded):
            self.close()
            raise RuntimeError(f"{rejection}: {loaded.why}")

    def _ask(self, video: Video, timeout_s: float) -> Answer:
        try:
            self._connection.send(video)
        except OSError as error:
            self.close()
            raise _DiedError from error
        answer: Answer = self._receive(timeout_s)
        return answer

    def _receive(self, timeout_s: float) -> Any:
        """The next message; otherwise the process is gone, whether it died or is killed here for its delay."""
        try:
            if self._connection.poll(timeout_s):
                return self._connection.recv()
        except (EOFError, OSError) as error:
            self._process.join(GRACE_S)
            self._connection.close()
            raise _DiedError from error
        self.close()
        raise TimeoutError


def _serve(connection: Connection, config: Config, weights: Weights) -> None:
    """The child's life: load the networks, say so, answer videos until the parent is gone."""
    _die_with_parent()
    cv2.setNumThreads(1)  # one process a CPU: more threads than that only get in each other's way
    try:
        analyser = VideoAnalyser(config, weights)
        import sklearn.cluster  # noqa: F401 - takes seconds, which are not the first video's
    except Exception as error:
        connection.send(_NotLoaded(" ".join(f"{type(error).__name__}: {error}".split())))
        raise  # with its stack, into Ray's logs

    # Limited after loading: the networks are ours, what comes on top belongs to the video.
    limit = int(config.run.video_memory_gb * 2**30) + _data_bytes()
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    connection.send(None)
    while True:
        try:
            video: Video = connection.recv()
        except EOFError:
            return
        connection.send(_answer(analyser, video, config.run.video_memory_gb))


def _answer(analyser: VideoAnalyser, video: Video, memory_gb: float) -> Answer:
    limit = f"more than {memory_gb:g} GB (run.video_memory_gb); --retry-failed tries again"
    out_of_memory = Rejection(Reason.OUT_OF_MEMORY, limit)
    try:
        return analyser.analyse(video)
    except MachineFault as fault:
        return fault
    except MemoryError:
        return out_of_memory
    except Exception as error:  # whatever it is, it belongs to this video's row
        if isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem:
            return out_of_memory
        return Rejection(Reason.INTERNAL_ERROR, f"{type(error).__name__}: {error}")


def _die_with_parent() -> None:
    """Ask Linux to end this process with its parent; a hung decoder would otherwise outlive a killed build."""
    set_parent_death_signal = 1
    ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, signal.SIGKILL)


def _data_bytes() -> int:
    """Private writable memory of this process, as RLIMIT_DATA counts it."""
    with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123
        kilobytes = next(line.split()[1] for line in status if line.startswith("VmData:"))
    return int(kilobytes) * 1024


def _death(exit_code: int) -> str:
    if exit_code >= 0:
        return f"the analysing process ended with exit code {exit_code}"
    name = signal.Signals(-exit_code).name
    hint = "; the kernel does this when memory runs out" if name == "SIGKILL" else ""
    return f"the analysing process was ended by {name}{hint}"
