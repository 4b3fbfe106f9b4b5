"""Counts and times the kernel calls of a curation: what it cannot save is its limit."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import av
from curation import Curation


class Timed:
    """Stands in for an object; its calls, or those of one of its methods, are counted and timed.

    Args:
        inner: what it stands in for.
        kernel: name of the kernel.
        tally: where calls and seconds are added up.
        method: the one that is counted; the object's own calls when None.
        batches: whether a call's first argument is a batch, of which every image counts.
    """

    def __init__(
        self, inner: Any, kernel: str, tally: KernelTimes, method: str | None = None, batches: bool = False
    ) -> None:
        self._inner, self._kernel, self._tally = inner, kernel, tally
        self._method, self._batches = method, batches

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        timed = name == self._method
        return Timed(found, self._kernel, self._tally, batches=self._batches) if timed else found

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Call, and count."""
        began = time.process_time()
        try:
            return self._inner(*args, **named)
        finally:
            self._tally.seconds[self._kernel] += time.process_time() - began
            self._tally.calls[self._kernel] += len(args[0]) if self._batches else 1


class KernelTimes:
    """The kernels of a curation in this process; decoding runs in another and is measured by itself.

    Args:
        curation: whose networks are watched from now on.
    """

    def __init__(self, curation: Curation) -> None:
        self.calls: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()
        observer = curation.observer
        observer._detector._session = Timed(observer._detector._session, "detect", self, "run", True)
        observer._landmarker._detect = Timed(observer._landmarker._detect, "landmarks", self)
        observer._embedder._session = Timed(observer._embedder._session, "embed", self, "run", True)
        identity = curation.identity
        identity._embedder._session = Timed(identity._embedder._session, "embed", self, "run", True)
        metric = curation.metric
        metric.score = Timed(metric.score, "quality", self, batches=True)

    def taken(self) -> tuple[dict[str, int], float]:
        """Calls by kernel and their seconds since the last time."""
        calls = {name: self.calls[name] for name in ("detect", "landmarks", "embed", "quality")}
        seconds = sum(self.seconds.values())
        self.calls.clear()
        self.seconds.clear()
        return calls, seconds


def decoding_s(path: Path) -> float:
    """Processor time of decoding every frame once, on one thread, without conversion."""
    began = time.process_time()
    with av.open(str(path)) as file:
        stream: Any = file.streams.best("video")
        stream.codec_context.thread_count = 1
        stream.thread_type = "NONE"
        for _ in file.decode(stream):
            pass
    return time.process_time() - began
