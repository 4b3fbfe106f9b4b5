"""The endless stream of micro-batches of one process: read ahead, decoded by threads, in a set order.

Threads instead of worker processes: the libraries that read, check and decode let other threads run meanwhile, so
nothing has to be copied between processes and memory does not grow with them. Some threads only wait for storage
and others only compute, because waiting for an object store takes far more reads at once than there are cores.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from functools import partial
from typing import NamedTuple

from shards.schema import Split
from training.config import Config
from training.data.batch import Batch
from training.data.dataset import Fetched, StreamedDataset
from training.data.decode import BatchBuffer
from training.data.draws import draw
from training.data.order import Order, Share, check_enough
from training.data.workers import Workers
from training.errors import BadSample

FETCHERS_PER_DECODER = 4
"""Reads that wait for storage, for each thread that decodes."""


class _Pending:
    """A micro-batch on its way."""

    def __init__(self, buffer: BatchBuffer, rows: int) -> None:
        self.buffer = buffer
        self.problems: list[str | None] = [None] * rows
        """For each row, what is wrong with its sample."""
        self.error: BaseException | None = None
        """What ends the stream."""
        self.finished = threading.Event()
        self._left = rows
        self._counting = threading.Lock()

    def row_done(self) -> None:
        """One more row is filled or blank."""
        with self._counting:
            self._left -= 1
            if self._left == 0:
                self.finished.set()

    def failed(self, error: BaseException) -> None:
        """The stream cannot go on."""
        self.error = error
        self.finished.set()


class _Row(NamedTuple):
    """A sample on its way into its row of a micro-batch."""

    pending: _Pending
    row: int
    key: str


class IdentityStream:
    """Iterator over the micro-batches of one rank, from a step on, without an end."""

    def __init__(
        self,
        dataset: StreamedDataset,
        config: Config,
        side: int,
        *,
        rank: int,
        world_size: int,
        start_step: int = 0,
    ) -> None:
        """Begin to read.

        Args:
            dataset: the data set, whose training split is streamed.
            config: of the run.
            side: of the model's input, in pixels; images come at this size or somewhat larger.
            rank: of this process.
            world_size: number of processes.
            start_step: the first optimiser step to read for.

        Raises:
            ConfigError: the batch cannot be shared out evenly.
            TrainingError: the data set has fewer identities than a batch.
        """
        import torch

        self._config = config
        self._side = side
        self._keys = dataset.keys(Split.TRAIN)
        self.identities = len(self._keys)
        """Identities of the training split."""
        check_enough(self.identities, config.batch, dataset.root)
        share = Share(config.batch, config.run.per_process, rank, world_size)
        self.accumulation = share.accumulation
        """Micro-batches of an optimiser step."""
        self.steps_per_epoch = self.identities / config.batch
        self.waited_s = 0.0
        """How long `next` has waited in all, in seconds."""
        self.damaged: list[str] = []
        """What is wrong with the samples that came blank so far: one message an identity, not one an epoch."""
        self._order = Order(self.identities, config.seed)
        self._micro_batches = share.micro_batches(start_step)
        self._pinned = torch.cuda.is_available()
        self._pending: deque[_Pending] = deque()
        self._stopped = threading.Event()
        threads = config.run.decode_threads
        self._decoders = Workers("decode", threads, partial(_decode, dataset, self._stopped))
        self._fetchers = Workers(
            "fetch", FETCHERS_PER_DECODER * threads, partial(_fetch, dataset, self._stopped, self._decoders)
        )

    def __iter__(self) -> IdentityStream:
        return self

    def __next__(self) -> Batch:
        """The next micro-batch.

        Raises:
            TrainingError: a sample could not be read.
            DataSetError: a shard is gone, or the index points nowhere.
        """
        if self._stopped.is_set():
            raise StopIteration
        while len(self._pending) <= self._config.run.prefetch:
            self._pending.append(self._begin(next(self._micro_batches)))
        pending = self._pending.popleft()
        began = time.perf_counter()
        pending.finished.wait()
        self.waited_s += time.perf_counter() - began
        if pending.error is not None:
            self.close()
            raise pending.error
        for problem in pending.problems:
            if problem is not None and problem not in self.damaged:
                self.damaged.append(problem)
        return pending.buffer.batch()

    def close(self) -> None:
        """Stop reading; waits for reads under way, which a stalled connection delays by seconds at most."""
        self._stopped.set()
        self._fetchers.close()
        self._decoders.close()
        self._pending.clear()

    def _begin(self, positions: range) -> _Pending:
        """Start reading a micro-batch."""
        places = self._order.places(positions)
        keys = [self._keys[place.row] for place in places]
        draws = [
            draw(self._config.data, self._config.seed, place.epoch, key)
            for place, key in zip(places, keys, strict=True)
        ]
        most_inputs = self._config.data.most_inputs
        buffer = BatchBuffer(keys, draws, self._side, most_inputs=most_inputs, pinned=self._pinned)
        pending = _Pending(buffer, len(keys))
        for row, key in enumerate(keys):
            self._fetchers.put(_Row(pending, row, key))
        return pending


def _fetch(
    dataset: StreamedDataset, stopped: threading.Event, decoders: Workers[tuple[_Row, Fetched]], row: _Row
) -> None:
    try:
        decoders.put((row, dataset.fetch(row.key, stopped)))
    except BaseException as error:
        row.pending.failed(error)


def _decode(dataset: StreamedDataset, stopped: threading.Event, work: tuple[_Row, Fetched]) -> None:
    (pending, row, _), fetched = work
    try:
        pending.buffer.fill(row, dataset.pictures(fetched, stopped))
    except BadSample as problem:
        pending.buffer.blank(row)
        pending.problems[row] = str(problem)
    except BaseException as error:
        pending.failed(error)
        return
    pending.row_done()
