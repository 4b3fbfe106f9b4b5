"""Embeddings distinguish people, and depend on the face alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import insightface
import numpy as np
import onnx
import onnxruntime
import pytest

from faces.align import align_112
from faces.embed import ArcFace, OnnxEmbedder, SFace, normalise
from faces.onnx_session import BATCH
from faces.profiles import load_embedder
from faces.registry import load_weights, sha256_of
from faces.types import Image
from faces.yunet import YuNet

FOAMLIU = {
    "kind": "arcface",
    "license": "Apache-2.0",
    "normalisation": "imagenet",
    "same_person_cosine": 0.36,
}


@pytest.fixture(scope="module")
def detector() -> YuNet:
    return YuNet(load_weights(["yunet"], None)["yunet"].path)


@pytest.fixture(scope="module")
def sface() -> OnnxEmbedder:
    return load_embedder("sface", load_weights(["sface"], None))


@pytest.fixture(scope="module")
def mobilefacenet(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> OnnxEmbedder:
    """A small ArcFace-trained network in the place of the built-in one."""
    folder = tmp_path_factory.mktemp("models")
    path = Path(shutil.copy(weights / "MobileFaceNet_foamliu.onnx", folder))
    entry = FOAMLIU | {"file": path.name, "sha256": sha256_of(path)}
    (folder / "models.json").write_text(json.dumps({"arcface_r50": entry}), encoding="utf-8")
    return load_embedder("arcface_r50", load_weights(["arcface_r50"], folder))


@pytest.fixture(params=["sface", pytest.param("mobilefacenet", marks=pytest.mark.weights)])
def embedder(request: pytest.FixtureRequest) -> OnnxEmbedder:
    found: OnnxEmbedder = request.getfixturevalue(request.param)
    return found


def photograph() -> Image:
    path = Path(insightface.__file__).parent / "data" / "images" / "t1.jpg"
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def aligned(detector: YuNet, image: Image) -> list[Image]:
    """All faces of a picture, from left to right."""
    faces = sorted(detector.detect(image), key=lambda face: float(face.box[0]))
    return [align_112(image, face.keypoints) for face in faces]


@pytest.fixture(scope="module")
def six(detector: YuNet) -> list[Image]:
    return aligned(detector, photograph())


def test_six_people_are_six_people(embedder: OnnxEmbedder, six: list[Image]):
    vectors = embedder.embed(six)
    assert vectors.shape == (6, 128)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    cosines = vectors @ vectors.T
    assert cosines[~np.eye(6, dtype=bool)].max() < embedder.same_person_cosine


def test_another_rendering_of_a_person_is_the_same_person(
    embedder: OnnxEmbedder, detector: YuNet, six: list[Image]
):
    image = photograph()
    changed = cv2.resize(image, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    changed = np.clip(changed.astype(np.float32) * 0.7 + 10, 0, 255).astype(np.uint8)
    again = aligned(detector, np.ascontiguousarray(changed[:, ::-1]))[::-1]
    cosines = embedder.embed(six) @ embedder.embed(again).T
    assert cosines.diagonal().min() > embedder.same_person_cosine
    assert (cosines.argmax(axis=1) == np.arange(6)).all()


def test_an_embedding_does_not_depend_on_the_faces_beside_it(embedder: OnnxEmbedder, six: list[Image]):
    together = embedder.embed(six)
    assert np.array_equal(together[::-1], embedder.embed(six[::-1]))
    assert np.array_equal(together[2:3], embedder.embed(six[2:3]))


def test_no_faces_give_no_vectors(sface: OnnxEmbedder):
    assert sface.embed([]).shape == (0, 128)


def test_folding_sface_does_not_change_what_it_computes(sface: OnnxEmbedder, six: list[Image]):
    path = load_weights(["sface"], None)["sface"].path
    published = onnx.load(str(path))
    weights = [value for value in published.graph.input if value.name != "data"]
    for value in weights:
        published.graph.input.remove(value)
    session = onnxruntime.InferenceSession(published.SerializeToString(), providers=["CPUExecutionProvider"])
    for face, vector in zip(six, sface.embed(six), strict=True):
        reference = session.run(None, {"data": normalise(face, "none")})[0][0]
        reference /= np.linalg.norm(reference)
        np.testing.assert_allclose(vector, reference, atol=2e-4)


def test_the_registrys_normalisation_is_the_one_that_is_used(
    mobilefacenet: OnnxEmbedder, weights: Path, six: list[Image]
):
    assert mobilefacenet.normalisation == "imagenet"
    assert mobilefacenet.same_person_cosine == 0.36
    assert mobilefacenet.name == "arcface_r50"
    other = ArcFace(weights / "MobileFaceNet_foamliu.onnx", normalisation="arcface")
    assert float((mobilefacenet.embed(six[:1]) @ other.embed(six[:1]).T).item()) < 0.999


def test_normalisations_are_the_published_ones():
    white, black = np.full((112, 112, 3), 255, np.uint8), np.zeros((112, 112, 3), np.uint8)
    assert normalise(white, "arcface").max() == 1.0
    assert normalise(black, "arcface").min() == -1.0
    assert normalise(white, "none").max() == 255.0
    np.testing.assert_allclose(
        normalise(black, "imagenet")[0, :, 0, 0], [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225], rtol=1e-6
    )
    red = black.copy()
    red[..., 0] = 255
    assert normalise(red, "none")[0, :, 0, 0].tolist() == [255.0, 0.0, 0.0]


def test_a_face_that_is_not_aligned_is_rejected(sface: OnnxEmbedder):
    with pytest.raises(ValueError, match="from align_112"):
        sface.embed([np.zeros((100, 112, 3), np.uint8)])


@pytest.mark.parametrize("batch", [2, 3, 16])
def test_embeddings_are_the_same_to_the_bit_whatever_the_batch(batch: int, monkeypatch: pytest.MonkeyPatch):
    path = load_weights(["sface"], None)["sface"].path
    faces = list(np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), dtype=np.uint8))
    alone = SFace(path).embed(faces)
    monkeypatch.setitem(BATCH, "cpu", batch)
    assert np.array_equal(SFace(path).embed(faces), alone)


def test_a_network_that_is_no_embedder_is_rejected():
    detector = load_weights(["yunet"], None)["yunet"].path
    with pytest.raises(ValueError, match="expected one output, a vector"):
        ArcFace(detector)
    with pytest.raises(ValueError, match="not an SFace network"):
        SFace(detector)


@pytest.mark.slow
def test_faces_of_one_person_are_nearer_than_those_of_others(
    embedder: OnnxEmbedder, detector: YuNet, faces_folder: Path
):
    """LFW's 250 px pictures, four of each of twenty people, the largest face of each."""
    people = sorted({path.parent for path in faces_folder.rglob("*.jpg")})[:20]
    assert len(people) == 20
    faces: list[Image] = []
    owner: list[int] = []
    for number, person in enumerate(people):
        for path in sorted(person.glob("*.jpg"))[:4]:
            image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
            largest = max(detector.detect(image), key=lambda face: face.face_px)
            faces.append(align_112(image, largest.keypoints))
            owner.append(number)
    vectors = embedder.embed(faces)
    cosines = vectors @ vectors.T
    same = np.equal.outer(owner, owner)
    others = cosines[~same]
    own = cosines[same & ~np.eye(len(owner), dtype=bool)]
    assert (own >= embedder.same_person_cosine).mean() > 0.95
    assert (others >= embedder.same_person_cosine).mean() < 0.01
