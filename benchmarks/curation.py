"""The whole curation of one video in one process, as the actors of a build do it."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from faces.profiles import required_files
from faces.registry import load_weights
from pipeline.config import Config
from pipeline.sandbox import SandboxedDecoder
from pipeline.sources.manifest import Video
from pipeline.stages.analyse import VideoAnalyser
from pipeline.stages.finalize import FinalizedVideo, finalize
from pipeline.stages.outcome import AnalysedVideo
from pipeline.stages.score import CandidateScorer
from pipeline.stages.select import FrameTable, Pick, Picks
from settings.loading import load_workflow

WORKFLOW = Path(__file__).parents[1] / "workflows" / "curate_embedded.yaml"
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Curated:
    """A video's analysis with all its candidates, and its outcome with the chosen images."""

    analysed: AnalysedVideo
    finalized: FinalizedVideo


@dataclass(frozen=True)
class Measured:
    """Of all usable frames of a track, each (N,)."""

    sharpness: NDArray[np.float64]
    quality: NDArray[np.float64]


class Curation:
    """Curates one file at a time.

    Args:
        folder: that contains the files.
        overrides: of the workflow, such as `faces.min_crop_px=220`.
        workflow: names the networks; by default those that wheels ship.
    """

    def __init__(self, folder: Path, *overrides: str, workflow: Path = WORKFLOW) -> None:
        paths = [f"source.path={folder}", f"output={folder}-out"]
        self.config = load_workflow(workflow, [*paths, *overrides], Config)
        models_dir = self.config.run.models_dir
        weights = load_weights(required_files(self.config.models.names, models_dir), models_dir)
        self._analyser = VideoAnalyser(self.config, weights, SandboxedDecoder())
        self._scorer = CandidateScorer(self.config, weights)
        self.observer = self._analyser._observer
        self.metric = self._scorer._metric
        self.identity = self._scorer._identity

    def curate(self, path: Path) -> Curated:
        """The outcome of a file, with its chosen images."""
        return self.curate_video(_video(path))

    def curate_video(self, video: Video) -> Curated:
        """The same of a video that a source has listed."""
        found = self._analyser.analyse(video)
        scored = self._scorer.score(found.analysis, [image.jpeg for image in found.images])
        finalized = finalize(scored, found.images, self.config, self._scorer.higher_is_better)
        return Curated(found, finalized)

    def measure_all(self, path: Path) -> dict[int, Measured]:
        """Sharpness and quality of all usable frames, by track."""
        with patch("pipeline.stages.analyse.candidates", _all_frames):
            found = self._analyser.analyse(_video(path))
        jpegs, measured = (image.jpeg for image in found.images), {}
        for track in found.analysis.tracks:
            images = [self._scorer._image(c, next(jpegs)) for c in track.candidates]
            sharpness = np.array([candidate.sharpness for candidate in track.candidates])
            measured[track.track] = Measured(sharpness, np.array(self._scorer._scores(images)))
        return measured


def _all_frames(frames: FrameTable, *_: object) -> Picks:
    """Stands in for the selection of candidates: every usable frame is one."""
    return Picks([Pick(row, row, 0) for row in range(len(frames.eyes_closed))], [])


def _video(path: Path) -> Video:
    return Video(
        video_id=path.name,
        source="folder",
        uri=path.name,
        path=str(path),
        bytes=path.stat().st_size,
        modified_ns=0,
    )


def cpu_seconds() -> float:
    """Processor time of this process and of all that it started, also of those that have ended."""
    return _cpu_seconds(os.getpid())


def _cpu_seconds(process: int) -> float:
    return own_cpu_seconds(process) + sum(_cpu_seconds(child) for child in children(process))


def own_cpu_seconds(process: int) -> float:
    """Processor time of a process and of the children that it has waited for; 0 when it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(value) for value in fields[11:15]) / TICKS  # utime, stime, cutime, cstime


def children(process: int) -> list[int]:
    """The running children of a process; none when it has ended."""
    found: list[int] = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):
            found += map(int, task.read_text(encoding="utf-8").split())
    return found
