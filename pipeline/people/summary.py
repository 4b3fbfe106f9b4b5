"""The columnar summary of the staged results: one row for each identity, all that people are decided from."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.people.search import Vectors
from pipeline.records import StagedSample
from pipeline.sources.manifest import Video
from shards.schema import VideoOutcome
from storage.scratch import mapped_array, scratch_folder

ROWS_AT_ONCE = 4096
"""About ten megabytes."""
NORMED_AT_ONCE = 4096
_FLOATS = pa.list_(pa.float64())
STAGED = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("track", pa.int32(), nullable=False),
        # Tracks of the same video that are seen in one frame with this one.
        pa.field("seen_with", pa.list_(pa.int32()), nullable=False),
        pa.field("embedding", pa.list_(pa.float32()), nullable=False),
        # Mean over the images, turned so that higher is better.
        pa.field("quality", pa.float64(), nullable=False),
        # Median bytes of the stored images of the track: how much detail they hold.
        pa.field("image_bytes", pa.float64(), nullable=False),
        pa.field("fingerprint", pa.binary(), nullable=False),
    ]
)
"""What the staged file of a video holds of each of its identities."""

SUMMARY = pa.schema(
    [
        *STAGED,
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("origin", pa.string()),
        pa.field("source_person", pa.string()),
        # Equal for videos of the same bytes, span and box.
        pa.field("content", pa.string(), nullable=False),
        # What the video was cut from, as pipeline.sources.manifest.Cut has it.
        pa.field("cut_file", pa.string()),
        pa.field("cut_unit", pa.string()),
        pa.field("cut_start", pa.float64()),
        pa.field("cut_end", pa.float64()),
        pa.field("cut_box", _FLOATS),
    ]
)
"""Columns of the summary; rows are sorted by key."""


def staged_rows(samples: Iterable[StagedSample]) -> pa.Table:
    """The rows of a video's identities, as its staged file holds them."""
    rows = []
    for sample in samples:
        identity = sample.identity
        scores = [
            image.quality.value if image.quality.higher_is_better else -image.quality.value
            for image in identity.images
        ]
        rows.append(
            {
                "key": identity.key,
                "track": identity.track,
                "seen_with": identity.seen_with,
                "embedding": identity.embedding,
                "quality": float(np.mean(scores)),
                "image_bytes": identity.image_bytes,
                "fingerprint": identity.fingerprint,
            }
        )
    return pa.Table.from_pylist(rows, STAGED)


def content_of(sha256: str | None, span_s: Sequence[float] | None, box: Sequence[float] | None) -> str:
    """What is equal for two videos of the same bytes, span and box."""
    return json.dumps([sha256, span_s and list(span_s), box and list(box)])


def of_video(staged: pa.Table, video: Video, outcome: VideoOutcome) -> pa.Table:
    """The rows of a video's identities with what is known of the video; what its source says counts as of now."""
    cut = video.cut
    facts: dict[str, Any] = {
        "video_id": video.video_id,
        "origin": video.origin,
        "source_person": video.source_person,
        "content": content_of(outcome.sha256, outcome.span_s, outcome.annotated_box),
        "cut_file": cut and cut.file,
        "cut_unit": cut and cut.unit,
        "cut_start": cut and cut.start,
        "cut_end": cut and cut.end,
        "cut_box": cut and cut.box,
    }
    return pa.table(
        [
            staged[field.name]
            if field.name in STAGED.names
            else pa.repeat(pa.scalar(facts[field.name], field.type), len(staged))
            for field in SUMMARY
        ],
        schema=SUMMARY,
    )


class Collector:
    """Joins the rows of all videos; a table has some kilobytes of its own, more than the rows of a video.

    What is joined lies in mapped files: the vectors of a hundred thousand identities are hundreds of megabytes.
    """

    def __init__(self) -> None:
        self._joined = [SUMMARY.empty_table()]
        self._loose: list[pa.Table] = []
        self._rows = 0

    def add(self, rows: pa.Table) -> None:
        """Take the rows of one or more videos."""
        self._loose.append(rows)
        self._rows += len(rows)
        if self._rows >= ROWS_AT_ONCE:
            self._joined.append(_mapped(pa.concat_tables(self._loose)))
            self._loose, self._rows = [], 0

    def summary(self) -> pa.Table:
        """All rows, sorted by key; the collector is empty afterwards."""
        table = pa.concat_tables([*self._joined, *self._loose])
        self._joined, self._loose, self._rows = [SUMMARY.empty_table()], [], 0
        order = pc.sort_indices(table["key"]).to_numpy()
        others = [name for name in SUMMARY.names if name != "embedding"]
        rest = table.select(others).take(pa.array(order)).combine_chunks()
        place = SUMMARY.get_field_index("embedding")
        return rest.add_column(place, SUMMARY.field(place), _reordered(table["embedding"], order))


def _mapped(table: pa.Table) -> pa.Table:
    """The table in a temporary file that is gone with the table."""
    with tempfile.NamedTemporaryFile(dir=scratch_folder()) as file:
        with pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table.combine_chunks())
        file.flush()
        with pa.memory_map(file.name) as source, pa.ipc.open_file(source) as reader:
            return reader.read_all()


def _reordered(lists: pa.ChunkedArray, order: NDArray[np.integer[Any]]) -> pa.Array:
    """The vectors in another order, with one copy: they are most of a summary, and `take` makes several."""
    lengths = {length for chunk in lists.chunks for length in pc.unique(chunk.value_lengths()).to_pylist()}
    if len(lengths) != 1:
        return lists.take(pa.array(order)).combine_chunks()
    moved = mapped_array((len(order), *lengths), np.float32)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    start = 0
    for chunk in lists.chunks:
        moved[place[start : start + len(chunk)]] = (
            chunk.flatten().to_numpy().reshape(len(chunk), moved.shape[1])
        )
        start += len(chunk)
    offsets = np.arange(len(order) + 1, dtype=np.int32) * moved.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(moved.reshape(-1)))


def sorted_by_key(table: pa.Table) -> pa.Table:
    """The rows sorted by key; the same table when they are, because a copy doubles the driver's memory."""
    keys = table["key"].combine_chunks()
    in_order = len(keys) < 2 or pc.all(pc.less_equal(keys[:-1], keys[1:])).as_py()
    return table if in_order else table.sort_by("key")


def embeddings(table: pa.Table) -> Vectors:
    """(N, D) unit vectors of the identities of a summary, in a mapped file.

    Raises:
        ValueError: not all have the same number of dimensions.
    """
    if not len(table):
        return np.zeros((0, 1), np.float32)
    lists = table["embedding"].combine_chunks()
    lengths = set(lists.value_lengths().unique().to_pylist())
    if len(lengths) != 1:
        raise ValueError(f"embeddings of {sorted(lengths)} dimensions cannot be compared")
    vectors = lists.flatten().to_numpy(zero_copy_only=False).reshape(len(table), -1)
    unit: Vectors = mapped_array(vectors.shape, np.float32)
    for start in range(0, len(vectors), NORMED_AT_ONCE):
        part = vectors[start : start + NORMED_AT_ONCE]
        unit[start : start + len(part)] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return unit
