"""The content of the report, section by section, from the tables and the metadata of a dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.not_accepted import NOT_ACCEPTED, Missing
from pipeline.report import contact_sheet, outcomes, provenance
from pipeline.report.distributions import Identities, identities, random_keys, worst_keys
from pipeline.report.gate_table import annotated_sizes, gate_table
from pipeline.report.timings import Seconds, Timings, tabulate
from shards.layout import IMAGES, VIDEOS
from shards.metadata import DatasetMetadata
from shards.reader import Dataset
from shards.schema import IMAGES_PER_IDENTITY, Split, Status

RANDOM_IDENTITIES, WORST_IDENTITIES = 24, 12
SEED = 20
UNACCEPTED_ROWS = 500
LISTED_SHARDS = 200

_VIDEO_COLUMNS = (
    *("video_id", "source", "uri", "license", "bytes", "status", "reason", "detail", "width", "height"),
    *("duration_s", "span_s", "analysed_frames", "corrupt_frames", "faces_seen", "frame_reasons", "tracks"),
    *("identities", "annotated_box"),
)
_IMAGE_COLUMNS = (
    *("key", "source", "person_id", "crop_side_px", "face_px", "yaw", "pitch", "roll", "eyes_open"),
    *("identity_cosine", "quality_metric", "quality", "quality_higher_is_better"),
)


@dataclass(frozen=True)
class Tables:
    """A dataset's tables, as far as the report needs them.

    Attributes:
        videos: columns of the videos table.
        images: columns of the images table.
        identities: figures of each identity.
        roll_weight: of the pose distance.
        roll_weight_known: whether it is that of the configuration.
        metric: name of the quality metric; of the commonest where there are several.
        higher_is_better: its direction.
        times: None when they are not known.
    """

    videos: pa.Table
    images: pa.Table
    identities: Identities
    roll_weight: float
    roll_weight_known: bool
    metric: str
    higher_is_better: bool
    times: Timings | None


def read(dataset: Dataset, seconds: Seconds | None) -> Tables:
    """Read the tables.

    Raises:
        DatasetError: a table does not follow the format.
    """
    videos = dataset.table(VIDEOS, _VIDEO_COLUMNS)
    images = dataset.table(IMAGES, _IMAGE_COLUMNS)
    weight = provenance.number(dataset.metadata.provenance, "selection", "roll_weight")
    roll_weight = 1.0 if weight is None else weight
    metrics = Counter(
        {pair["values"]: pair["counts"] for pair in pc.value_counts(images["quality_metric"]).to_pylist()}
    )
    metric = metrics.most_common(1)[0][0] if metrics else ""
    directions = images.filter(pc.equal(images["quality_metric"], metric))["quality_higher_is_better"]
    return Tables(
        videos=videos,
        images=images,
        identities=identities(images, roll_weight),
        roll_weight=roll_weight,
        roll_weight_known=weight is not None,
        metric=metric,
        higher_is_better=bool(directions[0].as_py()) if len(directions) else True,
        times=None if seconds is None else tabulate(seconds, videos["video_id"].to_pylist()),
    )


def gather(dataset: Dataset, tables: Tables, missing: Missing) -> dict[str, Any]:
    """Every value that the page's template names, except figures."""
    metadata, videos = dataset.metadata, tables.videos
    lost, lost_total = outcomes.unaccepted(videos, UNACCEPTED_ROWS)
    networks = provenance.networks(metadata.provenance)
    libraries = provenance.libraries(metadata.provenance)
    identity_count = len(tables.identities.keys)
    return {
        "name": metadata.name,
        "metadata": metadata,
        "per_identity": IMAGES_PER_IDENTITY,
        "key_figures": _key_figures(metadata),
        "sections": SECTIONS,
        "video_count": len(videos),
        "gates": outcomes.funnel(videos),
        "tracks": outcomes.track_balance(videos),
        "frames": outcomes.frame_balance(videos),
        "faces": outcomes.face_balance(videos),
        "gate_table": gate_table(videos, annotated_sizes(videos)),
        "gate_setting": _gate_setting(metadata),
        "lost_rows": lost.to_pylist(),
        "lost_total": lost_total,
        "failed_total": metadata.counts.videos.get(Status.FAILED, 0),
        "sources": outcomes.by_source(videos, tables.images, missing),
        "missing_total": sum(map(len, missing.values())),
        "list": NOT_ACCEPTED,
        "identity_count": identity_count,
        "roll_weight": tables.roll_weight,
        "roll_weight_note": "" if tables.roll_weight_known else " (the configuration names no weight)",
        "metric": tables.metric,
        "worst_direction": "lowest" if tables.higher_is_better else "highest",
        "side": contact_sheet.SIDE,
        "random_rows": contact_sheet.sheet(dataset, random_keys(tables.identities, RANDOM_IDENTITIES, SEED)),
        "worst_rows": contact_sheet.sheet(
            dataset, worst_keys(tables.identities, tables.metric, WORST_IDENTITIES)
        ),
        "times": _times(tables, identity_count),
        "networks": networks,
        "libraries": libraries,
        "restricted": [network.name for network in networks if network.restricted],
        "configuration": provenance.configuration(metadata.provenance),
        "files": _files(metadata),
        "files_left_out": max(0, len(metadata.shards) - LISTED_SHARDS),
    }


SECTIONS = (
    ("funnel", "Funnel"),
    ("lost", "Failed and rejected"),
    ("sources", "Sources"),
    ("pose", "Head pose"),
    ("quality", "Quality"),
    ("sample", "Sample"),
    ("worst", "Worst"),
    ("time", "Time"),
    ("provenance", "Provenance"),
)


def _key_figures(metadata: DatasetMetadata) -> list[dict[str, object]]:
    counts = metadata.counts
    videos = sum(counts.videos.values())
    accepted = counts.videos.get(Status.ACCEPTED, 0)
    of_split = {split: counts.identities.get(split, 0) for split in Split}
    identity_count = sum(of_split.values())
    yield_note = f"{accepted / videos:.1%} of the videos" if videos else "of none"
    size = sum(shard.bytes for shard in metadata.shards)
    again = identity_count - counts.persons
    return [
        {
            "id": "videos",
            "label": "videos",
            "value": videos,
            "note": f"{counts.videos.get(Status.REJECTED, 0):,} rejected, "
            f"{counts.videos.get(Status.FAILED, 0):,} failed",
        },
        {"id": "accepted", "label": "accepted videos", "value": accepted, "note": yield_note},
        {
            "id": "identities",
            "label": "identities",
            "value": identity_count,
            "note": f"{of_split[Split.TRAIN]:,} train, {of_split[Split.TEST]:,} test",
        },
        {
            "id": "images",
            "label": "images",
            "value": counts.images,
            "note": f"{size / 1e9:,.2f} GB in {len(metadata.shards):,} shards"
            if size >= 1e8
            else f"{size / 1e6:,.1f} MB in {len(metadata.shards):,} shards",
        },
        {
            "id": "persons",
            "label": "persons",
            "value": counts.persons,
            "note": f"repeated identities: {again:,}" if again else "each with one identity",
        },
    ]


def _gate_setting(metadata: DatasetMetadata) -> str:
    """The gates of the configuration as keys with values; empty when it has none."""
    values = {key: provenance.number(metadata.provenance, "faces", key) for key in ("min_crop_px", "min_px")}
    return " and ".join(f"faces.{key}={value:g}" for key, value in values.items() if value is not None)


def _times(tables: Tables, identity_count: int) -> dict[str, Any] | None:
    times = tables.times
    if times is None:
        return None
    total = float(times.totals.sum())
    known = pc.is_in(tables.videos["video_id"], pa.array(times.videos))
    footage = outcomes.footage_s(tables.videos.filter(known))
    per_video = np.column_stack([times.seconds, times.seconds.sum(axis=1)])
    rows = [
        {
            "step": step,
            "median": float(np.median(column)),
            "high": float(np.quantile(column, 0.95)),
            "longest": float(column.max()),
            "total": float(column.sum()),
        }
        for step, column in zip([*times.steps, "all steps"], per_video.T, strict=True)
    ]
    return {
        "rows": rows,
        "total": total,
        "hours": f"{total / 3600:,.1f} hours" if total >= 7200 else f"{total / 60:,.1f} minutes",
        "videos": len(times.videos),
        "factor": total / footage if footage else None,
        "per_identity": total / identity_count if identity_count else None,
    }


def _files(metadata: DatasetMetadata) -> list[Mapping[str, object]]:
    tables = [
        {"name": table.name, "entries": table.rows, "megabytes": table.bytes / 1e6, "sha256": table.sha256}
        for _, table in sorted(metadata.tables.items())
    ]
    shards = [
        {"name": shard.name, "entries": shard.samples, "megabytes": shard.bytes / 1e6, "sha256": shard.sha256}
        for shard in metadata.shards[:LISTED_SHARDS]
    ]
    return [*tables, *shards]
