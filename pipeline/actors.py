"""The thin shell between Ray and the steps: one dictionary row is one video; at first, one file with its videos.

    {"videos": [Video as JSON], parts of one file, which is then opened once}
      -> Analyse -> {"video": Video as JSON, "analysis": Analysis as JSON, "fault", "unenforced",
                  "jpeg", "mask", "points": [bytes], one for each candidate}
      -> Choose  -> {"video_id", "status", "message", "fault", "unenforced"}

`Curate` is both in one process.

What fails on one video becomes that video's failed row; the driver logs its `message` when the failure may be
the machine's. A `fault` is the machine's: nothing is staged, and the driver ends the build with that message. It
is returned and not raised, because Ray would wrap it in stack traces. `unenforced` is what the kernel of that node
lacks for the sandbox; the driver logs it once.

No frame enters Ray's object store, only encoded crops.

Actors freeze what they have loaded: with every few thousand coordinates of a record, Python's garbage collector
would walk over all objects of the libraries again.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import fields
from functools import cache
from typing import Any

from faces.registry import Weights
from pipeline.config import Config
from pipeline.errors import MachineFault
from pipeline.model_files import on_this_machine
from pipeline.records import Analysis, CandidateImage
from pipeline.rejection import Rejection
from pipeline.sandbox import SandboxedDecoder
from pipeline.sources.manifest import Video
from pipeline.stages.analyse import VideoAnalyser
from pipeline.stages.finalize import FinalizedVideo, finalize, mark_failed
from pipeline.stages.outcome import AnalysedVideo, failed
from pipeline.stages.score import CandidateScorer
from pipeline.staging import Staging
from shards.schema import Reason, VideoOutcome

Row = dict[str, Any]
CANDIDATE_FILES = tuple(field.name for field in fields(CandidateImage))
MOST_STARTS = 3
"""How many times work on a video may start in one build: Ray starts it again when the actor dies."""
UNEXPECTED = (
    *(Reason.DECODER_CRASHED, Reason.SANDBOX_VIOLATION, Reason.WORKER_CRASHED),
    *(Reason.TIMEOUT, Reason.OUT_OF_MEMORY, Reason.INTERNAL_ERROR),
)
"""Failures that damage in the file does not explain. The machine or the code may be at fault: they are logged."""


class Analyse:
    """Decodes videos in the sandbox and analyses them."""

    def __init__(self, config: Config, weights: Weights, staging: Staging) -> None:
        import cv2
        import sklearn.cluster  # noqa: F401 - takes seconds, which do not belong to the first video

        cv2.setNumThreads(1)  # one process per CPU: more threads only slow each other down
        run = config.run
        decoder = SandboxedDecoder(
            memory_gb=run.video_memory_gb,
            crash_retries=run.crash_retries,
            mode=run.sandbox,
            threads=config.frames.decoder == "decord",
        )
        self._missing = "; ".join(decoder.enforced.missing)
        self._analyser = VideoAnalyser(config, on_this_machine(weights, run.models_dir), decoder)
        self._staging = staging
        gc.freeze()

    def __call__(self, row: Row) -> Iterator[Row]:
        """Analyse the videos of a row, which are parts of one file: a row for each."""
        videos = [Video.model_validate_json(text) for text in row["videos"]]
        try:
            for video, found in self._results(videos):
                columns = _columns(found.analysis.model_dump_json(), found.images)
                own = {"video": video.model_dump_json(), "fault": "", "unenforced": self._missing}
                yield own | columns
        except (MachineFault, OSError) as fault:
            own = {"video": videos[0].model_dump_json(), "fault": _text(fault), "unenforced": ""}
            yield own | _columns("", [])

    def _results(self, videos: list[Video]) -> Iterator[tuple[Video, AnalysedVideo]]:
        with ExitStack() as stack:

            @cache  # for all videos of the file
            def opened() -> Callable[[Video], AnalysedVideo]:
                return stack.enter_context(self._analyser.opened(videos[0], len(videos)))

            for video in videos:
                yield video, self._result(video, opened)
                # The next step has the result: if this process ends now, another part is at fault.
                self._staging.forget_starts(video)

    def _result(self, video: Video, opened: Callable[[], Callable[[Video], AnalysedVideo]]) -> AnalysedVideo:
        # When a network takes this process down, only this count remains.
        if self._staging.count_start(video) > MOST_STARTS:
            detail = f"the process that analyses it ended {MOST_STARTS} times; --retry-failed tries again"
            return failed(video, Rejection(Reason.WORKER_CRASHED, detail))
        try:
            return opened()(video)
        except (MachineFault, OSError):
            raise
        except MemoryError:
            detail = "the analysis ran out of memory; --retry-failed tries again"
            return failed(video, Rejection(Reason.OUT_OF_MEMORY, detail))
        except Exception as error:  # any error belongs to this video's row
            detail = " ".join(f"{type(error).__name__}: {error}".split())
            return failed(video, Rejection(Reason.INTERNAL_ERROR, detail))


class Choose:
    """Scores the candidates, chooses the images and stages the finished video.

    Holds the quality network, and an embedder for the chosen images.
    """

    def __init__(self, config: Config, weights: Weights, staging: Staging) -> None:
        self._config = config
        self._scorer = CandidateScorer(config, on_this_machine(weights, config.run.models_dir))
        self._staging = staging
        gc.freeze()

    def __call__(self, row: Row) -> Row:
        """Finish the video of a row."""
        video = Video.model_validate_json(row["video"])
        result = {"video_id": video.video_id, "status": "", "message": "", "fault": row["fault"]}
        result["unenforced"] = row["unenforced"]
        if row["fault"]:
            return result
        try:
            finalized = self._finalized(row)
            self._staging.write(video, finalized)
        except (MachineFault, OSError) as fault:
            return result | {"fault": _text(fault)}
        return result | {"status": finalized.outcome.status.value, "message": _message(finalized.outcome)}

    def _finalized(self, row: Row) -> FinalizedVideo:
        analysis = Analysis.model_validate_json(row["analysis"])
        images = [
            CandidateImage(*files) for files in zip(*(row[name] for name in CANDIDATE_FILES), strict=True)
        ]
        higher_is_better = self._scorer.higher_is_better
        try:
            scored = self._scorer.score(analysis, [image.jpeg for image in images])
            return finalize(scored, images, self._config, higher_is_better)
        except MachineFault:
            raise
        except Exception as error:
            return finalize(mark_failed(analysis, error), [], self._config, higher_is_better)


class Curate:
    """Analyses videos and chooses their images.

    On CPUs one process a core is fastest: no images travel, and no process waits for another's.
    """

    def __init__(self, config: Config, weights: Weights, staging: Staging) -> None:
        self._analyse = Analyse(config, weights, staging)
        self._choose = Choose(config, weights, staging)
        self._staging = staging

    def __call__(self, row: Row) -> Iterator[Row]:
        """Curate the videos of a row: a row for each."""
        texts = row["videos"]
        if len(texts) > 1:
            # When this process was started again, parts that the one before has staged are done.
            done = [text for text in texts if self._is_done(Video.model_validate_json(text))]
            yield from map(self._done, done)
            texts = [text for text in texts if text not in done]
        if texts:
            yield from map(self._choose, self._analyse(row | {"videos": texts}))

    def _is_done(self, video: Video) -> bool:
        return self._staging.path(video).is_file()

    def _done(self, text: str) -> Row:
        video = Video.model_validate_json(text)
        status = self._staging.outcome(video).status.value
        return {"video_id": video.video_id, "status": status, "message": "", "fault": "", "unenforced": ""}


def _columns(analysis: str, images: list[CandidateImage]) -> Row:
    return {"analysis": analysis} | {
        name: [getattr(image, name) for image in images] for name in CANDIDATE_FILES
    }


def _text(fault: Exception) -> str:
    return str(fault) or type(fault).__name__  # never empty: that is a row without a fault


def _message(outcome: VideoOutcome) -> str:
    if outcome.reason is None or outcome.reason not in UNEXPECTED:
        return ""
    return f"{outcome.uri} is one failed video ({outcome.reason}): {outcome.detail}"
