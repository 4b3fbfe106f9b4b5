"""What a build would have to do: the sources listed and counted, and an estimate of time and space.

Nothing is decoded and no network is loaded. One source is listed at a time, in a temporary database
(`sources/rows.py`), so that memory does not grow with the number of videos.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from pipeline.config import PlanConfig, Source
from pipeline.errors import BuildError
from pipeline.rates import FILE, Rates, read_rates
from pipeline.sources.dataset import list_each
from pipeline.sources.manifest import Listing, SourceError
from storage.path import AnyPath

HOUR_S = 3600.0


@dataclass(frozen=True)
class Work:
    """What a source, or all of them, come to; None is unknown.

    Attributes:
        listed: annotated clips of a dataset, files of a plain folder.
        found: those that have a file: the videos of a build.
        missing: those that have none.
        duplicate: second files of a clip or a download.
        hours: length of the videos.
        bytes: size of the files that hold them, each once.
        core_hours: time of one core.
        gpu_hours: time of one GPU for scoring.
        disk_bytes: size of the dataset and of the staging area.
    """

    listed: int
    found: int
    missing: int
    duplicate: int
    hours: float | None
    bytes: int
    core_hours: float | None
    gpu_hours: float | None
    disk_bytes: float | None


@dataclass(frozen=True)
class Plan:
    """The work of all sources, in the order of the configuration.

    Attributes:
        sources: by name.
        rates: the file with which was estimated; None where there is none.
        differences: settings in which the build that was measured differs from this one.
        notes: what the figures rest on, a sentence each.
    """

    sources: dict[str, Work]
    rates: AnyPath | None
    differences: list[str]
    notes: list[str]

    @property
    def total(self) -> Work:
        """The sum of all sources; unknown where one of them is."""
        works = list(self.sources.values())
        return Work(
            **{field.name: _sum([getattr(work, field.name) for work in works]) for field in fields(Work)}
        )


def _sum(figures: Sequence[Any]) -> Any:
    return None if None in figures else sum(figures)


def plan_sources(
    config: PlanConfig, rates_file: AnyPath | None = None, message: Callable[[str], None] = lambda _: None
) -> Plan:
    """List the sources and estimate.

    Args:
        config: of the build; `output` may be missing.
        rates_file: rates of a finished build; those in `output` when not given.
        message: called with what was ignored in a source, a sentence each.

    Raises:
        BuildError: a source cannot be listed, or the rates cannot be read.
    """
    if rates_file is None and config.output is not None and (config.output / FILE).is_file():
        rates_file = config.output / FILE
    rates = None if rates_file is None else read_rates(rates_file)
    estimate = _Estimate(config, rates)
    several = len(config.all_sources) > 1
    works: dict[str, Work] = {}

    def add(source: Source, listing: Listing) -> None:
        for text in listing.ignored.messages():
            message(f"{source.name}: {text}" if several else text)
        works[source.name] = estimate.work(source, listing)

    try:
        # By `map`, so that no name holds on to a listing while the next source is listed.
        for _ in map(add, config.all_sources, list_each(config.all_sources)):
            pass
    except SourceError as error:
        raise BuildError(str(error)) from error
    differences = [] if rates is None else rates.differences(config)
    known = any(work.disk_bytes is not None for work in works.values())
    basis = _basis(config, rates_file, rates if known else None, differences)
    return Plan(works, rates_file, differences, [*estimate.notes, *basis])


def _basis(
    config: PlanConfig, file: AnyPath | None, rates: Rates | None, differences: list[str]
) -> Iterator[str]:
    """What the estimate rests on."""
    if rates is None and file is not None:
        yield f"core-hours, GPU-hours and disk are unknown: the rates in {file} say nothing of these sources."
        return
    if rates is None:
        yield (
            "core-hours, GPU-hours and disk are unknown: build some of these videos first, then pass --rates "
            f"<output>/{FILE}."
        )
        return
    measured = rates.all
    yield (
        f"core-hours, GPU-hours and disk are estimated with {file} (videos: {measured.videos:,}, hours: "
        f"{shown_hours(measured.video_s / HOUR_S)})."
    )
    if differences:
        yield (
            "warning: the rates were measured with other settings, so the estimate may be far off: "
            f"{'; '.join(differences)}."
        )
    if rates.device != config.run.device:
        yield (
            "core-hours and GPU-hours are unknown, because the rates were measured with "
            f"run.device={rates.device}."
        )


def shown_hours(hours: float) -> str:
    """Hours for people, with at least three digits."""
    return f"{hours:,.0f}" if hours >= 1000 else f"{hours:.3g}"


class _Estimate:
    """Estimates sources with the rates that were measured, and notes what the figures rest on."""

    def __init__(self, config: PlanConfig, rates: Rates | None) -> None:
        self.notes: list[str] = []
        self._rates = rates
        self._on_gpu = config.run.device == "cuda"
        self._of_device = rates is not None and rates.device == config.run.device

    def work(self, source: Source, listing: Listing) -> Work:
        extent = listing.extent
        video_s = self._video_s(source, listing)
        core_hours, gpu_hours = self._hours(source, video_s)
        return Work(
            listed=extent.listed,
            found=extent.videos,
            missing=extent.listed - extent.videos,
            duplicate=listing.ignored.duplicates,
            hours=None if video_s is None else video_s / HOUR_S,
            bytes=extent.bytes,
            core_hours=core_hours,
            gpu_hours=gpu_hours,
            disk_bytes=self._disk_bytes(source, extent.videos, video_s),
        )

    def _video_s(self, source: Source, listing: Listing) -> float | None:
        extent = listing.extent
        if extent.seconds is not None:
            if extent.rate_assumed:
                self.notes.append(
                    f"{source.name}: the length of {extent.rate_assumed:,} of {extent.videos:,} clips is "
                    f"annotated in frames. hours counts {source.frame_rate:g} frames a second (frame_rate of the "
                    "source)."
                )
            return extent.seconds
        rate, is_of_kind = (None, False) if self._rates is None else self._rates.of(source.name, source.kind)
        if rate is None or not is_of_kind or rate.video_s_per_byte is None:
            self.notes.append(
                f"{source.name}: hours is unknown, because only opening the files would tell. Rates of a source "
                f"of kind {source.kind} give an estimate."
            )
            return None
        self.notes.append(
            f"{source.name}: hours is estimated from the size of the files, {rate.video_s_per_byte * 1e6:.3g} s a "
            "MB as in the rates."
        )
        return extent.bytes * rate.video_s_per_byte

    def _hours(self, source: Source, video_s: float | None) -> tuple[float | None, float | None]:
        """Core-hours and GPU-hours."""
        if self._rates is None or video_s is None or not self._of_device:
            return None, None if self._on_gpu else 0.0
        rate, _ = self._rates.of(source.name, source.kind)
        analysis = video_s / HOUR_S * rate.analysis_s_per_video_s
        scoring = video_s / HOUR_S * rate.scoring_s_per_video_s
        return (analysis, scoring) if self._on_gpu else (analysis + scoring, 0.0)

    def _disk_bytes(self, source: Source, videos: int, video_s: float | None) -> float | None:
        if self._rates is None or video_s is None:
            return None
        rate, is_of_kind = self._rates.of(source.name, source.kind)
        if not is_of_kind:
            self.notes.append(
                f"{source.name}: no source of kind {source.kind} was measured. The estimate takes the rates of "
                "all that were."
            )
        identities = video_s / HOUR_S * rate.identities_per_video_h
        if identities and self._rates.dataset_bytes_per_identity is None:
            return None
        dataset = identities * (self._rates.dataset_bytes_per_identity or 0.0)
        return dataset + videos * rate.staged_bytes_per_video
