"""The figures of the report, with their ids and captions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.report import figures, time_figures
from pipeline.report.content import Counts
from pipeline.report.distributions import Histogram
from pipeline.report.image_counts import ANGLES, DISTANCES, ImageCounts, quality_of
from pipeline.report.outcomes import Gate
from pipeline.report.provenance import number
from shards.metadata import DatasetMetadata


@dataclass(frozen=True)
class Drawing:
    """Figures as plain values by id, and the values that the template shows with them."""

    figures: dict[str, dict[str, Any]]
    content: dict[str, Any]


def draw(metadata: DatasetMetadata, counts: Counts, gates: Sequence[Gate]) -> Drawing:
    """Make all figures; those without data are left out."""
    drawn: dict[str, Any] = {}
    videos, images, times = counts.videos, counts.images, counts.times
    if videos.videos:
        drawn["fig-funnel"] = figures.funnel(gates, videos.videos)
    content: dict[str, Any] = {"pose_log": False, "pose_beyond": 0, "distributions": []}
    if images.poses is not None:
        drawn["fig-pose"] = figures.poses(images.poses)
        content["pose_log"] = bool(images.poses.counts.max() > figures.LOG_COUNTS_FROM)
        content["pose_beyond"] = images.poses.beyond
        drawn |= _pose_spread(images.histograms)
        for name, (figure, caption) in _distributions(metadata, images).items():
            drawn[name] = figure
            content["distributions"].append((name, caption))
    if times is not None:
        drawn["fig-time-steps"] = time_figures.step_times(times)
        drawn["fig-time-slowest"] = time_figures.slowest_videos(times, videos.uris)
    return Drawing({name: json.loads(figure.to_json()) for name, figure in drawn.items()}, content)


def _pose_spread(histograms: Mapping[str, Histogram]) -> dict[str, Any]:
    return {
        "fig-pose-distance": figures.overlaid(
            [(name, histograms[f"distance {name}"]) for name in DISTANCES],
            "pose distance, degrees",
            "identities",
        ),
        "fig-pose-range": figures.overlaid(
            [(name, histograms[f"range {name}"]) for name in ANGLES],
            "range of the angle, degrees",
            "identities",
        ),
    }


def _distributions(metadata: DatasetMetadata, images: ImageCounts) -> dict[str, tuple[Any, str]]:
    found = images.histograms
    made: dict[str, tuple[Any, str]] = {}
    for place, (metric, higher) in enumerate(images.metrics.items()):
        direction = "higher" if higher else "lower"
        made[f"fig-quality-{place}" if place else "fig-quality"] = _one(
            found[quality_of(metric)], f"{metric} ({direction} is better)", f"Image quality by {metric}"
        )
    made["fig-crop-size"] = _one(
        found["crop_side_px"],
        "side of the head crop, px of the source frame",
        "Head crop: the side of the stored square in the source frame",
        _gate_mark(metadata, "min_crop_px"),
    )
    made["fig-face-size"] = _one(
        found["face_px"],
        "face size, px of the source frame",
        "Face size: the square root of the area of the detector's box",
        _gate_mark(metadata, "min_px"),
    )
    made["fig-eyes"] = _one(
        found["eyes_open"], "openness of the less open eye", "Eyes open: 0 is closed, 1 is wide open"
    )
    if "identity_cosine" in found:
        made["fig-cosine"] = _one(
            found["identity_cosine"],
            "cosine",
            "Likeness of each image to its identity: cosine to the mean embedding",
        )
    return made


def _gate_mark(metadata: DatasetMetadata, key: str) -> list[tuple[float, str]]:
    """The line of a configured gate in its histogram."""
    least = number(metadata.provenance, "faces", key)
    return [] if least is None else [(least, f"faces.{key}={least:g}")]


def _one(found: Histogram, axis: str, what: str, marks: Sequence[tuple[float, str]] = ()) -> tuple[Any, str]:
    least, low, middle, high, most = found.quantiles
    caption = (
        f"{what}. Median {middle:,.3g}; 90% lie between {low:,.3g} and {high:,.3g}, "
        f"all between {least:,.3g} and {most:,.3g}."
    )
    return figures.distribution(found, axis, marks=marks), caption
