"""Measures the rates of a finished build, with which `mfhq plan` estimates others; see `pipeline.rates`."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import Config
from pipeline.plan import BuildPlan
from pipeline.rates import FILE, SCORING, Rate, Rates
from pipeline.report.outcomes import footage_s
from pipeline.report.timings import Seconds
from shards.atomic import write_bytes
from shards.canonical import indented_json
from shards.layout import VIDEOS
from shards.reader import Dataset

_COLUMNS = ("video_id", "source", "bytes", "duration_s", "span_s", "identities")


def write_rates(config: Config, plan: BuildPlan, seconds: Seconds) -> None:
    """Write `<output>/report/rates.json`, unless no length of a video is known.

    Args:
        config: of the build.
        plan: of the build, all of its videos finished and packed.
        seconds: video -> step -> seconds.

    Raises:
        OutOfSpace: the disk is full.
    """
    dataset = Dataset.open(config.output)
    videos = dataset.table(VIDEOS, _COLUMNS)
    staged = plan.staging.sizes(plan.manifest.videos)
    every = _rate(videos, seconds, staged)
    if every is None:
        return
    of_sources = {
        source.name: _rate(
            videos.filter(pc.equal(videos["source"], source.name)), seconds, staged, source.kind
        )
        for source in config.all_sources
    }
    identities = sum(dataset.metadata.counts.identities.values())
    shards = sum(shard.bytes for shard in dataset.metadata.shards)
    rates = Rates(
        device=config.run.device,
        settings=config.curation({}, {})["settings"],
        dataset_bytes_per_identity=shards / identities if identities else None,
        all=every,
        sources={name: rate for name, rate in of_sources.items() if rate is not None},
    )
    write_bytes(config.output / FILE, indented_json(rates.model_dump(mode="json")))


def _rate(
    videos: pa.Table, seconds: Seconds, staged: Mapping[str, int], kind: str | None = None
) -> Rate | None:
    """The rate of some videos; None when the length of none is known."""
    video_s = footage_s(videos)
    if video_s <= 0:
        return None
    ids = videos["video_id"].to_pylist()
    steps = [(step, spent) for name in ids for step, spent in seconds.get(name, {}).items()]
    analysis_s = sum(spent for step, spent in steps if step not in SCORING)
    scoring_s = sum(spent for step, spent in steps if step in SCORING)
    whole = videos.filter(pc.is_null(videos["span_s"]))
    whole_bytes = pc.sum(whole["bytes"]).as_py()
    return Rate(
        kind=kind,
        videos=len(videos),
        video_s=video_s,
        analysis_s_per_video_s=analysis_s / video_s,
        scoring_s_per_video_s=scoring_s / video_s,
        identities_per_video_h=pc.sum(videos["identities"]).as_py() * 3600 / video_s,
        staged_bytes_per_video=sum(staged.get(name, 0) for name in ids) / len(ids),
        video_s_per_byte=footage_s(whole) / whole_bytes if whole_bytes else None,
    )
