"""The endless stream of micro-batches of one process: read ahead, in the order that the seed gives."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from shards.schema import Split
from training.config import Config
from training.data.batch import Batch
from training.data.dataset import StreamedDataset
from training.data.decode import BatchBuffer
from training.data.draws import draw
from training.data.needs import Needs
from training.data.order import Order, Share, check_enough
from training.data.reader import Pending, Reader, never
from training.errors import Stopped


class IdentityStream:
    """Iterator over the micro-batches of one rank, from a step on, without an end."""

    def __init__(
        self,
        dataset: StreamedDataset,
        config: Config,
        needs: Needs,
        *,
        rank: int,
        world_size: int,
        start_step: int = 0,
        stopping: Callable[[], bool] = never,
    ) -> None:
        """Begin to read.

        Args:
            dataset: whose training split is streamed.
            config: of the run.
            needs: what is read of a sample; images come at its side or somewhat larger.
            rank: of this process.
            world_size: number of processes.
            start_step: the first optimiser step to read for.
            stopping: whether the run was asked to stop; looked at while `next` waits.

        Raises:
            ConfigError: the batch cannot be shared out evenly.
            TrainingError: the dataset has fewer identities than a batch.
        """
        import torch

        self._config = config
        self._needs = needs
        self._keys = dataset.keys(Split.TRAIN)
        self.identities = len(self._keys)
        """Identities of the training split."""
        check_enough(self.identities, config.batch, dataset.root)
        share = Share(config.batch, config.run.per_process, rank, world_size)
        self.accumulation = share.accumulation
        """Micro-batches of an optimiser step."""
        self.waited_s = 0.0
        """How long `next` has taken in all, in seconds."""
        self.problems: dict[str, str] = {}
        """What is wrong with the samples that came blank so far, by key: an identity counts once, in however
        many epochs it comes."""
        self._order = Order(self.identities, config.seed)
        self._micro_batches = share.micro_batches(start_step)
        self._pinned = torch.cuda.is_available()
        self._stopping = stopping
        self._pending: deque[Pending] = deque()
        self._reader = Reader(dataset, needs, dataset.pictures, config.run.decode_threads)

    def __iter__(self) -> IdentityStream:
        return self

    def __next__(self) -> Batch:
        """The next micro-batch.

        Raises:
            Stopped: a stop was asked for while there was something to wait for.
            TrainingError: a sample could not be read.
            DatasetError: a shard is gone, or the index points nowhere.
        """
        if self._reader.closed:
            raise StopIteration
        began = time.perf_counter()
        try:
            while len(self._pending) <= self._config.run.prefetch:
                self._pending.append(self._begin(next(self._micro_batches)))
            pending = self._pending[0]
            pending.wait(self._stopping)
        except Stopped:
            raise
        except BaseException:
            self.close()
            raise
        finally:
            self.waited_s += time.perf_counter() - began
        self._pending.popleft()
        batch = pending.buffer.batch()
        for key in batch.keys:
            if key in pending.problems:
                self.problems.setdefault(key, pending.problems[key])
        return batch

    def close(self) -> None:
        """Stop reading; waits for reads under way, which a stalled connection delays by seconds at most."""
        self._reader.close()
        self._pending.clear()

    def _begin(self, positions: range) -> Pending:
        """Start reading a micro-batch."""
        places = self._order.places(positions)
        keys = [self._keys[place.row] for place in places]
        draws = [
            draw(self._config.data, self._config.seed, place.epoch, key)
            for place, key in zip(places, keys, strict=True)
        ]
        data = self._config.data
        buffer = BatchBuffer(
            keys,
            draws,
            self._needs,
            most_inputs=data.most_inputs,
            fixed_inputs=data.fixed_inputs,
            pinned=self._pinned,
        )
        return self._reader.begin(buffer, keys)
