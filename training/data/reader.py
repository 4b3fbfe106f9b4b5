"""Reads samples into the rows of batches: threads that wait for storage, and threads that decode.

Threads instead of worker processes: the libraries that read, check and decode release the GIL, so nothing has to
be copied between processes and memory does not grow with their number. Some threads only wait for storage and
others only compute, because waiting for an object store takes far more reads at once than there are cores.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from training.data.dataset import Fetched, StreamedDataset
from training.data.decode import BatchBuffer, Encoded
from training.data.latents import LatentFiles
from training.data.needs import Needs
from training.data.workers import Workers
from training.errors import BadSample, Stopped

FETCHERS_PER_DECODER = 4
"""Reads that wait for storage, for each thread that decodes."""
Check = Callable[[Fetched, threading.Event], Encoded]
LOOK_S = 0.2
"""How often a wait looks whether a stop was asked for."""


def never() -> bool:
    """No stop is ever asked for."""
    return False


class Pending:
    """A batch on its way."""

    def __init__(self, buffer: BatchBuffer, keys: Sequence[str]) -> None:
        self.buffer = buffer
        self.problems: dict[str, str] = {}
        """What is wrong with the samples whose rows stay blank, by key."""
        self.error: BaseException | None = None
        """What ends the reading."""
        self._finished = threading.Event()
        self._left = len(keys)
        self._counting = threading.Lock()
        if not keys:
            self._finished.set()

    def wait(self, stopping: Callable[[], bool]) -> None:
        """Wait until every row is filled or blank.

        Args:
            stopping: whether to give up waiting; looked at while there is something to wait for.

        Raises:
            Stopped: `stopping` said so. The reading goes on, and may be waited for again.
            TrainingError: a sample could not be read.
            DatasetError: a shard is gone, or the index points nowhere.
        """
        while not self._finished.wait(LOOK_S):
            if stopping():
                raise Stopped("reading was given up, because a stop was asked for")
        if self.error is not None:
            raise self.error

    def row_done(self) -> None:
        """One more row is filled or blank."""
        with self._counting:
            self._left -= 1
            if self._left == 0:
                self._finished.set()

    def failed(self, error: BaseException) -> None:
        """The reading cannot go on."""
        self.error = error
        self._finished.set()


class _Row(NamedTuple):
    """A sample on its way into its row of a batch."""

    pending: Pending
    row: int
    key: str


class _Fetched(NamedTuple):
    """What was read for a row, not checked yet."""

    row: _Row
    sample: Fetched
    latents: bytes | None


class Reader:
    """The threads that read one stream of batches.

    Args:
        dataset: the dataset.
        needs: what is read of a sample; kept latents are read beside it.
        check: of the dataset; what becomes of the bytes that were fetched: `pictures`, or `sample`.
        decoders: threads that decode.
    """

    def __init__(self, dataset: StreamedDataset, needs: Needs, check: Check, decoders: int) -> None:
        latents = LatentFiles(needs, dataset.retry_s) if needs.latents else None
        self._stopped = threading.Event()
        self._decoders = Workers("decode", decoders, partial(_decode, check, latents, self._stopped))
        self._fetchers = Workers(
            "fetch",
            FETCHERS_PER_DECODER * decoders,
            partial(_fetch, dataset, latents, self._stopped, self._decoders),
        )

    @property
    def closed(self) -> bool:
        """Whether nothing is read any more."""
        return self._stopped.is_set()

    def begin(self, buffer: BatchBuffer, keys: Sequence[str]) -> Pending:
        """Start reading samples into the first rows of a batch."""
        pending = Pending(buffer, keys)
        for row, key in enumerate(keys):
            self._fetchers.put(_Row(pending, row, key))
        return pending

    def close(self) -> None:
        """Stop reading; waits for reads under way, which a stalled connection delays by seconds at most."""
        self._stopped.set()
        self._fetchers.close()
        self._decoders.close()


def _fetch(
    dataset: StreamedDataset,
    latents: LatentFiles | None,
    stopped: threading.Event,
    decoders: Workers[_Fetched],
    row: _Row,
) -> None:
    try:
        fetched = dataset.fetch(row.key, stopped)
        decoders.put(_Fetched(row, fetched, latents.read(row.key, stopped) if latents else None))
    except BadSample as problem:
        _leave_blank(row, problem)
    except BaseException as error:
        row.pending.failed(error)


def _decode(check: Check, latents: LatentFiles | None, stopped: threading.Event, work: _Fetched) -> None:
    (pending, row, key), fetched, latents_file = work
    try:
        encoded = check(fetched, stopped)
        bits = latents.check(key, latents_file) if latents and latents_file is not None else None
        pending.buffer.fill(row, encoded, bits)
    except BadSample as problem:
        _leave_blank(work.row, problem)
        return
    except BaseException as error:
        pending.failed(error)
        return
    pending.row_done()


def _leave_blank(row: _Row, problem: BadSample) -> None:
    row.pending.buffer.blank(row.row)
    row.pending.problems[row.key] = str(problem)
    row.pending.row_done()
