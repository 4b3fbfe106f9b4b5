"""Batches of held-out identities for validation: the same in every run and on any number of processes.

All batches have the same shape, and every rank gets the same number of them, as sharded models need: what is
missing is filled with blank rows (`valid_B` False), which are spread evenly over the batches.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import NamedTuple

from shards.sample import Sample
from training.config import Validation
from training.data.batch import Batch
from training.data.dataset import Fetched, StreamedDataset
from training.data.decode import BatchBuffer
from training.data.draws import draw_held_out
from training.data.needs import Needs
from training.data.reader import Pending, Reader, never

DECODE_THREADS = 4
READ_AHEAD = 4
"""Batches."""


class HeldOut(NamedTuple):
    """A batch of held-out identities."""

    batch: Batch
    """A row takes 2 MB at the paper's size."""
    persons: tuple[str, ...]
    """The person of each row; those of blank rows are empty."""
    problems: dict[str, str]
    """What is wrong with the samples whose rows are blank because they are damaged, by key."""


def held_out_batches(
    dataset: StreamedDataset,
    keys: Sequence[str],
    validation: Validation,
    per_process: int,
    needs: Needs,
    *,
    rank: int,
    world_size: int,
    stopping: Callable[[], bool] = never,
) -> Generator[HeldOut, None, None]:
    """This rank's share of some held-out identities.

    Args:
        dataset: the dataset.
        keys: of the identities, of its test split.
        validation: how many images of an identity are inputs and targets.
        per_process: rows of a batch.
        needs: what is read of a sample.
        rank: of this process.
        world_size: number of processes.
        stopping: whether the run was asked to stop; looked at while there is something to wait for.

    Yields:
        The batches; none without keys.

    Raises:
        Stopped: a stop was asked for.
        TrainingError: a sample cannot be read.
        DatasetError: a shard is gone, or the index points nowhere.
    """
    batches = -(-len(keys) // per_process)
    shares = [
        list(keys[number::batches]) if number < batches else []
        for number in range(rank, -(-batches // world_size) * world_size, world_size)
    ]
    people: dict[str, str] = {}

    def check(fetched: Fetched, stopped: threading.Event) -> Sample:
        sample = dataset.sample(fetched, stopped)
        people[sample.record.key] = sample.record.person_id
        return sample

    with closing(Reader(dataset, needs, check, DECODE_THREADS)) as reader:

        def begin(own: list[str]) -> Pending:
            names = own + [keys[0]] * (per_process - len(own))
            draws = [draw_held_out(validation, name) for name in names]
            buffer = BatchBuffer(names, draws, needs, most_inputs=validation.inputs, fixed_inputs=True)
            for row in range(len(own), per_process):
                buffer.blank(row)
            return reader.begin(buffer, own)

        pending: deque[Pending] = deque()
        for number in range(len(shares)):
            while len(pending) <= READ_AHEAD and number + len(pending) < len(shares):
                pending.append(begin(shares[number + len(pending)]))
            done = pending.popleft()
            done.wait(stopping)
            batch = done.buffer.batch()
            valid = zip(batch.keys, batch.valid_B.tolist(), strict=True)
            yield HeldOut(batch, tuple(people[key] if whole else "" for key, whole in valid), done.problems)
