"""The thin shell between Ray and the steps: one dictionary row is one video.

    {"video": Video as JSON}
      -> Analyse -> {"video", "analysis": Analysis as JSON, "jpegs": [bytes], "masks": [bytes], "fault"}
      -> Score   -> the same, with every candidate's quality, and {"higher_is_better"}
      -> SelectImages -> {"video_id", "status", "message", "fault"}

What fails on one video becomes that video's failed row; the driver logs its `message` when the file alone does not
explain it. A `fault` is the machine's: nothing is staged, and the driver ends the build with that message. It is
returned and not raised, because Ray would bury it in stack traces.

No frame ever enters Ray's object store, only encoded crops.
"""

from __future__ import annotations

from typing import Any

from faces.registry import Weights
from pipeline.config import Config
from pipeline.errors import MachineFault
from pipeline.records import Analysis
from pipeline.sources.manifest import Video
from pipeline.stages.finalize import finalize, mark_failed
from pipeline.stages.isolate import IsolatedAnalyser
from pipeline.stages.score import QualityScorer
from pipeline.staging import Staging
from shards.schema import Reason, VideoOutcome

Row = dict[str, Any]
UNEXPECTED = (Reason.WORKER_CRASHED, Reason.TIMEOUT, Reason.OUT_OF_MEMORY, Reason.INTERNAL_ERROR)
"""How a video fails that was not found to be damaged: perhaps the machine's doing or ours, so it is said."""


class Analyse:
    """Decodes and analyses videos, each in isolation."""

    def __init__(self, config: Config, weights: Weights) -> None:
        self._analyser = IsolatedAnalyser(config, weights)

    def __call__(self, row: Row) -> Row:
        """Analyse the video of a row."""
        try:
            found = self._analyser.analyse(Video.model_validate_json(row["video"]))
        except MachineFault as fault:
            return row | {"analysis": "", "jpegs": [], "masks": [], "fault": str(fault)}
        return row | {
            "analysis": found.analysis.model_dump_json(),
            "jpegs": found.jpegs,
            "masks": found.masks,
            "fault": "",
        }


class Score:
    """Holds the quality network."""

    def __init__(self, config: Config, weights: Weights) -> None:
        self._scorer = QualityScorer(config, weights)

    def __call__(self, row: Row) -> Row:
        """Score the candidates of a row."""
        row = row | {"higher_is_better": self._scorer.higher_is_better}
        if row["fault"]:
            return row
        analysis = Analysis.model_validate_json(row["analysis"])
        try:
            analysis = self._scorer.score(analysis, list(row["jpegs"]))
        except MachineFault as fault:
            return row | {"fault": str(fault)}
        except Exception as error:
            analysis = mark_failed(analysis, error)
        return row | {"analysis": analysis.model_dump_json()}


class SelectImages:
    """Chooses the images and keeps the finished video."""

    def __init__(self, config: Config, staging: Staging) -> None:
        self._config = config
        self._staging = staging

    def __call__(self, row: Row) -> Row:
        """Decide on the video of a row and write it to the staging area."""
        video = Video.model_validate_json(row["video"])
        if row["fault"]:
            return {"video_id": video.video_id, "status": "", "message": "", "fault": row["fault"]}
        analysis = Analysis.model_validate_json(row["analysis"])
        jpegs, masks = list(row["jpegs"]), list(row["masks"])
        try:
            finalized = finalize(analysis, jpegs, masks, self._config, row["higher_is_better"])
        except Exception as error:
            finalized = finalize(mark_failed(analysis, error), [], [], self._config, row["higher_is_better"])
        status = finalized.outcome.status.value
        try:
            self._staging.write(video, finalized)
        except OSError as error:
            return {"video_id": video.video_id, "status": status, "message": "", "fault": str(error)}
        return {
            "video_id": video.video_id,
            "status": status,
            "message": _message(finalized.outcome),
            "fault": "",
        }


def _message(outcome: VideoOutcome) -> str:
    if outcome.reason is None or outcome.reason not in UNEXPECTED:
        return ""
    return f"{outcome.uri} is one failed video ({outcome.reason}): {outcome.detail}"
