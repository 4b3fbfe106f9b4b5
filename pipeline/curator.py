"""Takes videos from their file to their staged results: analysis, scoring, choice.

What fails on one video becomes that video's failed row. What the machine is at fault for is raised, and stages
nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import TypeVar

from faces.registry import Weights
from pipeline.config import Config
from pipeline.errors import MachineFault
from pipeline.memory_watch import MemoryWatch
from pipeline.model_files import on_this_machine
from pipeline.monitor import logs
from pipeline.rejection import Rejection
from pipeline.sandbox import SandboxedDecoder
from pipeline.sources.manifest import Video
from pipeline.stages.analyse import VideoAnalyser
from pipeline.stages.finalize import FinalizedVideo, finalize, mark_failed
from pipeline.stages.outcome import AnalysedVideo, failed
from pipeline.stages.score import CandidateScorer
from pipeline.staging import DamagedStagedFile, Staging
from pipeline.time_limit import within
from shards.schema import Reason, VideoOutcome
from storage.path import ObjectPath

MOST_STARTS = 3
"""How many times work on a video may start in one build on nodes that still live: Ray starts it again when the
process ends. Starts on nodes that were lost do not count: a video is not at fault for those."""
MOST_ATTEMPTS = 9
"""How many starts there may be at all: a video can take its node down, as where one container is a whole node."""
Analyse = Callable[[Video], AnalysedVideo]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Curated:
    """A finished video, whose result is staged.

    Attributes:
        video: the video.
        outcome: of its curation.
        seconds: that each stage took; empty when an earlier process had finished it.
        attempt: number of the attempt that finished it in this build, from 1; 0 when an earlier process had.
    """

    video: Video
    outcome: VideoOutcome
    seconds: Mapping[str, float]
    attempt: int


class VideoCurator:
    """All networks of the curation, loaded once.

    Args:
        config: of the build.
        weights: the networks' files, by name.
        staging: where results go.
        node: Ray's id of this node.
        alive: ids of the nodes that live now.

    Raises:
        MachineFault: the networks cannot be copied to this machine.
        RuntimeError: the decoders' sandbox does not start, or lacks something that is required.
    """

    def __init__(
        self,
        config: Config,
        weights: Weights,
        staging: Staging,
        node: str = "",
        alive: Callable[[], set[str]] = lambda: {""},
    ) -> None:
        import cv2
        import sklearn.cluster  # noqa: F401 - takes seconds, which do not belong to the first video

        cv2.setNumThreads(1)  # one process per CPU: more threads only slow each other down
        run = config.run
        decoder = SandboxedDecoder(
            memory_gb=run.video_memory_gb,
            crash_retries=run.crash_retries,
            mode=run.sandbox,
            threads=config.frames.decoder == "decord",
            storage_timeout_s=run.storage_timeout_s,
        )
        self.missing = "; ".join(decoder.enforced.missing)
        """What the kernel of this machine lacks for the sandbox."""
        weights = on_this_machine(weights, run.models_dir)
        for found in weights.values():  # a mount that hangs
            within(run.storage_timeout_s, str(found.path), found.path.stat)
        self._config = config
        self._analyser = VideoAnalyser(config, weights, decoder)
        self._scorer = CandidateScorer(config, weights)
        self._memory = MemoryWatch()
        self._staging = staging
        self._node = node
        self._alive = alive
        self._attempt = 0

    def curate(self, videos: list[Video]) -> Iterator[Curated]:
        """Curate videos that are parts of one file, which is opened once.

        When this work was started again, what was staged before is done.

        Yields:
            Each, once it is staged.

        Raises:
            MachineFault: the machine or its storage fails.
            OSError: the output does.
        """
        found = {video.video_id: self._stored(partial(self._staged, video)) for video in videos}
        for video in videos:
            if outcome := found[video.video_id]:
                yield Curated(video, outcome, {}, 0)
        if todo := [video for video in videos if found[video.video_id] is None]:
            yield from self._curated(todo)

    def _curated(self, videos: list[Video]) -> Iterator[Curated]:
        with ExitStack() as stack:

            @cache  # for all videos of the file
            def opened() -> Analyse:
                return stack.enter_context(self._analyser.opened(videos[0], len(videos)))

            for video in videos:
                noting = self._memory.noting(partial(self._staging.note_memory, video))
                try:
                    with logs.about(video.video_id), noting:
                        finalized = self._finalized(video, opened)
                    self._stored(partial(self._staging.write, video, finalized))
                except (MachineFault, OSError):
                    with suppress(MachineFault, OSError):  # of the output, which is the fault
                        self._stored(partial(self._staging.cancel_start, video, self._node))
                    raise
                # The result is safe: if this process ends now, another part is at fault.
                self._stored(partial(self._staging.forget_starts, video))
                yield Curated(video, finalized.outcome, finalized.seconds, self._attempt)

    def _staged(self, video: Video) -> VideoOutcome | None:
        try:
            return self._staging.outcome(video) if self._staging.path(video).is_file() else None
        except DamagedStagedFile:
            return None  # it is written again

    def _finalized(self, video: Video, opened: Callable[[], Analyse]) -> FinalizedVideo:
        analysed = self._analysed(video, opened)
        analysis, images = analysed.analysis, analysed.images
        higher_is_better = self._scorer.higher_is_better
        try:
            scored = self._scorer.score(analysis, [image.jpeg for image in images])
            return finalize(scored, images, self._config, higher_is_better)
        except MachineFault:
            raise
        except Exception as error:
            return finalize(mark_failed(analysis, error), [], self._config, higher_is_better)

    def _analysed(self, video: Video, opened: Callable[[], Analyse]) -> AnalysedVideo:
        # When a network takes this process down, only this count remains.
        self._attempt = self._starts(video)
        if self._attempt > 1:
            again = f"attempt {self._attempt}: a process that was at work on it has ended"
            logs.log(logging.WARNING, "retry", again, attempt=self._attempt)
        if self._attempt > MOST_STARTS:
            again = f"the process that analyses it ended {self._attempt - 1} times"
            if self._stored(partial(self._staging.ran_out_of_memory, video)):
                detail = (
                    f"{again}, when its node's memory ran out; raise run.analyser_memory_gb, so that fewer "
                )
                detail += "processes share a node, and try again with --retry-failed"
                return failed(video, Rejection(Reason.OUT_OF_MEMORY, detail))
            return failed(video, Rejection(Reason.WORKER_CRASHED, f"{again}; --retry-failed tries again"))
        try:
            return opened()(video)
        except (MachineFault, OSError):
            raise
        except MemoryError:
            detail = "the analysis ran out of memory; --retry-failed tries again"
            return failed(video, Rejection(Reason.OUT_OF_MEMORY, detail))
        except Exception as error:  # any error belongs to this video's row
            logging.getLogger(__name__).exception("the analysis of this video failed")
            detail = " ".join(f"{type(error).__name__}: {error}".split())
            return failed(video, Rejection(Reason.INTERNAL_ERROR, detail))

    def _starts(self, video: Video) -> int:
        """Count a start; the number of starts on nodes that live."""
        nodes = self._stored(partial(self._staging.count_start, video, self._node))
        if not MOST_STARTS < len(nodes) <= MOST_ATTEMPTS:
            return len(nodes)
        alive = self._alive()
        return sum(node in alive for node in nodes)

    def _stored(self, access: Callable[[], Result]) -> Result:
        folder = self._staging.folder
        if isinstance(folder, ObjectPath):
            return access()  # every request has a time limit of its own
        return within(self._config.run.storage_timeout_s, str(folder), access)
