"""The analysis decodes in the sandbox, and a bad video costs its own row only."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from skimage import data

from faces.onnx_session import BATCH
from faces.registry import Weights, load_weights
from pipeline.config import Config
from pipeline.curator import MOST_STARTS, VideoCurator
from pipeline.records import AnalysedFrame
from pipeline.sandbox import SandboxedDecoder
from pipeline.sandbox.source import Source
from pipeline.sources.folder import list_folder
from pipeline.sources.manifest import Video
from pipeline.stages.analyse import VideoAnalyser
from pipeline.stages.choice import choose_images
from pipeline.stages.finalize import finalize
from pipeline.stages.fingerprint import samples_of
from pipeline.stages.outcome import mostly_corrupt
from pipeline.stages.score import CandidateScorer
from pipeline.staging import Staging
from settings.loading import load_workflow
from shards.record_checks import validate_video
from shards.schema import Reason, Status

WORKFLOW = Path(__file__).parents[2] / "workflows" / "curate_embedded.yaml"
KEY_FRAMES = 10
"""Frames between two key frames of the clip."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    portrait = data.astronaut()[:320, 60:380]
    options = {"preset": "ultrafast", "g": str(KEY_FRAMES), "keyint_min": str(KEY_FRAMES)}
    with av.open(str(folder / "face.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = 320, 320, "yuv420p"
        for number in range(40):
            turned = cv2.getRotationMatrix2D((160, 130), (number % 30 - 15) * 1.5, 1.0)
            image = cv2.warpAffine(portrait, turned, (320, 320), borderMode=cv2.BORDER_REPLICATE)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(stream.encode())
    _damage(folder / "face.mp4", folder / "damaged.mp4", [2])
    _damage(folder / "face.mp4", folder / "ruined.mp4", [0, 10, 20, 31])
    _damage(folder / "face.mp4", folder / "mostly.mp4", [3, 10, 24])
    (folder / "script.mp4").write_text("ffconcat version 1.0\nfile face.mp4\n")
    (folder / "empty.mp4").touch()
    os.mkfifo(folder / "pipe.mp4")
    return folder


def _damage(whole: Path, damaged: Path, packets: list[int]) -> None:
    """Overwrite the middle of the given packets, which keep their size."""
    content = bytearray(whole.read_bytes())
    with av.open(str(whole)) as file:
        spans = [(packet.pos, packet.size) for packet in file.demux(video=0) if packet.size]
    random = np.random.default_rng(0)
    for number in packets:
        start, size = spans[number]
        content[start + size // 4 : start + size] = random.bytes(size - size // 4)
    damaged.write_bytes(content)


@pytest.fixture(scope="module")
def config(folder: Path) -> Config:
    fixed = [f"source.path={folder}", f"output={folder}-out", "faces.min_crop_px=90"]
    return load_workflow(WORKFLOW, [*fixed, "run.video_timeout_s=60"], Config)


@pytest.fixture(scope="module")
def weights(config: Config) -> Weights:
    return load_weights([name for name in config.models.names if name != "piqe"], None)


@pytest.fixture(scope="module")
def videos(config: Config) -> dict[str, Video]:
    return {Path(video.uri).stem: video for video in list_folder(config.source).videos}


@pytest.fixture(scope="module")
def analyser(config: Config, weights: Weights) -> Iterator[VideoAnalyser]:
    decoder = SandboxedDecoder()
    yield VideoAnalyser(config, weights, decoder)
    decoder.close()


def test_an_intact_video_loses_no_frame_and_gives_an_identity(
    analyser: VideoAnalyser, videos: dict[str, Video]
) -> None:
    found = analyser.analyse(videos["face"])
    outcome = found.analysis.outcome
    assert (outcome.status, outcome.identities) == (Status.ACCEPTED, 1)
    assert (outcome.analysed_frames, outcome.corrupt_frames) == (24, 0)
    assert outcome.sha256 is not None
    assert outcome.color_transfer is not None
    assert len(found.images) > 8


def test_the_fingerprint_of_a_track_has_a_sample_of_each_usable_face(
    analyser: VideoAnalyser, videos: dict[str, Video]
) -> None:
    analysis = analyser.analyse(videos["face"]).analysis
    (track,) = analysis.tracks
    samples = samples_of(track.fingerprint)
    usable = [face for face in analysis.timeline.faces if face.reason is None]
    assert samples["time_ms"].tolist() == [round(1000 * face.time_s) for face in usable]
    rolls = [face.pose.roll for face in usable if face.pose is not None]
    assert samples["pose"][:, 2] / 100 == pytest.approx(rolls, abs=0.06)
    assert track.seen_with == []
    assert track.image_bytes > 10_000


@pytest.mark.parametrize("batch", [2, 7, 64])
def test_the_analysis_is_the_same_whatever_the_batch(
    config: Config, weights: Weights, videos: dict[str, Video], batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = SandboxedDecoder()
    analyser = VideoAnalyser(config, weights, decoder)
    monkeypatch.setitem(BATCH, "cpu", batch)
    batched = VideoAnalyser(config, weights, decoder)
    for name in ("face", "damaged"):
        alone, together = analyser.analyse(videos[name]), batched.analyse(videos[name])
        untimed = {"seconds": {}}
        assert together.analysis.model_copy(update=untimed) == alone.analysis.model_copy(update=untimed)
        assert together.images == alone.images
    decoder.close()


def test_the_chosen_images_are_embedded_and_the_other_candidates_are_not(
    analyser: VideoAnalyser, config: Config, weights: Weights, videos: dict[str, Video]
) -> None:
    found = analyser.analyse(videos["face"])
    (track,) = found.analysis.tracks
    assert any(candidate.identity_cosine is None for candidate in track.candidates)
    scorer = CandidateScorer(config, weights)
    (scored,) = scorer.score(found.analysis, [image.jpeg for image in found.images]).tracks
    chosen = choose_images(scored, config.selection, scorer.higher_is_better)
    assert isinstance(chosen, list)
    cosines = [scored.candidates[row].identity_cosine for row in chosen]
    assert all(cosine is not None and cosine > 0.6 for cosine in cosines)
    assert any(candidate.identity_cosine is None for candidate in scored.candidates)


def test_frames_from_a_damaged_one_to_the_next_key_frame_are_dropped(
    analyser: VideoAnalyser, videos: dict[str, Video]
) -> None:
    analysis = analyser.analyse(videos["damaged"]).analysis
    corrupt = {frame.frame for frame in analysis.timeline.frames if frame.reason == Reason.CORRUPT_FRAME}
    assert corrupt
    assert corrupt == {frame.frame for frame in analysis.timeline.frames if 2 <= frame.frame < KEY_FRAMES}
    assert analysis.outcome.corrupt_frames == len(corrupt)
    assert not corrupt & {face.frame for face in analysis.timeline.faces}


def test_a_video_that_is_mostly_damaged_is_rejected_for_it(
    analyser: VideoAnalyser, videos: dict[str, Video]
) -> None:
    outcome = analyser.analyse(videos["ruined"]).analysis.outcome
    assert (outcome.status, outcome.reason) == (Status.REJECTED, Reason.CORRUPT_FRAME)
    assert outcome.detail is not None
    assert outcome.detail.endswith("analysed frames are damaged or depend on damaged ones")
    assert 2 * outcome.corrupt_frames > outcome.analysed_frames


def test_a_mostly_damaged_video_gives_no_identity_though_its_sound_frames_would_do(
    config: Config, weights: Weights, videos: dict[str, Video]
) -> None:
    lenient = config.selection.model_copy(update={"min_separation_deg": 0.1})
    lenient_config = config.model_copy(update={"selection": lenient})
    decoder = SandboxedDecoder()
    found = VideoAnalyser(lenient_config, weights, decoder).analyse(videos["mostly"])
    decoder.close()
    assert found.analysis.outcome.tracks[0].usable_frames > 8
    assert (found.analysis.tracks, found.images) == ([], [])
    outcome = finalize(found.analysis, found.images, lenient_config, True).outcome
    assert (outcome.status, outcome.reason) == (Status.REJECTED, Reason.CORRUPT_FRAME)
    assert [track.reason for track in outcome.tracks] == [Reason.CORRUPT_FRAME]
    assert validate_video(outcome) == []


def test_half_of_the_frames_is_not_most_of_them() -> None:
    frames = [AnalysedFrame(frame=n, time_s=n, reason="corrupt_frame" if n < 5 else None) for n in range(10)]
    assert mostly_corrupt(frames) is None
    assert mostly_corrupt(frames[:9]) is not None
    assert mostly_corrupt([]) is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("script", Reason.UNSUPPORTED_CONTAINER),
        ("empty", Reason.EMPTY_FILE),
        ("pipe", Reason.NOT_A_REGULAR_FILE),
    ],
)
def test_what_is_no_video_is_one_failed_row(
    analyser: VideoAnalyser, videos: dict[str, Video], name: str, reason: Reason
) -> None:
    outcome = analyser.analyse(videos[name]).analysis.outcome
    assert (outcome.status, outcome.reason) == (Status.FAILED, reason)
    assert validate_video(outcome) == []


def test_the_time_that_the_networks_take_counts_as_well(
    config: Config, weights: Weights, videos: dict[str, Video], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = config.run.model_copy(update={"video_timeout_s": 3.0})
    decoder = SandboxedDecoder()
    hurried = VideoAnalyser(config.model_copy(update={"run": run}), weights, decoder)
    observe = hurried._observer.observe

    def slowly(*frames_and_watch: Any) -> Any:
        time.sleep(0.3)  # a slow machine; the video has 24 analysed frames
        return observe(*frames_and_watch)

    monkeypatch.setattr(hurried._observer, "observe", slowly)
    outcome = hurried.analyse(videos["face"]).analysis.outcome
    decoder.close()
    assert outcome.reason == Reason.TIMEOUT
    assert outcome.detail == "longer than 3 s (run.video_timeout_s); --retry-failed tries again"


def test_a_part_of_a_file_is_analysed_alone(analyser: VideoAnalyser, videos: dict[str, Video]) -> None:
    whole = videos["face"]
    part = whole.model_copy(update={"span_s": (1.0, 3.0)})
    counted = whole.model_copy(update={"span_frames": (10, 29)})
    for video in (part, counted):
        outcome = analyser.analyse(video).analysis
        assert outcome.outcome.analysed_frames == 12
        times = [frame.time_s for frame in outcome.timeline.frames]
        assert (times[0], times[-1]) == (1.0, 2.9)
        assert outcome.outcome.span_s == (1.0, 3.0)
        assert outcome.outcome.sha256 == analyser.analyse(whole).analysis.outcome.sha256


def test_a_file_is_hashed_and_probed_once_for_all_of_its_parts(
    tmp_path: Path,
    config: Config,
    weights: Weights,
    videos: dict[str, Video],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = videos["face"]
    parts = [
        whole.model_copy(update={"video_id": f"face/{n}", "span_s": (n, n + 2)}) for n in (0.0, 1.0, 2.0)
    ]
    alone = {
        part.video_id: VideoAnalyser(config, weights, SandboxedDecoder()).analyse(part).analysis.outcome
        for part in parts
    }
    calls: list[str] = []
    for name, kind in (("sha256", Source), ("start", SandboxedDecoder)):
        method = getattr(kind, name)
        monkeypatch.setattr(kind, name, partialmethod(_counted, name, method, calls))
    staging = Staging(tmp_path / "staging")
    curator = VideoCurator(config, weights, staging)
    calls.clear()
    for made in curator.curate(parts):
        part, outcome = made.video, made.outcome
        assert outcome.analysed_frames == alone[part.video_id].analysed_frames
        assert outcome.sha256 == alone[part.video_id].sha256
        assert staging.outcome(part) == outcome
    assert sorted(calls) == ["sha256", "start"]
    assert staging.finished(parts) == parts


def _counted(self: object, name: str, method: Any, calls: list[str], *given: Any, **named: Any) -> object:
    calls.append(name)
    return method(self, *given, **named)


def test_a_part_that_fails_leaves_the_others_their_chance(
    tmp_path: Path, config: Config, weights: Weights, videos: dict[str, Video]
) -> None:
    parts = [
        videos["face"].model_copy(update={"video_id": f"face/{n}", "span_s": (n, n + 2.0)})
        for n in (9.0, 0.0)
    ]
    staging = Staging(tmp_path / "staging")
    found = [made.video.video_id for made in VideoCurator(config, weights, staging).curate(parts)]
    assert staging.outcome(parts[0]).reason is Reason.TOO_SHORT
    assert staging.outcome(parts[1]).analysed_frames == 12
    assert found == ["face/9.0", "face/0.0"]


class Ended(BaseException):
    """Stands in for the end of the process, which nothing in it can catch."""


def _end(*_: object) -> list[float]:
    raise Ended


def test_parts_that_were_staged_are_done_and_not_blamed_for_the_end_of_the_process(
    tmp_path: Path,
    config: Config,
    weights: Weights,
    videos: dict[str, Video],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = [
        videos["face"].model_copy(update={"video_id": f"face/{n}", "span_s": (n, n + 2.0)})
        for n in (0.0, 1.0)
    ]
    staging = Staging(tmp_path / "staging")
    curator = VideoCurator(config, weights, staging)
    found = curator.curate(parts)
    first = next(found)
    monkeypatch.setattr(curator._analyser, "_analyse", _end)
    with pytest.raises(Ended):
        next(found)  # the process ends while the second is at work
    staged = staging.path(parts[0]).read_bytes()
    again = list(VideoCurator(config, weights, staging).curate(parts))
    assert (again[0].outcome, again[0].attempt) == (first.outcome, 0)
    assert (first.attempt, again[1].attempt) == (1, 2)
    assert [made.video.video_id for made in again] == ["face/0.0", "face/1.0"]
    assert staging.path(parts[0]).read_bytes() == staged
    assert [staging.count_start(part, "n") for part in parts] == [["n"], ["n"]]


def test_a_part_that_the_file_does_not_hold_says_so(
    analyser: VideoAnalyser, videos: dict[str, Video]
) -> None:
    beyond = videos["face"].model_copy(update={"span_s": (3.7, 9.0)})
    outcome = analyser.analyse(beyond).analysis.outcome
    assert (outcome.status, outcome.reason) == (Status.REJECTED, Reason.TOO_SHORT)
    assert outcome.detail == "3 frames of 40 are from 3.7 to 9 s, 8 needed"


def test_a_face_outside_of_the_annotated_box_is_another_s(
    analyser: VideoAnalyser, videos: dict[str, Video]
) -> None:
    here = videos["face"].model_copy(update={"annotated_box": (0.2, 0.1, 0.9, 0.9)})
    there = videos["face"].model_copy(update={"annotated_box_px": (0, 240, 80, 320)})
    assert analyser.analyse(here).analysis.outcome.identities == 1
    outcome = analyser.analyse(there).analysis.outcome
    assert (outcome.status, outcome.reason, outcome.faces_seen) == (Status.REJECTED, Reason.NO_FACE, 0)
    assert outcome.detail == "no face whose centre is in the annotated box was found in any analysed frame"
    assert outcome.annotated_box == (0, 0.75, 0.25, 1)


def test_a_video_whose_analysis_ends_its_process_again_and_again_is_one_failed_row(
    tmp_path: Path, config: Config, weights: Weights, videos: dict[str, Video]
) -> None:
    staging = Staging(tmp_path / "staging")
    for _ in range(MOST_STARTS):
        staging.count_start(videos["face"])  # what is left of a process that a network has ended
    (made,) = VideoCurator(config, weights, staging).curate([videos["face"]])
    outcome = made.outcome
    assert (outcome.status, outcome.reason) == (Status.FAILED, Reason.WORKER_CRASHED)
    staging.remove_temporary_files()
    assert staging.count_start(videos["face"]) == [""]


def test_a_video_on_which_memory_runs_out_again_and_again_is_one_failed_row_that_says_so(
    tmp_path: Path, config: Config, weights: Weights, videos: dict[str, Video]
) -> None:
    staging = Staging(tmp_path / "staging")
    for _ in range(MOST_STARTS):
        staging.count_start(videos["face"])
        staging.note_memory(videos["face"])
    (made,) = VideoCurator(config, weights, staging).curate([videos["face"]])
    outcome = made.outcome
    assert (outcome.status, outcome.reason) == (Status.FAILED, Reason.OUT_OF_MEMORY)
    assert not staging.ran_out_of_memory(videos["face"])


def test_a_video_whose_nodes_were_lost_is_not_blamed(
    tmp_path: Path, config: Config, weights: Weights, videos: dict[str, Video]
) -> None:
    staging = Staging(tmp_path / "staging")
    for node in ("a", "b", "a", "c", "here"):
        staging.count_start(videos["face"], node)
    curator = VideoCurator(config, weights, staging, "here", lambda: {"here", "c"})
    (made,) = curator.curate([videos["face"]])
    outcome = made.outcome
    assert outcome.status is not Status.FAILED


def test_a_finished_video_leaves_no_count_behind(
    tmp_path: Path, config: Config, weights: Weights, videos: dict[str, Video]
) -> None:
    staging = Staging(tmp_path / "staging")
    (made,) = VideoCurator(config, weights, staging).curate([videos["empty"]])
    outcome = made.outcome
    assert outcome.status is Status.FAILED
    assert staging.count_start(videos["empty"], "n") == ["n"]


def test_a_video_on_which_the_quality_network_ends_its_process_is_one_failed_row(
    tmp_path: Path,
    config: Config,
    weights: Weights,
    videos: dict[str, Video],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    staging = Staging(tmp_path / "staging")
    curator = VideoCurator(config, weights, staging)
    monkeypatch.setattr(curator._scorer._metric, "score", _end)
    for _ in range(MOST_STARTS):
        with pytest.raises(Ended):
            next(curator.curate([videos["face"]]))
    (made,) = curator.curate([videos["face"]])
    outcome = made.outcome
    assert (outcome.status, outcome.reason) == (Status.FAILED, Reason.WORKER_CRASHED)
    assert staging.outcome(videos["face"]) == outcome
