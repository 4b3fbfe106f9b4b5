"""Detectors find faces of every size, in the original's pixels, and find none where there is none."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import insightface
import numpy as np
import pytest

from faces.canvas import Canvas, place_on_canvas
from faces.onnx_session import BATCH, open_session
from faces.profiles import load_detector
from faces.registry import load_weights
from faces.types import Detection, Detector, Image
from faces.yunet import YuNet


@pytest.fixture(scope="module")
def group() -> Image:
    """A photograph of six people, 1280 x 886."""
    path = Path(insightface.__file__).parent / "data" / "images" / "t1.jpg"
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


@pytest.fixture(scope="module")
def yunet() -> YuNet:
    return YuNet(load_weights(["yunet"], None)["yunet"].path)


@pytest.fixture(scope="module")
def scrfd(weights: Path) -> Detector:
    return load_detector("scrfd_2.5g", load_weights(["scrfd_2.5g"], weights / "insightface"))


@pytest.fixture(params=["yunet", pytest.param("scrfd", marks=pytest.mark.weights)])
def detector(request: pytest.FixtureRequest) -> Detector:
    found: Detector = request.getfixturevalue(request.param)
    return found


def overlap(one: Detection, other: Detection) -> float:
    """Intersection over union of two boxes."""
    low, high = np.maximum(one.box[:2], other.box[:2]), np.minimum(one.box[2:], other.box[2:])
    shared = float(np.prod(np.clip(high - low, 0, None)))
    return shared / (one.face_px**2 + other.face_px**2 - shared)


def by_place(faces: list[Detection]) -> list[Detection]:
    return sorted(faces, key=lambda face: float(face.box[0]))


def test_all_six_faces_are_found_best_first(detector, group: Image):
    faces = detector.detect(group)
    assert len(faces) == 6
    scores = [face.score for face in faces]
    assert scores == sorted(scores, reverse=True)
    assert all(0.5 <= score <= 1.0 for score in scores)
    assert all(80 < face.face_px < 140 for face in faces)


def test_keypoints_lie_in_the_box_in_the_order_that_alignment_needs(detector, group: Image):
    for face in detector.detect(group):
        assert (face.keypoints >= face.box[:2]).all()
        assert (face.keypoints <= face.box[2:]).all()
        left_eye, right_eye, nose, left_mouth, right_mouth = face.keypoints
        assert left_eye[0] < right_eye[0]
        assert left_mouth[0] < right_mouth[0]
        assert max(left_eye[1], right_eye[1]) < nose[1] < max(left_mouth[1], right_mouth[1])


def test_boxes_are_in_pixels_of_the_original_whatever_its_size(detector, group: Image):
    doubled = cv2.resize(group, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    small, large = by_place(detector.detect(group)), by_place(detector.detect(doubled))
    assert len(large) == 6
    for one, two in zip(small, large, strict=True):
        halved = Detection(two.box / 2, two.score, two.keypoints / 2)
        assert overlap(one, halved) > 0.85
        assert np.abs(one.keypoints - halved.keypoints).max() < 4


def test_a_face_that_fills_the_picture_is_found(detector, group: Image):
    face = detector.detect(group)[0]
    x0, y0, x1, y1 = face.box.round().astype(int)
    tight = np.ascontiguousarray(group[y0:y1, x0:x1])
    found = detector.detect(tight)
    assert len(found) == 1
    assert found[0].face_px > 0.8 * face.face_px


def test_the_same_picture_gives_the_same_faces_to_the_bit(detector, group: Image):
    one, two = detector.detect(group), detector.detect(group)
    assert [face.score for face in one] == [face.score for face in two]
    assert all(np.array_equal(a.keypoints, b.keypoints) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 300, 3), (480, 640, 3)])
def test_an_empty_scene_of_any_shape_has_no_face(detector, shape: tuple[int, int, int]):
    assert detector.detect(np.full(shape, 128, np.uint8)) == []


def test_a_higher_threshold_keeps_the_best_faces_alone(yunet: YuNet, group: Image):
    scores = [face.score for face in yunet.detect(group)]
    strict = load_detector("yunet", load_weights(["yunet"], None), min_score=(scores[2] + scores[3]) / 2)
    assert [face.score for face in strict.detect(group)] == scores[:3]


@pytest.mark.weights
def test_two_independent_detectors_agree(yunet: YuNet, scrfd: Detector, group: Image):
    for one, two in zip(by_place(yunet.detect(group)), by_place(scrfd.detect(group)), strict=True):
        assert overlap(one, two) > 0.6
        distance = np.linalg.norm(one.keypoints - two.keypoints, axis=1)
        assert distance.mean() < 0.2 * one.face_px


def test_the_canvas_maps_back_to_the_original():
    image = np.zeros((900, 1600, 3), np.uint8)
    image[300:320, 1000:1020] = 255
    canvas = place_on_canvas(image, 640)
    assert max(canvas.rgb.shape) == 640
    assert canvas.rgb.shape[0] % 32 == canvas.rgb.shape[1] % 32 == 0
    ys, xs = np.nonzero(canvas.rgb[..., 0] > 128)
    centre = canvas.to_original(np.array([xs.mean() + 0.5, ys.mean() + 0.5], np.float32))
    assert np.abs(centre - [1010, 310]).max() < 1.5


def test_a_small_picture_is_not_enlarged():
    canvas: Canvas = place_on_canvas(np.zeros((100, 80, 3), np.uint8), 640)
    assert canvas.scale == (1.0, 1.0)
    assert max(canvas.rgb.shape) == 160


@pytest.mark.parametrize("image", [np.zeros((10, 10), np.uint8), np.zeros((10, 10, 3), np.float32)])
def test_an_array_that_is_no_rgb_image_is_rejected(yunet: YuNet, image):
    with pytest.raises(ValueError, match="uint8 RGB image"):
        yunet.detect(image)


def test_cuda_without_its_provider_names_what_to_install():
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has a CUDA provider")
    with pytest.raises(RuntimeError, match="onnxruntime-gpu"):
        open_session(load_weights(["yunet"], None)["yunet"].path, device="cuda")
    with pytest.raises(ValueError, match="'gpu' is not one of cpu, cuda"):
        open_session(load_weights(["yunet"], None)["yunet"].path, device="gpu")


def test_yunet_finds_what_opencvs_own_engine_finds(yunet: YuNet, group: Image):
    canvas = place_on_canvas(group, yunet.size)
    size = canvas.rgb.shape[1::-1]
    path = load_weights(["yunet"], None)["yunet"].path
    opencv = cv2.FaceDetectorYN.create(str(path), "", size, 0.6, 0.4)
    rows = opencv.detect(np.ascontiguousarray(canvas.rgb[..., ::-1]))[1]
    faces = yunet.detect(group)
    assert len(rows) == len(faces) == 6
    for face, row in zip(faces, rows[np.argsort(-rows[:, 14])], strict=True):
        corners = canvas.to_original(np.array([row[:2], row[:2] + row[2:4]]))
        assert np.abs(face.box.reshape(2, 2) - corners).max() < 0.01
        assert np.abs(face.keypoints - canvas.to_original(row[4:14].reshape(5, 2))).max() < 0.01
        assert face.score == pytest.approx(row[14], abs=1e-5)


@pytest.mark.weights
def test_scrfd_finds_what_insightfaces_own_class_finds(scrfd: Detector, group: Image, weights: Path):
    from insightface.model_zoo.scrfd import SCRFD

    canvas = place_on_canvas(group, 640)
    bgr = np.ascontiguousarray(canvas.rgb[..., ::-1])
    theirs = SCRFD(session=open_session(weights / "insightface" / "det_2.5g.onnx"))
    boxes, keypoints = theirs.detect(bgr, input_size=bgr.shape[1::-1], det_thresh=0.5)
    faces = scrfd.detect(group)
    assert len(boxes) == len(faces) == 6
    for face, box, points in zip(faces, boxes, keypoints, strict=True):
        assert np.abs(face.box.reshape(2, 2) - canvas.to_original(box[:4].reshape(2, 2))).max() < 0.01
        assert np.abs(face.keypoints - canvas.to_original(points)).max() < 0.01
        assert face.score == pytest.approx(box[4], abs=1e-5)


@pytest.mark.parametrize("name", ["yunet", pytest.param("scrfd_2.5g", marks=pytest.mark.weights)])
@pytest.mark.parametrize("batch", [2, 4, 16])
def test_faces_are_the_same_to_the_bit_whatever_the_batch(
    name: str, batch: int, group: Image, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
):
    models = None if name == "yunet" else request.getfixturevalue("weights") / "insightface"
    found = load_weights([name], models)
    alone = load_detector(name, found, size=320)
    monkeypatch.setitem(BATCH, "cpu", batch)
    together = load_detector(name, found, size=320)
    images = [np.ascontiguousarray(np.roll(group, 40 * number, axis=1)) for number in range(5)]
    images[3:3] = [group[:, :640], group[:, :640]]  # a video may change its size
    assert len(alone.detect(group)) == 6
    for faces, image in zip(together.detect_all(images), images, strict=True):
        expected = alone.detect(image)
        assert [face.score for face in faces] == [face.score for face in expected]
        for one, other in zip(faces, expected, strict=True):
            assert np.array_equal(one.box, other.box)
            assert np.array_equal(one.keypoints, other.keypoints)
    assert together.detect_all([]) == []


@pytest.mark.weights
@pytest.mark.clips
@pytest.mark.slow
def test_real_clips_with_faces_give_faces_and_those_without_give_none(detector, clips: Path):
    import decord

    with (clips / "MANIFEST.tsv").open(encoding="utf-8") as stream:
        rows = {row["name"]: row for row in csv.DictReader(stream, delimiter="\t")}
    names = ["iplap_129.mp4", "lp_d14.mp4", "inferno_test.mp4", "fnp_video.mp4", "cpc_demo.mp4"]
    for name in [*names, "intel_bottle.mp4", "mdn_rabbit.webm"]:
        reader = decord.VideoReader(str(clips / name), num_threads=1)
        frames = reader.get_batch(np.linspace(0, len(reader) - 1, 6).astype(int)).asnumpy()
        counts = [len(detector.detect(frame)) for frame in frames]
        if rows[name]["identity"] == "none":
            assert counts == [0] * 6, name
        else:
            assert min(counts) >= (3 if name == "fnp_video.mp4" else 1), name
