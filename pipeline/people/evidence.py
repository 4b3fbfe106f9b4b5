"""What is known of two identities beside their faces: where and when they were filmed."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.people.groups import NO_UNIT
from pipeline.people.search import Rows
from shards.schema import Box

LEAST_OVERLAP = 0.5
"""Part of the shorter one in which two cuts of one file overlap in time: less may be a rounded number."""
SAME_BOX = 0.1
"""Boxes of one frame that overlap by less, as intersection over union, show two persons."""

Indices = NDArray[np.int64]


def units(summary: pa.Table) -> Indices:
    """(N,) unit of each row: those of one unit are from one origin, with the same label of its dataset or none."""
    numbers: dict[tuple[str, str | None], int] = {}
    found = [
        NO_UNIT if origin is None else numbers.setdefault((origin, person), len(numbers))
        for origin, person in zip(
            summary["origin"].to_pylist(), summary["source_person"].to_pylist(), strict=True
        )
    ]
    return np.array(found, dtype=np.int64)


def rows_of_units(unit: Indices) -> list[Rows]:
    """The rows of each unit with more than one, ascending."""
    order = np.argsort(unit, kind="stable")
    order = order[unit[order] != NO_UNIT]
    ends = np.flatnonzero(np.diff(unit[order], append=-2)) + 1
    return [rows.astype(np.int32) for rows in np.split(order, ends[:-1]) if len(rows) > 1]


def seen_at_once(summary: pa.Table) -> Indices:
    """(C, 2) pairs of rows whose faces are seen at the same time in different places: they are two persons.

    Faces in one frame of a video; and faces in cuts of one file that overlap in time, with boxes that do not.
    """
    found = [*_in_one_video(summary), *_in_one_file(summary)]
    return np.unique(np.array(found, dtype=np.int64).reshape(-1, 2), axis=0)


def _in_one_video(summary: pa.Table) -> list[tuple[int, int]]:
    videos, tracks = summary["video_id"].to_pylist(), summary["track"].to_pylist()
    row_of = {place: row for row, place in enumerate(zip(videos, tracks, strict=True))}
    return [
        (min(row, other), max(row, other))
        for row, others in enumerate(summary["seen_with"].to_pylist())
        for track in others
        if (other := row_of.get((videos[row], track))) is not None
    ]


def _in_one_file(summary: pa.Table) -> list[tuple[int, int]]:
    cuts = summary.select(["origin", "cut_file", "cut_unit", "cut_start", "cut_end", "cut_box"]).to_pylist()
    by_file: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for row, cut in enumerate(cuts):
        if cut["cut_file"] is not None and cut["cut_box"] is not None:
            by_file[cut["origin"], cut["cut_file"], cut["cut_unit"]].append(row)
    found = []
    for rows in by_file.values():
        rows.sort(key=lambda row: (cuts[row]["cut_start"], row))
        for place, row in enumerate(rows):
            for other in rows[place + 1 :]:
                if cuts[other]["cut_start"] >= cuts[row]["cut_end"]:
                    break
                shared = min(cuts[row]["cut_end"], cuts[other]["cut_end"]) - cuts[other]["cut_start"]
                shorter = min(cut["cut_end"] - cut["cut_start"] for cut in (cuts[row], cuts[other]))
                if (
                    shared >= LEAST_OVERLAP * shorter
                    and _overlap(cuts[row]["cut_box"], cuts[other]["cut_box"]) < SAME_BOX
                ):
                    found.append((min(row, other), max(row, other)))
    return found


def _overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes; 1 where they cannot be compared, being in fractions and in pixels."""
    if (max(a) > 2) != (max(b) > 2):
        return 1.0
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - width * height
    return width * height / union if union > 0 else 1.0
