"""The analysis of one video, from its file to the candidate images of each person in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faces.landmarks import FaceLandmarker
from faces.onnx_session import BATCH, DeviceFailure
from faces.profiles import load_detector, load_embedder
from faces.registry import Weights
from pipeline.config import Config
from pipeline.decode.frames import CorruptFrame, Frame
from pipeline.decode.plan import plan_frames
from pipeline.decode.probe import Probe
from pipeline.devices import gpu_fault
from pipeline.records import (
    AnalysedFrame,
    Analysis,
    CandidateImage,
    CandidateTrack,
    Timeline,
    TimelineFace,
)
from pipeline.rejection import Rejection
from pipeline.sandbox import DecodeFailed, SandboxedDecoder
from pipeline.sandbox.frames_folder import FramesFolder, open_frames_folder
from pipeline.sandbox.video import SandboxedVideo
from pipeline.source_files import local_file
from pipeline.sources.manifest import Video
from pipeline.stages.candidates import candidate_image, candidate_track, frame_table
from pipeline.stages.gate import eighth_largest, least_face_px
from pipeline.stages.merge import merge_tracks, seen_together
from pipeline.stages.observe import FaceObserver
from pipeline.stages.outcome import (
    AnalysedVideo,
    facts_of,
    mostly_corrupt,
    named,
    rejected,
    verdict_of,
    without_identity,
)
from pipeline.stages.part import part_of, place_of, too_short
from pipeline.stages.select import Pick, candidates, promise_of
from pipeline.stages.timeline import timeline_faces
from pipeline.stages.track import ShotCuts, Track, Tracker
from pipeline.stages.track_filter import (
    FilteredTrack,
    FilterResult,
    filter_track,
    too_few,
    without,
)
from pipeline.stopwatch import Stopwatch
from pipeline.thresholds import with_thresholds
from shards.schema import (
    IMAGES_PER_IDENTITY,
    Box,
    Reason,
    TrackOutcome,
    VideoOutcome,
)

Opened = SandboxedVideo | FramesFolder


class VideoAnalyser:
    """Analyses videos with networks that are loaded once, in this process; decoders run in the sandbox.

    Args:
        config: of the build.
        weights: the networks' files, by name.
        decoder: opens videos.
    """

    def __init__(self, config: Config, weights: Weights, decoder: SandboxedDecoder) -> None:
        device = config.run.device
        config = with_thresholds(config, weights)
        self._batch = BATCH[device]
        self._config = config
        self._decoder = decoder
        self._observer = FaceObserver(
            load_detector(
                config.models.detector,
                weights,
                device,
                size=config.faces.detection_side,
                min_score=config.faces.min_score,
                least_face_px=least_face_px(config.faces.min_crop_px, config.faces.crop_scale),
            ),
            FaceLandmarker(weights[config.models.landmarker].path),
            load_embedder(config.models.embedder, weights, device),
            config.faces,
            config.shards.jpeg_quality,
        )

    def analyse(self, video: Video) -> AnalysedVideo:
        """Find the candidates of every person in a video; an unusable video, track or face gets a reason.

        Raises:
            MachineFault: the storage is lost, or a GPU failed.
        """
        with self.opened(video) as analyse:
            return analyse(video)

    @contextmanager
    def opened(self, first: Video, parts: int = 1) -> Iterator[Callable[[Video], AnalysedVideo]]:
        """Open a file once for all videos that are parts of it.

        Args:
            first: one of them.
            parts: how many there are.

        Yields:
            A function that analyses one of them, as `analyse` does.

        Raises:
            MachineFault: the storage is lost.
        """
        watch = Stopwatch()
        with ExitStack() as stack:
            try:
                with watch.step("fetch"):
                    path = stack.enter_context(local_file(first))
                opened = stack.enter_context(self._open(path, first.frame_rate, parts))
            except DecodeFailed as failure:
                rejection = failure.rejection
                yield lambda video: rejected(video, rejection, {}, Stopwatch())
                return
            # Its time is the first part's; there is none for a file of this machine.
            fetched_s = [watch.seconds["fetch"]] if str(path) != first.path else []
            yield lambda video: self._analyse(video, opened, fetched_s.pop() if fetched_s else 0.0)

    def _analyse(self, video: Video, opened: Opened, fetched_s: float) -> AnalysedVideo:
        watch = Stopwatch()
        if fetched_s:
            watch.seconds["fetch"] = fetched_s
        facts: dict[str, Any] = {}
        try:
            opened.begin_part()
            with watch.step("probe"):
                facts["sha256"] = opened.sha256()
                found = opened.probe()
            facts |= facts_of(found)
            part = part_of(video, found)
            facts |= place_of(video, found, part)
            if len(part) < IMAGES_PER_IDENTITY:
                raise DecodeFailed(too_short(part, found, video))
            tracks, analysed, faces_seen = self._track(opened, found, part, facts["annotated_box"], watch)
        except DecodeFailed as failure:
            return rejected(video, failure.rejection, facts, watch)
        except DeviceFailure as error:
            raise gpu_fault(error, self._config.run) from error
        corrupt = sum(frame.reason == Reason.CORRUPT_FRAME for frame in analysed)
        facts |= {"analysed_frames": len(analysed), "corrupt_frames": corrupt, "faces_seen": faces_seen}
        return self._outcome_of(video, tracks, analysed, facts, watch)

    def _open(self, path: Path, frame_rate: float | None, parts: int) -> AbstractContextManager[Opened]:
        timeout_s = self._config.run.video_timeout_s
        if frame_rate is None:
            return self._decoder.open(path, timeout_s, parts)
        return open_frames_folder(self._decoder, path, frame_rate, self._planned, timeout_s)

    def _planned(self, times_s: NDArray[np.float64], part: range | None = None) -> NDArray[np.int64]:
        frames = self._config.frames
        return plan_frames(times_s, frames.per_second, frames.max_per_video, part)

    def _track(
        self,
        opened: Opened,
        found: Probe,
        part: range,
        region: Box | None,
        watch: Stopwatch,
    ) -> tuple[list[Track], list[AnalysedFrame], int]:
        config = self._config
        cuts, tracker = ShotCuts(config.tracking.cut_distance), Tracker(config.tracking)
        planned = self._planned(found.times_s, part)
        analysed: list[AnalysedFrame] = []
        faces_seen = 0
        decoded = watch.each("decode", opened.frames(planned, config.frames.decoder))
        while some := list(islice(decoded, self._batch)):
            sound = [frame for frame in some if isinstance(frame, Frame)]
            analysed += [_analysed(frame) for frame in some]
            for frame, observations in zip(sound, self._observer.observe(sound, watch, region), strict=True):
                faces_seen += len(observations)
                with watch.step("track"):
                    tracker.add(observations, frame.time_s, cuts.is_cut(frame.image))
        with watch.step("track"):
            assert config.tracking.merge_cosine is not None  # noqa: S101 - by with_thresholds
            tracks = merge_tracks(tracker.tracks, config.tracking.merge_cosine)
        return tracks, analysed, faces_seen

    def _outcome_of(
        self,
        video: Video,
        tracks: list[Track],
        analysed: list[AnalysedFrame],
        facts: dict[str, Any],
        watch: Stopwatch,
    ) -> AnalysedVideo:
        outcomes: list[TrackOutcome] = []
        kept: list[CandidateTrack] = []
        images: list[CandidateImage] = []
        dropped: Counter[Reason] = Counter()
        faces: list[TimelineFace] = []
        together = seen_together(tracks)
        for number, track in enumerate(tracks):
            with watch.step("select"):
                verdict = filter_track(
                    track, self._config.faces, self._config.tracking, self._config.selection.roll_weight
                )
                verdict, picks = self._candidates(track, verdict)
            dropped.update(verdict.dropped)
            faces += timeline_faces(number, track, verdict, [] if isinstance(picks, Rejection) else picks)
            rejection = picks if isinstance(picks, Rejection) else None
            outcomes.append(
                TrackOutcome(
                    track=number,
                    start_s=round(track.observations[0].time_s, 3),
                    end_s=round(track.last.time_s, 3),
                    frames=len(track.observations),
                    usable_frames=verdict.usable_frames,
                    crop_px=eighth_largest(seen.crop_px for seen in track.observations),
                    face_px=eighth_largest(seen.detection.face_px for seen in track.observations),
                    reason=rejection.reason if rejection else None,
                    detail=rejection.detail if rejection else None,
                )
            )
            if isinstance(picks, list) and isinstance(verdict.result, FilteredTrack):
                usable = verdict.result
                kept.append(candidate_track(number, usable, picks, self._config.selection, together[number]))
                images += [candidate_image(usable, pick.row) for pick in picks]
        damage = mostly_corrupt(analysed)
        if not tracks and facts["annotated_box"] is not None:
            detail = "no face whose centre is in the annotated box was found in any analysed frame"
            damage = damage or Rejection(Reason.NO_FACE, detail)
        if damage is not None:
            # No identity is taken from what is left of such a video.
            outcomes = [without_identity(track, damage) for track in outcomes]
            kept, images = [], []
        outcome = VideoOutcome(
            **(named(video) | facts),
            **verdict_of(outcomes, damage),
            frame_reasons=dict(sorted(dropped.items())),
            tracks=outcomes,
        )
        return AnalysedVideo(
            Analysis(
                outcome=outcome,
                tracks=kept,
                seconds=dict(watch.seconds),
                timeline=Timeline(frames=analysed, faces=faces),
            ),
            images,
        )

    def _candidates(self, track: Track, verdict: FilterResult) -> tuple[FilterResult, list[Pick] | Rejection]:
        """The candidates of a track; and the verdict without the frames that turn out to show another identity."""
        config = self._config
        while True:
            usable = verdict.result
            if isinstance(usable, Rejection):
                return verdict, usable
            found = candidates(
                frame_table(usable, config.selection),
                promise_of(
                    np.array([face.sharpness for face in usable.faces]),
                    np.array([len(face.jpeg) for face in usable.faces]),
                ),
                config.selection,
                partial(usable.is_same_person, least_cosine=config.tracking.min_outlier_cosine),
            )
            if isinstance(found, Rejection):
                return verdict, found
            if not found.others:
                return verdict, found.picks
            verdict = without(verdict, found.others)
            if verdict.usable_frames < IMAGES_PER_IDENTITY:
                reason = too_few(track, verdict.usable_frames, verdict.dropped, config.faces)
                return replace(verdict, result=reason), reason


def _analysed(frame: Frame | CorruptFrame) -> AnalysedFrame:
    reason = Reason.CORRUPT_FRAME if isinstance(frame, CorruptFrame) else None
    return AnalysedFrame(frame=frame.index, time_s=round(frame.time_s, 3), reason=reason)
