"""The portraits of a photograph are what the dataset's images of the same picture would be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image as Pillow

from faces.align import align_112
from faces.crop import CROP_SIDE, Square, cut, square_for
from faces.mask import encode_mask_png
from faces.photograph import read_photograph
from faces.portraits import Portrait, PortraitFinder, find_portraits
from faces.registry import WeightsUnavailable, sha256_of
from faces.types import Detection, Floats, Image
from pipeline.config import Faces
from pipeline.decode.frames import Frame, decode
from pipeline.decode.probe import Probe, probe
from pipeline.demo.photographs import PEOPLE, STILL_LIFE, package_file
from pipeline.stages.candidates import candidate_image
from pipeline.stages.observe import FaceObserver
from pipeline.stages.track_filter import FilteredTrack
from pipeline.stopwatch import Stopwatch

NOSE_TIP = 1


@pytest.fixture(scope="module")
def finder() -> PortraitFinder:
    return PortraitFinder.load("embedded", with_embedder=True)


@pytest.fixture(scope="module")
def astronaut() -> Image:
    return read_photograph(package_file(*PEOPLE["astronaut"].source))


@pytest.fixture(scope="module")
def group() -> Image:
    return read_photograph(package_file(*PEOPLE["group-1"].source))


def only(portraits: list[Portrait]) -> Portrait:
    (portrait,) = portraits
    return portrait


def overlap(one: Floats, other: Floats) -> float:
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    shared = float(np.prod(np.clip(high - low, 0, None)))
    return shared / (float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2])) - shared)


def test_a_portrait_is_the_crop_of_its_landmarks_with_pose_mask_and_embedding(
    finder: PortraitFinder, astronaut: Image
) -> None:
    portrait = only(finder.find(astronaut))
    assert overlap(portrait.box, np.array(PEOPLE["astronaut"].box)) > 0.8
    assert portrait.square == square_for(portrait.landmarks.points, 512, 512, 1.6)
    assert portrait.image.shape == (CROP_SIDE, CROP_SIDE, 3)
    np.testing.assert_array_equal(portrait.image, cut(astronaut, portrait.square))
    x, y = portrait.square.to_crop(portrait.landmarks.points)[NOSE_TIP].round().astype(int)
    assert portrait.mask.shape == (CROP_SIDE, CROP_SIDE)
    assert portrait.mask[y, x] == 255
    assert portrait.mask[0, 0] == portrait.mask[-1, -1] == 0
    assert abs(portrait.pose.yaw) < 8
    assert portrait.whole
    assert portrait.place == "the face of 101 px at (225, 120)"
    assert finder.embedder is not None
    aligned = align_112(astronaut, portrait.detection.keypoints)
    np.testing.assert_array_equal(portrait.embedding, finder.embedder.embed([aligned])[0])


def test_all_six_faces_of_a_group_are_found_and_the_largest_is_first(
    finder: PortraitFinder, group: Image
) -> None:
    portraits = finder.find(group)
    sizes = [portrait.face_px for portrait in portraits]
    assert sizes == sorted(sizes, reverse=True)
    found = {
        name: max(range(len(portraits)), key=lambda n: overlap(portraits[n].box, np.array(person.box)))
        for name, person in PEOPLE.items()
        if name.startswith("group")
    }
    assert sorted(found.values()) == list(range(6)) == list(range(len(portraits)))
    assert found["group-3"] == 0
    for name, number in found.items():
        assert overlap(portraits[number].box, np.array(PEOPLE[name].box)) > 0.6
    people = np.stack([portrait.embedding for portrait in portraits])
    assert (people @ people.T - np.eye(6)).max() < 0.363


def test_of_two_faces_of_one_size_the_left_one_is_first(finder: PortraitFinder, astronaut: Image) -> None:
    twice = np.concatenate([astronaut[:320, 64:384]] * 2, axis=1)
    left, right = finder.find(twice)
    assert left.box[2] < 320 < right.box[0]


def test_without_an_embedder_no_embedding_is_computed(finder: PortraitFinder, astronaut: Image) -> None:
    assert only(find_portraits(astronaut, finder.detector, finder.landmarker)).embedding is None


def test_the_crop_may_be_wider_where_the_datasets_are(finder: PortraitFinder, astronaut: Image) -> None:
    usual, wide = only(finder.find(astronaut)), only(finder.find(astronaut, crop_scale=2.0))
    assert wide.square.side == pytest.approx(usual.square.side * 2.0 / 1.6, abs=1)


def test_near_the_border_the_crop_moves_inwards_and_shows_nothing_invented(
    finder: PortraitFinder, astronaut: Image
) -> None:
    narrow = np.ascontiguousarray(astronaut[:, 160:])
    portrait, usual = only(finder.find(narrow)), only(finder.find(astronaut))
    assert portrait.whole
    assert portrait.square.x0 == 0
    assert portrait.square.side == pytest.approx(usual.square.side, abs=3)
    np.testing.assert_array_equal(portrait.image, cut(narrow, portrait.square))


def test_a_face_that_the_border_cuts_off_is_still_a_portrait_and_is_marked(
    finder: PortraitFinder, astronaut: Image
) -> None:
    portrait = only(finder.find(np.ascontiguousarray(astronaut[:, 215:])))
    assert not portrait.whole
    assert portrait.square.x0 == 0
    close_up = only(finder.find(read_photograph(package_file(*PEOPLE["close-up"].source))))
    assert close_up.square == Square(0, 0, 112)
    assert not close_up.whole


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (1, 5000), (5000, 3)])
def test_a_picture_too_small_for_a_face_has_none(finder: PortraitFinder, shape: tuple[int, int]) -> None:
    assert finder.find(np.full((*shape, 3), 128, np.uint8)) == []


def test_a_table_has_no_face(finder: PortraitFinder, group: Image) -> None:
    x0, y0, x1, y1 = STILL_LIFE[1]
    assert finder.find(np.ascontiguousarray(group[y0:y1, x0:x1])) == []


class SeesFaceOnTable:
    """A detector that finds a face where there is none."""

    def detect(self, image: Image) -> list[Detection]:
        box = np.array([500, 650, 600, 780], np.float32)
        return [Detection(box, 0.9, np.tile(box[:2], (5, 1)))]


def test_what_has_no_landmarks_is_no_portrait(finder: PortraitFinder, group: Image) -> None:
    assert find_portraits(group, SeesFaceOnTable(), finder.landmarker, finder.embedder) == []


@pytest.mark.parametrize(
    "image", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 4), np.uint8), np.zeros((9, 9, 3), np.float32)]
)
def test_an_array_that_is_no_rgb_image_is_rejected(finder: PortraitFinder, image: Image) -> None:
    with pytest.raises(ValueError, match="expected a uint8 RGB image"):
        finder.find(image)


def test_a_photograph_on_its_side_gives_the_portrait_of_the_upright_one(
    finder: PortraitFinder, astronaut: Image, tmp_path: Path
) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    lying = Pillow.fromarray(np.rot90(astronaut))
    lying.save(tmp_path / "lying.png", exif=exif)
    lying.save(tmp_path / "lying.jpg", exif=exif, quality=95)
    upright = only(finder.find(astronaut))
    same = only(finder.find(read_photograph(tmp_path / "lying.png")))
    assert same.square == upright.square
    np.testing.assert_array_equal(same.image, upright.image)
    as_jpeg = only(finder.find(read_photograph(tmp_path / "lying.jpg")))
    assert abs(as_jpeg.pose.roll - upright.pose.roll) < 2
    assert abs(as_jpeg.square.side - upright.square.side) <= 3


def test_a_small_face_in_a_large_photograph_is_found(finder: PortraitFinder, astronaut: Image) -> None:
    scene = np.full((3000, 4000, 3), 110, np.uint8)
    scene[1000:2024, 2000:3024] = cv2.resize(astronaut, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    small, usual = only(finder.find(scene)).square, only(finder.find(astronaut)).square
    assert small.side == pytest.approx(2 * usual.side, rel=0.03)
    assert (small.x0, small.y0) == pytest.approx((2000 + 2 * usual.x0, 1000 + 2 * usual.y0), abs=12)


@pytest.fixture(scope="module")
def frame(astronaut: Image, tmp_path_factory: pytest.TempPathFactory) -> Frame:
    """A frame as the pipeline decodes it from a clip of a tilted head."""
    path = tmp_path_factory.mktemp("clip") / "tilted.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 512, 400, "yuv420p"
        for number in range(10):
            turn = cv2.getRotationMatrix2D((225, 120), 2.0 * number, 1.0)
            tilted = cv2.warpAffine(astronaut, turn, (512, 400), borderMode=cv2.BORDER_REPLICATE)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(tilted, format="rgb24")))
        file.mux(stream.encode())
    found = probe(path)
    assert isinstance(found, Probe)
    (decoded,) = decode(path, found, np.array([7]), "decord")
    return decoded


def test_a_frame_gives_the_same_crop_as_a_videos_and_as_a_photographs(
    finder: PortraitFinder, frame: Frame, tmp_path: Path
) -> None:
    assert finder.embedder is not None
    observer = FaceObserver(finder.detector, finder.landmarker, finder.embedder, Faces(min_crop_px=90), 95)
    (observation,) = observer.observe([frame], Stopwatch())[0]
    usable = observation.usable
    assert usable is not None

    Pillow.fromarray(frame.image).save(tmp_path / "frame.png")
    portrait = only(finder.find(read_photograph(tmp_path / "frame.png")))
    assert portrait.square == usable.square
    assert simplejpeg.encode_jpeg(portrait.image, 95, "RGB", "444") == usable.jpeg
    track = FilteredTrack(
        [observation], [usable], usable.face.embedding, np.ones(1, dtype=bool), np.zeros(1, dtype=bool)
    )
    assert encode_mask_png(portrait.mask) == candidate_image(track, 0).mask
    assert portrait.pose == usable.landmarks.pose
    assert abs(portrait.pose.roll) > 8
    np.testing.assert_array_equal(portrait.landmarks.points, usable.landmarks.points)
    np.testing.assert_array_equal(portrait.embedding, usable.face.embedding)


def test_an_unknown_profile_is_rejected_with_the_names_of_those_there_are() -> None:
    with pytest.raises(ValueError, match="profile 'best' is not one of embedded, paper"):
        PortraitFinder.load("best")


def test_missing_networks_are_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailable) as caught:
        PortraitFinder.load("paper", tmp_path, with_embedder=True)
    text = str(caught.value)
    assert "scrfd_10g: det_10g.onnx is missing" in text
    assert "arcface_r50: w600k_r50.onnx is missing" in text
    assert f"mfhq models pull --models-dir {tmp_path} scrfd_10g" in text


def test_only_the_networks_that_are_used_need_be_there(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailable) as caught:
        PortraitFinder.load("paper", tmp_path)
    assert "arcface_r50" not in str(caught.value)


def test_a_network_in_the_wrong_role_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"net")
    entry = {"file": "net.onnx", "sha256": sha256_of(tmp_path / "net.onnx"), "license": "own"}
    own = {"scrfd_10g": {**entry, "kind": "face_landmarker"}}
    (tmp_path / "models.json").write_text(json.dumps(own))
    with pytest.raises(
        ValueError, match=r"detector=scrfd_10g is a face_landmarker; expected a yunet or scrfd"
    ):
        PortraitFinder.load("paper", tmp_path)


def test_a_missing_package_is_named_with_the_remedy() -> None:
    program = (
        "import sys; sys.modules['mediapipe'] = None\n"
        "from faces.portraits import PortraitFinder\n"
        "from faces.registry import WeightsUnavailable\n"
        "try: PortraitFinder.load()\n"
        "except WeightsUnavailable as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=True,
    )
    assert "the Python package mediapipe" in done.stdout
    assert "omniid[faces]" in done.stdout


@pytest.mark.weights
def test_networks_of_a_folder_find_the_same_portraits(
    weights: Path, tmp_path: Path, finder: PortraitFinder, group: Image
) -> None:
    files = {
        "scrfd_10g": {"file": "detector.onnx"},
        "arcface_r50": {"file": "embedder.onnx", "normalisation": "imagenet", "same_person_cosine": 0.4},
    }
    (tmp_path / "detector.onnx").symlink_to(weights.resolve() / "insightface" / "det_2.5g.onnx")
    (tmp_path / "embedder.onnx").symlink_to(weights.resolve() / "MobileFaceNet_foamliu.onnx")
    entries = {
        name: entry | {"sha256": sha256_of(tmp_path / str(entry["file"])), "license": "for tests"}
        for name, entry in files.items()
    }
    (tmp_path / "models.json").write_text(json.dumps(entries))
    theirs = PortraitFinder.load("paper", tmp_path, with_embedder=True).find(group)
    ours = finder.find(group)
    assert len(theirs) == len(ours) == 6
    for portrait in theirs:
        same = max(ours, key=lambda other: overlap(other.box, portrait.box))
        assert abs(same.square.side - portrait.square.side) <= 12
        assert abs(same.square.x0 - portrait.square.x0) <= 10
        assert abs(same.pose.yaw - portrait.pose.yaw) < 5
        assert portrait.embedding is not None
        assert portrait.embedding.shape == (128,)
