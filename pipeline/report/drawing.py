"""The figures of the report, with their ids and captions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from pipeline.report import figures, time_figures
from pipeline.report.content import Tables
from pipeline.report.distributions import Histogram, Values, column, histogram, pose_map
from pipeline.report.outcomes import Gate
from pipeline.report.provenance import number
from shards.metadata import DatasetMetadata


@dataclass(frozen=True)
class Drawing:
    """Figures as plain values by id, and the values that the template shows with them."""

    figures: dict[str, dict[str, Any]]
    content: dict[str, Any]


def draw(metadata: DatasetMetadata, tables: Tables, gates: Sequence[Gate]) -> Drawing:
    """Make all figures; those without data are left out."""
    drawn: dict[str, Any] = {}
    if len(tables.videos):
        drawn["fig-funnel"] = figures.funnel(gates, len(tables.videos))
    content: dict[str, Any] = {"pose_log": False, "pose_beyond": 0, "distributions": []}
    if len(tables.images):
        poses = pose_map(column(tables.images, "yaw"), column(tables.images, "pitch"))
        drawn["fig-pose"] = figures.poses(poses)
        content["pose_log"] = bool(poses.counts.max() > figures.LOG_COUNTS_FROM)
        content["pose_beyond"] = poses.beyond
        drawn |= _pose_spread(tables)
        for name, (figure, caption) in _distributions(metadata, tables).items():
            drawn[name] = figure
            content["distributions"].append((name, caption))
    if tables.times is not None:
        drawn["fig-time-steps"] = time_figures.step_times(tables.times)
        names = dict(
            zip(tables.videos["video_id"].to_pylist(), tables.videos["uri"].to_pylist(), strict=True)
        )
        drawn["fig-time-slowest"] = time_figures.slowest_videos(tables.times, names)
    return Drawing({name: json.loads(figure.to_json()) for name, figure in drawn.items()}, content)


def _pose_spread(tables: Tables) -> dict[str, Any]:
    distances, ranges = tables.identities.distances_deg, tables.identities.ranges_deg
    return {
        "fig-pose-distance": figures.overlaid(
            _same_bins(
                [
                    ("mean", distances.mean(axis=1)),
                    ("smallest", distances.min(axis=1)),
                    ("largest", distances.max(axis=1)),
                ]
            ),
            "pose distance, degrees",
            "identities",
        ),
        "fig-pose-range": figures.overlaid(
            _same_bins([("yaw", ranges[:, 0]), ("pitch", ranges[:, 1]), ("roll", ranges[:, 2])]),
            "range of the angle, degrees",
            "identities",
        ),
    }


def _same_bins(parts: list[tuple[str, Values]]) -> list[tuple[str, Histogram]]:
    widest = max(float(values.max()) for _, values in parts)
    step = next(step for step in (1, 2, 2.5, 5, 10) if widest / step <= 50 or step == 10)
    made = [(name, histogram(values, step=step)) for name, values in parts]
    return [(name, found) for name, found in made if found is not None]


def _distributions(metadata: DatasetMetadata, tables: Tables) -> dict[str, tuple[Any, str]]:
    images = tables.images
    made: dict[str, tuple[Any, str]] = {}
    for place, metric in enumerate(sorted(set(pc.unique(images["quality_metric"]).to_pylist()))):
        part = images.filter(pc.equal(images["quality_metric"], metric))
        direction = "higher" if part["quality_higher_is_better"][0].as_py() else "lower"
        made[f"fig-quality-{place}" if place else "fig-quality"] = _one(
            column(part, "quality"), f"{metric} ({direction} is better)", f"Image quality by {metric}"
        )
    made["fig-crop-size"] = _one(
        column(images, "crop_side_px"),
        "side of the head crop, px of the source frame",
        "Head crop: the side of the stored square in the source frame",
        _gate_mark(metadata, "min_crop_px"),
    )
    made["fig-face-size"] = _one(
        column(images, "face_px"),
        "face size, px of the source frame",
        "Face size: the square root of the area of the detector's box",
        _gate_mark(metadata, "min_px"),
    )
    made["fig-eyes"] = _one(
        column(images, "eyes_open"), "openness of the less open eye", "Eyes open: 0 is closed, 1 is wide open"
    )
    embedded = images.filter(pc.is_valid(images["identity_cosine"]))
    if len(embedded):
        made["fig-cosine"] = _one(
            column(embedded, "identity_cosine"),
            "cosine",
            "Likeness of each image to its identity: cosine to the mean embedding",
        )
    return made


def _gate_mark(metadata: DatasetMetadata, key: str) -> list[tuple[float, str]]:
    """The line of a configured gate in its histogram."""
    least = number(metadata.provenance, "faces", key)
    return [] if least is None else [(least, f"faces.{key}={least:g}")]


def _one(values: Values, axis: str, what: str, marks: Sequence[tuple[float, str]] = ()) -> tuple[Any, str]:
    found = histogram(values)
    assert found is not None  # noqa: S101 - called for tables with rows only
    least, low, middle, high, most = found.quantiles
    caption = (
        f"{what}. Median {middle:,.3g}; 90% lie between {low:,.3g} and {high:,.3g}, "
        f"all between {least:,.3g} and {most:,.3g}."
    )
    return figures.distribution(found, axis, marks=marks), caption
