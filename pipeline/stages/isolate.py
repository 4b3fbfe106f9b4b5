"""Run the analysis of each video in a process of its own, so that a video can cost no more than itself.

Decoders crash, hang and swallow memory on damaged files; nothing inside the same process can catch that. The
process lives on from video to video, so the networks are loaded once, and it is replaced when it dies.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import resource
import signal
from concurrent.futures import TimeoutError as FutureTimeout

import cv2
from pebble import ProcessExpired, ProcessPool

from faces.registry import ResolvedModel
from pipeline.config import Config
from pipeline.sources.manifest import Video
from pipeline.stages.analyse import AnalysedVideo, VideoAnalyser, failed
from pipeline.stages.probe import Refusal
from shards.schema import Reason

START_TIMEOUT_S = 300.0
"""Loading the networks takes seconds; on a crowded machine with cold disks, a minute."""

_analyser: VideoAnalyser | None = None


class IsolatedAnalyser:
    """A VideoAnalyser behind a process boundary, with limits on time and memory.

    Args:
        config: of the build.
        models: the networks' files, by name.

    Raises:
        RuntimeError: the networks cannot be loaded.
    """

    def __init__(self, config: Config, models: dict[str, ResolvedModel]) -> None:
        self._run = config.run
        self._pool = ProcessPool(
            max_workers=1,
            initializer=_start,
            initargs=(config, models),
            # Not forked: a copy of threads and locks of the parent's libraries would hang.
            context=multiprocessing.get_context("spawn"),
        )
        self._pool.schedule(_ready, timeout=START_TIMEOUT_S).result()

    def analyse(self, video: Video) -> AnalysedVideo:
        """The analysis of a video, or the failure that ended it."""
        refusal = Refusal(Reason.INTERNAL_ERROR)
        for _ in range(1 + self._run.crash_retries):
            future = self._pool.schedule(_analyse, args=(video,), timeout=self._run.video_timeout_s)
            try:
                return future.result()  # type: ignore[no-any-return]
            except FutureTimeout:
                limit = f"longer than {self._run.video_timeout_s:g} s (run.video_timeout_s)"
                return failed(video, Refusal(Reason.TIMEOUT, limit))
            except ProcessExpired as error:
                refusal = Refusal(Reason.WORKER_CRASHED, _death(error.exitcode))
            except MemoryError:
                limit = f"more than {self._run.video_memory_gb:g} GB (run.video_memory_gb)"
                return failed(video, Refusal(Reason.OUT_OF_MEMORY, limit))
            except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to this video's row
                return failed(video, Refusal(Reason.INTERNAL_ERROR, f"{type(error).__name__}: {error}"))
        return failed(video, refusal)

    def close(self) -> None:
        """End the process."""
        self._pool.stop()
        self._pool.join()


def _start(config: Config, models: dict[str, ResolvedModel]) -> None:
    global _analyser  # noqa: PLW0603 - the one object of this process
    _die_with_parent()
    cv2.setNumThreads(1)  # one process a CPU: more threads than that only get in each other's way
    _analyser = VideoAnalyser(config, models)
    # Set after loading: the networks are ours, what comes on top belongs to the video.
    limit = int((config.run.video_memory_gb) * 2**30) + _data_bytes()
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _ready() -> bool:
    return _analyser is not None


def _analyse(video: Video) -> AnalysedVideo:
    if _analyser is None:
        raise RuntimeError("the process was not initialised")
    return _analyser.analyse(video)


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
