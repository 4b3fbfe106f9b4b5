"""Whether the files behind a report are those that dataset.json describes.

The page names a damaged sample in its position and shows the rest; the exit code of `mfhq report` reports it too.
`mfhq verify` reads every byte. This reads the tables, the sizes of the shards and the samples that the page shows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from pipeline.report.content import RANDOM_IDENTITIES, SEED, WORST_IDENTITIES, read
from pipeline.report.distributions import random_keys, worst_keys
from shards.layout import DATASET_JSON, TABLES
from shards.metadata import DatasetError
from shards.reader import Dataset
from storage.path import AnyPath, size_of


def damage(root: AnyPath) -> list[str]:
    """The errors in the files behind a report, a sentence each; empty when there are none.

    Raises:
        DatasetError: there is no dataset in `root`, or a table cannot be read at all.
    """
    dataset = Dataset.open(root)
    return [*_of_tables(dataset), *_of_shards(dataset), *_of_samples(dataset)]


def _of_tables(dataset: Dataset) -> Iterator[str]:
    for role in TABLES:
        name, entry = dataset.metadata.table(role), dataset.metadata.tables[role]
        with (dataset.root / name).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 != entry.sha256:
            yield f"{name}: its sha256 is not the one in {DATASET_JSON}"


def _of_shards(dataset: Dataset) -> Iterator[str]:
    for shard in dataset.metadata.shards:
        size = size_of(dataset.root / shard.name)
        if size is None:
            yield f"{shard.name}: missing"
        elif size != shard.bytes:
            yield f"{shard.name}: {size:,} bytes, but {DATASET_JSON} lists {shard.bytes:,}"


def _of_samples(dataset: Dataset) -> Iterator[str]:
    tables = read(dataset, None)
    shown = [
        *random_keys(tables.identities, RANDOM_IDENTITIES, SEED),
        *worst_keys(tables.identities, tables.metric, WORST_IDENTITIES),
    ]
    for key in dict.fromkeys(shown):
        try:
            dataset.sample(key)
        except (DatasetError, OSError) as error:
            yield str(error)
