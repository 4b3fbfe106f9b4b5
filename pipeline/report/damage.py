"""Whether the files behind a report are those that dataset.json describes.

The page names a damaged sample in its position and shows the rest; the exit code of `mfhq report` reports it too.
`mfhq verify` reads every byte. This reads the tables, the sizes of the shards and the samples that the page shows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from pipeline.people import findings
from pipeline.report.build import FOLDER
from pipeline.report.content import shown_keys
from pipeline.report.image_counts import count_images
from shards.layout import DATASET_JSON, INDEX, TABLES
from shards.metadata import DatasetError
from shards.streamed import StreamedDataset
from storage.path import AnyPath, size_of


def damage(root: AnyPath) -> list[str]:
    """The errors in the files behind a report, a sentence each; empty when there are none.

    Raises:
        DatasetError: there is no dataset in `root`, or a table cannot be read at all.
    """
    dataset = StreamedDataset.open(root)
    return [*_of_tables(dataset), *_of_shards(dataset), *_of_samples(dataset)]


def _of_tables(dataset: StreamedDataset) -> Iterator[str]:
    for role in TABLES:
        name, entry = dataset.metadata.table(role), dataset.metadata.tables[role]
        with (dataset.root / name).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 != entry.sha256:
            yield f"{name}: its sha256 is not the one in {DATASET_JSON}"


def _of_shards(dataset: StreamedDataset) -> Iterator[str]:
    for shard in dataset.metadata.shards:
        size = size_of(dataset.root / shard.name)
        if size is None:
            yield f"{shard.name}: missing"
        elif size != shard.bytes:
            yield f"{shard.name}: {size:,} bytes, but {DATASET_JSON} lists {shard.bytes:,}"


def _of_samples(dataset: StreamedDataset) -> Iterator[str]:
    found = findings.read_findings(dataset.root / FOLDER / findings.FILE)
    counts = count_images(dataset, roll_weight=1.0)
    samples = dataset.find(shown_keys(counts, found))
    # A pair may name a sample that was erased since: only those of the images table must be there.
    for key in shown_keys(counts, None):
        if key not in samples.rows:
            yield f"{dataset.metadata.table(INDEX)}: sample {key} is not listed"
    for key in samples.rows:
        try:
            samples.sample(key)
        except (DatasetError, OSError) as error:
            yield str(error)
