"""The thin shell between Ray and the steps: one dictionary row is one video.

    {"video": Video as JSON}
      -> Analyse -> {"video", "analysis": Analysis as JSON, "jpegs": [bytes], "masks": [bytes]}
      -> Score   -> the same, with every candidate's quality
      -> Stage   -> {"video_id", "status", "error"}, the error being the disk's, which ends the build

No frame ever enters Ray's object store, only encoded crops.
"""

from __future__ import annotations

from typing import Any

from faces.registry import ResolvedModel
from pipeline.config import Config
from pipeline.records import Analysis
from pipeline.sources.manifest import Video
from pipeline.stages.decide import broken, decide
from pipeline.stages.isolate import IsolatedAnalyser
from pipeline.stages.score import QualityScorer
from pipeline.staging import Staging

Row = dict[str, Any]
Models = dict[str, ResolvedModel]


class Analyse:
    """Decodes and analyses videos, each in isolation."""

    def __init__(self, config: Config, models: Models) -> None:
        self._analyser = IsolatedAnalyser(config, models)

    def __call__(self, row: Row) -> Row:
        """Analyse the video of a row."""
        found = self._analyser.analyse(Video.model_validate_json(row["video"]))
        return row | {
            "analysis": found.analysis.model_dump_json(),
            "jpegs": found.jpegs,
            "masks": found.masks,
        }


class Score:
    """Holds the quality network."""

    def __init__(self, config: Config, models: Models) -> None:
        self._scorer = QualityScorer(config, models)

    def __call__(self, row: Row) -> Row:
        """Score the candidates of a row."""
        analysis = Analysis.model_validate_json(row["analysis"])
        try:
            analysis = self._scorer.score(analysis, list(row["jpegs"]))
        except Exception as error:  # an image that breaks the network is its video's failure, not the build's
            analysis = broken(analysis, error)
        return row | {
            "analysis": analysis.model_dump_json(),
            "higher_is_better": self._scorer.higher_is_better,
        }


class Stage:
    """Chooses the images and keeps the finished video."""

    def __init__(self, config: Config, staging: Staging) -> None:
        self._config = config
        self._staging = staging

    def __call__(self, row: Row) -> Row:
        """Decide on the video of a row and write it to the staging area."""
        video = Video.model_validate_json(row["video"])
        analysis = Analysis.model_validate_json(row["analysis"])
        decided = decide(
            analysis, list(row["jpegs"]), list(row["masks"]), self._config, row["higher_is_better"]
        )
        row = {"video_id": video.video_id, "status": decided.outcome.status.value, "error": ""}
        try:
            self._staging.write(video, decided)
        except OSError as error:  # told, not raised: Ray would bury the words in stack traces
            row["error"] = str(error)
        return row
