"""Opens an MFHQ dataset for research: any sample by its key, and all tables.

This is `shards.reader.Dataset`, and not `training.data.dataset.StreamedDataset`. The trainer's reader gives the
bytes of a step to the threads that decode them, with a cache on disk, a stop event and repeated fetches;
it reads no table and needs torch. This one gives records, images, tables and outcomes of videos, and needs nothing
but omniid's own dependencies. Both read directories and object stores, and check every sample against its digests.
"""

from __future__ import annotations

import os

from shards.reader import Dataset
from storage.path import path_of


def open_dataset(root: str | os.PathLike[str]) -> Dataset:
    """Open a finished dataset.

    Args:
        root: its directory, or a URL such as s3://bucket/mfhq. Credentials come from the environment
            (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL`, …).

    Returns:
        The dataset: `keys(split)`, `sample(key)`, `samples(split)`, `images()`, `videos()`, `table(role)`. The
        index is in memory; samples are read when they are asked for.

    Raises:
        DatasetError: it is not a finished dataset, or one of a newer format, or its index is damaged.
        UrlError: the URL cannot be read, or holds a secret.
        StorageError: the object store cannot be reached.
    """
    return Dataset.open(path_of(os.fspath(root)))
