"""The split of an earlier dataset, which a new one continues: who was held out stays held out.

Only dataset.json and two tables are read, so a copy of the dataset without its shards is enough.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import BuildError
from pipeline.people.copies import original_in
from pipeline.people.summary import content_of
from shards.canonical import sha256_hex
from shards.layout import DATASET_JSON, IMAGES, VIDEOS
from shards.metadata import DatasetError, UnsupportedVersion, decode_metadata
from shards.reader import read_table
from shards.schema import Reason, Split
from shards.tables import SCHEMAS
from storage.path import AnyPath

UNKNOWN, TRAIN, TEST = -1, 0, 1
"""What the earlier dataset did with an identity of the new one."""


@dataclass(frozen=True, eq=False)
class EarlierSplit:
    """Who an earlier dataset held out.

    Attributes:
        name: of the dataset, for messages.
        identities: one row each: key, video_id, content (of the video), origin (null where unknown) and test,
            whether it was held out. Its near-duplicates have rows of their own, without a key.
        sha256: of its dataset.json.
    """

    name: str
    identities: pa.Table
    sha256: str = ""

    def states(self, identities: pa.Table) -> NDArray[np.int8]:
        """(N,) UNKNOWN, TRAIN or TEST: what the earlier dataset did with the identities of a new one.

        An identity is recognised by its key, else by its video's id (a video can give other tracks when settings
        change), else by its video's content (a file can be renamed), else by its origin.

        Args:
            identities: N rows with the columns key, video_id, content and origin.
        """
        found = np.full(len(identities), UNKNOWN, dtype=np.int8)
        for column in (
            "origin",
            "content",
            "video_id",
            "key",
        ):  # the closest last: it overwrites the others
            found[_is_in(identities[column], self.identities[column])] = TRAIN
            found[_is_in(identities[column], self._held_out[column])] = TEST
        return found

    def missing(self, identities: pa.Table) -> list[str]:
        """Keys of the held-out identities of which the new dataset has no video and no origin; sorted."""
        gone = np.ones(len(self._held_out), dtype=np.bool_)
        for column in ("origin", "content", "video_id", "key"):
            gone &= ~_is_in(self._held_out[column], identities[column])
        return sorted(self._held_out["key"].filter(pa.array(gone)).drop_null().to_pylist())

    @property
    def _held_out(self) -> pa.Table:
        return self.identities.filter(self.identities["test"])


def read_earlier_split(root: AnyPath) -> EarlierSplit:
    """Read the split of a finished dataset.

    Args:
        root: of the dataset, local or in an object store.

    Raises:
        BuildError: there is none, it is damaged, or it has another version of the format.
    """
    try:
        return _read(root)
    except UnsupportedVersion as error:
        raise BuildError(
            f"split.from: {root}: {error}. Or leave split.from out, and pin the held-out videos by split.test_list"
        ) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BuildError(
            f"split.from: {root} is no finished dataset: it has no {DATASET_JSON}. Give the directory of "
            "an earlier dataset, or leave the key out"
        ) from error
    except DatasetError as error:
        raise BuildError(
            f"split.from: {root} is damaged: {error}. Restore it from a copy (`mfhq verify` lists the errors), or "
            "leave the key out"
        ) from error
    except OSError as error:
        raise BuildError(f"split.from: {root} cannot be read: {error.strerror or error}") from error


def _read(root: AnyPath) -> EarlierSplit:
    data = (root / DATASET_JSON).read_bytes()
    metadata = decode_metadata(data)
    images = _columns(root / metadata.table(IMAGES), IMAGES, "key", "index", "split", "video_id")
    videos = _columns(
        root / metadata.table(VIDEOS),
        VIDEOS,
        *("video_id", "origin", "sha256", "span_s", "annotated_box", "tracks"),
    )
    content = pa.array(
        [
            None if sha256 is None else content_of(sha256, span, box)
            for sha256, span, box in zip(
                *(videos[name].to_pylist() for name in ("sha256", "span_s", "annotated_box")), strict=True
            )
        ],
        pa.string(),
    )
    videos = videos.append_column("content", content)
    first = images.filter(pc.equal(images["index"], 0))
    row = pc.index_in(first["video_id"], value_set=videos["video_id"])
    identities = pa.table(
        {
            "key": first["key"],
            "video_id": first["video_id"],
            "content": videos["content"].take(row),
            "origin": videos["origin"].take(row),
            "test": pc.equal(first["split"], Split.TEST.value),
        }
    )
    return EarlierSplit(
        name=f"{metadata.name} {metadata.version}",
        identities=pa.concat_tables([identities, _near_duplicates(videos, identities)]),
        sha256=sha256_hex(data),
    )


def _near_duplicates(videos: pa.Table, identities: pa.Table) -> pa.Table:
    """Rows for what the dataset left out because an identity that it has shows the same footage."""
    test = dict(zip(identities["key"].to_pylist(), identities["test"].to_pylist(), strict=True))
    rows = []
    names = ("video_id", "content", "origin", "tracks")
    for video_id, content, origin, tracks in zip(*(videos[name].to_pylist() for name in names), strict=True):
        originals = {
            original_in(track["detail"]) for track in tracks if track["reason"] == Reason.NEAR_DUPLICATE
        }
        known = [test[key] for key in originals if key in test]
        if known:
            facts = {"key": None, "video_id": video_id, "content": content, "origin": origin}
            rows.append(facts | {"test": any(known)})
    return pa.Table.from_pylist(rows, identities.schema)


def _columns(path: AnyPath, role: str, *names: str) -> pa.Table:
    return read_table(path, pa.schema([SCHEMAS[role].field(name) for name in names]))


def _is_in(values: pa.ChunkedArray, known: pa.ChunkedArray) -> NDArray[np.bool_]:
    """(N,) whether each value is among the known ones; null never is."""
    found: NDArray[np.bool_] = pc.is_in(
        values.cast(pa.string()), value_set=known.cast(pa.string()), skip_nulls=True
    ).to_numpy(zero_copy_only=False)
    return found
