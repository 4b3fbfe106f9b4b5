"""Batches of held-out identities for validation: the same in every run and on any number of processes.

All batches have the same shape, and every rank gets the same number of them, as sharded models need: what is
missing is filled with blank rows (`valid_B` False). Identities are spread evenly, so that no batch holds a single
identity, which could not be compared with another one's.
"""

from __future__ import annotations

from collections.abc import Iterator

from shards.schema import Split
from training.config import Data
from training.data.batch import Batch
from training.data.dataset import StreamedDataset
from training.data.decode import BatchBuffer
from training.data.draws import draw_held_out
from training.errors import BadSample


def held_out_batches(
    dataset: StreamedDataset,
    data: Data,
    identities: int,
    per_process: int,
    side: int,
    *,
    rank: int,
    world_size: int,
) -> Iterator[tuple[Batch, tuple[str, ...]]]:
    """This rank's share of the first identities of the test split.

    Args:
        dataset: the data set.
        data: how many images of an identity play which part; no target is an input here.
        identities: at most so many.
        per_process: rows of a batch; 2 at least.
        side: of the model's input, in pixels.
        rank: of this process.
        world_size: number of processes.

    Yields:
        A batch, and the person of each row; the persons of blank rows are empty. Nothing when the data set has
        no test split.

    Raises:
        TrainingError: a sample cannot be read.
    """
    keys = dataset.keys(Split.TEST)[:identities]
    rows = max(per_process, 2)
    batches = -(-len(keys) // rows)
    for number in range(rank, -(-batches // world_size) * world_size, world_size):
        own = keys[number::batches] if number < batches else []
        names = own + keys[:1] * (rows - len(own))
        draws = [draw_held_out(data, name) for name in names]
        buffer = BatchBuffer(names, draws, side, most_inputs=data.most_inputs)
        persons = [_fill(buffer, row, dataset, name) for row, name in enumerate(own)]
        for row in range(len(own), rows):
            buffer.blank(row)
        yield buffer.batch(), (*persons, *[""] * (rows - len(own)))


def _fill(buffer: BatchBuffer, row: int, dataset: StreamedDataset, key: str) -> str:
    """Decode a sample into its row; returns its person, or nothing when it is damaged."""
    try:
        sample = dataset.read(key)
        buffer.fill(row, sample)
    except BadSample:
        buffer.blank(row)
        return ""
    return sample.record.person_id
