"""The endless stream of micro-batches of one process: read ahead, decoded by threads, in a set order.

Threads instead of worker processes: the libraries that read, check and decode let other threads run meanwhile, so
nothing has to be copied between processes and memory does not grow with them. Some threads only wait for storage
and others only compute, because waiting for an object store takes far more reads at once than there are cores.
"""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from shards.schema import Split
from training.config import Config
from training.data.batch import Batch
from training.data.dataset import Fetched, StreamedDataset
from training.data.decode import BatchBuffer
from training.data.draws import draw
from training.data.order import Order, Share, check_enough
from training.errors import BadSample

FETCHERS_PER_DECODER = 4
"""Reads that wait for storage, for each thread that decodes."""


@dataclass(frozen=True)
class _Pending:
    """A micro-batch on its way."""

    buffer: BatchBuffer
    rows: list[Future[str | None]]
    """For each row, what is wrong with its sample."""


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

        self._dataset = dataset
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
        """What was wrong with the samples that came blank so far."""
        self._order = Order(self.identities, config.seed)
        self._micro_batches = share.micro_batches(start_step)
        self._pinned = torch.cuda.is_available()
        threads = config.run.decode_threads
        self._fetchers = ThreadPoolExecutor(FETCHERS_PER_DECODER * threads, "fetch")
        self._decoders = ThreadPoolExecutor(threads, "decode")
        self._pending: deque[_Pending] = deque()
        self._closed = False

    def __iter__(self) -> IdentityStream:
        return self

    def __next__(self) -> Batch:
        """The next micro-batch.

        Raises:
            TrainingError: a sample could not be read.
            DataSetError: a shard is gone, or the index points nowhere.
        """
        if self._closed:
            raise StopIteration
        while len(self._pending) <= self._config.run.prefetch:
            self._pending.append(self._begin(next(self._micro_batches)))
        pending = self._pending.popleft()
        began = time.perf_counter()
        try:
            problems = [row.result() for row in pending.rows]
        except BaseException:
            self.close()
            raise
        self.waited_s += time.perf_counter() - began
        self.damaged += [problem for problem in problems if problem is not None]
        return pending.buffer.batch()

    def close(self) -> None:
        """Stop reading; waits for the reads under way, which end by themselves soon."""
        self._closed = True
        self._dataset.close()
        for pool in (self._fetchers, self._decoders):
            pool.shutdown(wait=False, cancel_futures=True)
        self._pending.clear()

    def _begin(self, positions: range) -> _Pending:
        """Start reading a micro-batch."""
        places = self._order.places(positions)
        keys = [self._keys[place.row] for place in places]
        draws = [
            draw(self._config.data, self._config.seed, place.epoch, key)
            for place, key in zip(places, keys, strict=True)
        ]
        buffer = BatchBuffer(keys, draws, self._side, pinned=self._pinned)
        rows = [self._begin_row(buffer, row, key) for row, key in enumerate(keys)]
        return _Pending(buffer, rows)

    def _begin_row(self, buffer: BatchBuffer, row: int, key: str) -> Future[str | None]:
        done: Future[str | None] = Future()

        def decode(fetched: Fetched) -> None:
            try:
                done.set_result(self._fill(buffer, row, fetched))
            except BaseException as error:
                done.set_exception(error)

        def fetch() -> None:
            try:
                self._decoders.submit(decode, self._dataset.fetch(key))
            except BaseException as error:
                done.set_exception(error)

        self._fetchers.submit(fetch)
        return done

    def _fill(self, buffer: BatchBuffer, row: int, fetched: Fetched) -> str | None:
        try:
            buffer.fill(row, self._dataset.pictures(fetched))
        except BadSample as error:
            buffer.blank(row)
            return str(error)
        return None
