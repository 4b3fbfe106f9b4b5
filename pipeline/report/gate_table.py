"""How many identities each resolution gate would keep, by each way to measure a face that the dataset knows.

The paper does not define its "face resolution larger than 448", so no column is called the paper's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.stages.gate import GATES_PX

Values = NDArray[np.float64]


@dataclass(frozen=True)
class GateRow:
    """What one gate would keep at most.

    Attributes:
        gate_px: the gate, in source pixels.
        by_crop: tracks with 8 analysed frames whose head crop has this side.
        by_box: tracks with 8 analysed frames whose detector box has this size.
        by_annotation: videos with such a track whose annotated box has this size; None where no box is annotated.
    """

    gate_px: int
    by_crop: int
    by_box: int
    by_annotation: int | None

    def __add__(self, other: GateRow) -> GateRow:
        """The row of both parts together; both are of the same gate."""
        annotated = [row.by_annotation for row in (self, other) if row.by_annotation is not None]
        return GateRow(
            gate_px=self.gate_px,
            by_crop=self.by_crop + other.by_crop,
            by_box=self.by_box + other.by_box,
            by_annotation=sum(annotated) if annotated else None,
        )


@dataclass(frozen=True)
class GateTable:
    """The gates compared.

    Attributes:
        rows: one a gate, the smallest first.
        tracks: those with at least 8 analysed frames: what no gate at all would keep.
        annotated: videos with such a track and an annotated box.
    """

    rows: tuple[GateRow, ...]
    tracks: int
    annotated: int

    def __add__(self, other: GateTable) -> GateTable:
        """The table of both parts together."""
        rows = tuple(mine + others for mine, others in zip(self.rows, other.rows, strict=True))
        return GateTable(rows, self.tracks + other.tracks, self.annotated + other.annotated)


def gate_table(videos: pa.Table, annotated_px: Values | None = None) -> GateTable:
    """Count what each gate would keep.

    Args:
        videos: rows of videos.parquet; of the columns only `tracks` is read.
        annotated_px: (V,) size of each video's annotated box in source pixels, NaN where it has none.
    """
    tracks = pc.list_flatten(videos["tracks"].combine_chunks())
    box, crop = _sizes(tracks, "face_px"), _sizes(tracks, "crop_px")
    annotated = _annotated(videos, annotated_px, np.isfinite(box))
    rows = tuple(
        GateRow(
            gate_px=gate,
            by_crop=int((crop >= gate).sum()),
            by_box=int((box >= gate).sum()),
            by_annotation=None if annotated is None else int((annotated >= gate).sum()),
        )
        for gate in GATES_PX
    )
    return GateTable(rows, int(np.isfinite(box).sum()), 0 if annotated is None else len(annotated))


def annotated_sizes(videos: pa.Table) -> Values | None:
    """(V,) square root of the area of each annotated box in source pixels, NaN where there is none.

    Args:
        videos: rows of videos.parquet.

    Returns:
        None when no video has an annotated box.
    """
    boxes = videos["annotated_box"].to_pylist()
    if not any(boxes):
        return None
    sides = zip(videos["width"].to_pylist(), videos["height"].to_pylist(), strict=True)
    return np.array(
        [
            np.sqrt(max(0.0, box[2] - box[0]) * width * max(0.0, box[3] - box[1]) * height)
            if box and width and height
            else np.nan
            for box, (width, height) in zip(boxes, sides, strict=True)
        ]
    )


def _annotated(videos: pa.Table, sizes: Values | None, measured: NDArray[np.bool_]) -> Values | None:
    """(A,) sizes of the annotated boxes of videos that have a track of 8 analysed frames."""
    if sizes is None:
        return None
    of_video = pc.list_parent_indices(videos["tracks"].combine_chunks()).to_numpy()
    found = np.zeros(len(videos), dtype=bool)
    found[of_video[measured]] = True
    kept: Values = sizes[found & np.isfinite(sizes)]
    return kept


def _sizes(tracks: pa.StructArray, name: str) -> Values:
    """(T,) a size of each track, NaN where fewer than 8 frames have it."""
    sizes: Values = tracks.field(name).to_numpy(zero_copy_only=False).astype(np.float64)
    return sizes
