"""The content of the report, section by section, from the counts and the metadata of a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.layout import PHOTOGRAPHS
from pipeline.not_accepted import NOT_ACCEPTED, Missing
from pipeline.people.findings import PeopleFindings
from pipeline.report import contact_sheet, outcomes, person_sheets, persons, provenance
from pipeline.report.hashed import Hashes
from pipeline.report.image_counts import SHOWN_OF_PERSON, ImageCounts, count_images
from pipeline.report.timings import Timings
from pipeline.report.video_counts import VideoCounts, count_videos
from shards.metadata import DatasetMetadata
from shards.schema import IMAGES_PER_IDENTITY, Split, Status
from shards.streamed import FoundSamples, StreamedDataset

LISTED_SHARDS = 200
LISTED_SOURCES = 200
LISTED_LICENSES = 20
LISTED_COMBINATIONS = 20
THRESHOLD = "people.link_cosine"
"""The key of the configuration that the pairs are there to choose."""


@dataclass(frozen=True)
class Counts:
    """What the page shows of a dataset's tables.

    Attributes:
        videos: counted over the videos table.
        images: counted over the images table.
        roll_weight: of the pose distance.
        roll_weight_known: whether it is that of the configuration.
        times: None when they are not known.
    """

    videos: VideoCounts
    images: ImageCounts
    roll_weight: float
    roll_weight_known: bool
    times: Timings | None


def count(dataset: StreamedDataset, times: Timings | None) -> Counts:
    """Read the tables, in batches.

    Raises:
        DatasetError: a table does not follow the format.
    """
    weight = provenance.number(dataset.metadata.provenance, "selection", "roll_weight")
    roll_weight = 1.0 if weight is None else weight
    timed: Hashes = np.zeros(0, np.uint64) if times is None else times.videos
    return Counts(
        videos=count_videos(dataset, timed, times.slowest if times is not None else ()),
        images=count_images(dataset, roll_weight),
        roll_weight=roll_weight,
        roll_weight_known=weight is not None,
        times=times,
    )


def shown_keys(images: ImageCounts, findings: PeopleFindings | None) -> list[str]:
    """Keys of all samples whose images the page shows, each once."""
    keys = [*images.random_keys, *images.worst_keys, *person_sheets.shown_keys(images, findings)]
    return list(dict.fromkeys(keys))


def gather(
    metadata: DatasetMetadata,
    counts: Counts,
    missing: Missing,
    findings: PeopleFindings | None,
    samples: FoundSamples,
) -> dict[str, Any]:
    """Every value that the page's template names, except figures.

    Args:
        metadata: of the dataset.
        counts: of its tables.
        missing: clips without a file.
        findings: of linking; None where there are none.
        samples: those of `shown_keys`.
    """
    videos, images = counts.videos, counts.images
    networks = provenance.networks(metadata.provenance)
    sources = videos.sources.rows(persons.by_source(images.persons), missing)
    return {
        "name": metadata.name,
        "metadata": metadata,
        "of_photographs": metadata.provenance.config.get("kind") == "photographs",
        "photographs_list": PHOTOGRAPHS,
        "per_identity": IMAGES_PER_IDENTITY,
        "key_figures": _key_figures(metadata, images.persons),
        "sections": SECTIONS,
        "video_count": videos.videos,
        "gates": outcomes.funnel(videos.videos, videos.reasons),
        "tracks": videos.tracks,
        "frames": videos.frames,
        "faces": videos.faces,
        "gate_table": videos.gates,
        "gate_setting": _gate_setting(metadata),
        "lost_rows": videos.lost,
        "lost_total": videos.reasons.total(),
        "failed_total": metadata.counts.videos.get(Status.FAILED, 0),
        "sources": sources[:LISTED_SOURCES],
        "sources_left_out": sources[LISTED_SOURCES:],
        "listed_licenses": LISTED_LICENSES,
        "missing_total": sum(map(len, missing.values())),
        "list": NOT_ACCEPTED,
        "identity_count": images.identities,
        "roll_weight": counts.roll_weight,
        "roll_weight_note": "" if counts.roll_weight_known else " (the configuration names no weight)",
        "metric": images.metric,
        "metrics_left_out": images.metrics_left_out,
        "worst_direction": "lowest" if images.higher_is_better else "highest",
        "side": contact_sheet.SIDE,
        "random_rows": contact_sheet.sheet(samples, images.random_keys),
        "worst_rows": contact_sheet.sheet(samples, images.worst_keys),
        "people": _people(images, findings, samples, erased=metadata.generation > 0),
        "times": _times(counts),
        "networks": networks,
        "libraries": provenance.libraries(metadata.provenance),
        "restricted": [network.name for network in networks if network.restricted],
        "configuration": provenance.configuration(metadata.provenance),
        "files": _files(metadata),
        "files_left_out": max(0, len(metadata.shards) - LISTED_SHARDS),
    }


SECTIONS = (
    ("funnel", "Funnel"),
    ("lost", "Failed and rejected"),
    ("sources", "Sources"),
    ("persons", "Persons"),
    ("pose", "Head pose"),
    ("quality", "Quality"),
    ("sample", "Sample"),
    ("worst", "Worst"),
    ("time", "Time"),
    ("provenance", "Provenance"),
)


def _key_figures(metadata: DatasetMetadata, people: persons.Persons) -> list[dict[str, object]]:
    counts = metadata.counts
    videos = sum(counts.videos.values())
    accepted = counts.videos.get(Status.ACCEPTED, 0)
    of_split = {split: counts.identities.get(split, 0) for split in Split}
    yield_note = f"{accepted / videos:.1%} of the videos" if videos else "of none"
    size = sum(shard.bytes for shard in metadata.shards)
    several = int((people.identities > 1).sum())
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
            "value": sum(of_split.values()),
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
            "note": f"{several:,} with several identities" if several else "each with one identity",
        },
    ]


def _gate_setting(metadata: DatasetMetadata) -> str:
    """The gates of the configuration as keys with values; empty when it has none."""
    values = {key: provenance.number(metadata.provenance, "faces", key) for key in ("min_crop_px", "min_px")}
    return " and ".join(f"faces.{key}={value:g}" for key, value in values.items() if value is not None)


def _people(
    images: ImageCounts, findings: PeopleFindings | None, samples: FoundSamples, *, erased: bool
) -> dict[str, Any]:
    splits, in_both = persons.by_split(images.persons)
    combinations = persons.combinations(images.persons)
    several = int((images.persons.identities > 1).sum())
    return {
        "total": len(images.persons.identities),
        "several": several,
        "sizes": persons.by_size(images.persons),
        "splits": splits,
        "in_both": in_both,
        "source_count": len(images.persons.sources),
        "combinations": combinations[:LISTED_COMBINATIONS],
        "combined": sum(row.persons for row in combinations),
        "combinations_left_out": len(combinations[LISTED_COMBINATIONS:]),
        "groups": person_sheets.group_sheets(samples, images),
        "shown_of_person": SHOWN_OF_PERSON,
        "pairs": person_sheets.pair_sheets(samples, findings, erased=erased),
        "threshold_key": THRESHOLD,
    }


def _times(counts: Counts) -> dict[str, Any] | None:
    times = counts.times
    if times is None:
        return None
    spreads = [*zip(times.steps, times.spreads, strict=True), ("all steps", times.whole)]
    total, identities, footage = times.whole.total, counts.images.identities, counts.videos.timed_s
    return {
        "rows": [{"step": step, "spread": spread} for step, spread in spreads],
        "total": total,
        "hours": f"{total / 3600:,.1f} hours" if total >= 7200 else f"{total / 60:,.1f} minutes",
        "videos": len(times.videos),
        "factor": total / footage if footage else None,
        "per_identity": total / identities if identities else None,
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
