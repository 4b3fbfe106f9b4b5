"""Measures the rates of a finished build, with which `mfhq plan` estimates others; see `pipeline.rates`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import astuple, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import Config
from pipeline.plan import BuildPlan
from pipeline.rates import FILE, SCORING, Rate, Rates
from pipeline.report import timings
from pipeline.report.build import FOLDER, TIMINGS
from pipeline.report.outcomes import footage_s
from shards.atomic import write_bytes
from shards.canonical import indented_json
from shards.layout import VIDEOS
from shards.streamed import StreamedDataset

_COLUMNS = ("video_id", "source", "bytes", "duration_s", "span_s", "identities")


def write_rates(config: Config, plan: BuildPlan) -> None:
    """Write `<output>/report/rates.json`, unless no length of a video is known.

    Args:
        config: of the build.
        plan: of the build, all of its videos finished, packed and reported, so that their times are stored.

    Raises:
        DatasetError: a table or the stored times cannot be read.
        OutOfSpace: the disk is full.
    """
    dataset = StreamedDataset.open(config.output)
    sums = _measured(config, plan, dataset)
    of_sources = {
        source.name: sums[source.name].rate(source.kind)
        for source in config.all_sources
        if source.name in sums
    }
    every = sum(sums.values(), _Sums()).rate()
    if every is None:
        return
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


@dataclass(frozen=True)
class _Sums:
    """Sums over some videos; `whole_*` are of those that are whole files."""

    videos: int = 0
    video_s: float = 0.0
    analysis_s: float = 0.0
    scoring_s: float = 0.0
    identities: int = 0
    staged_bytes: int = 0
    whole_s: float = 0.0
    whole_bytes: int = 0

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(*(mine + others for mine, others in zip(astuple(self), astuple(other), strict=True)))

    def rate(self, kind: str | None = None) -> Rate | None:
        """The rate of these videos; None when the length of none is known."""
        if self.video_s <= 0:
            return None
        return Rate(
            kind=kind,
            videos=self.videos,
            video_s=self.video_s,
            analysis_s_per_video_s=self.analysis_s / self.video_s,
            scoring_s_per_video_s=self.scoring_s / self.video_s,
            identities_per_video_h=self.identities * 3600 / self.video_s,
            staged_bytes_per_video=self.staged_bytes / self.videos,
            video_s_per_byte=self.whole_s / self.whole_bytes if self.whole_bytes else None,
        )


def _measured(config: Config, plan: BuildPlan, dataset: StreamedDataset) -> dict[str, _Sums]:
    """The sums of each source."""
    staged = plan.staging.sizes(plan.manifest.videos)
    source_of = {video.video_id: video.source for video in plan.manifest.videos}
    sums: defaultdict[str, _Sums] = defaultdict(_Sums)
    for batch in dataset.batches(VIDEOS, _COLUMNS):
        for source in pc.unique(batch["source"]).to_pylist():
            sums[source] += _of_videos(batch.filter(pc.equal(batch["source"], source)), staged)
    for batch in timings.kept(config.output / FOLDER / TIMINGS) or ():
        ids, scoring, analysis = timings.totals_of(batch, SCORING)
        sources = np.array([source_of.get(video, "") for video in ids])
        for source in sums:
            of_source = sources == source
            sums[source] += _Sums(
                analysis_s=float(analysis[of_source].sum()), scoring_s=float(scoring[of_source].sum())
            )
    return sums


def _of_videos(videos: pa.Table, staged: Mapping[str, int]) -> _Sums:
    """All but the times."""
    lengths = footage_s(videos)
    whole = videos.filter(pc.is_null(videos["span_s"]))
    return _Sums(
        videos=len(videos),
        video_s=sum(lengths),
        identities=pc.sum(videos["identities"]).as_py(),
        staged_bytes=sum(staged.get(name, 0) for name in videos["video_id"].to_pylist()),
        whole_s=sum(footage_s(whole)),
        whole_bytes=pc.sum(whole["bytes"]).as_py() or 0,
    )
