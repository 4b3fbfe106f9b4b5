"""Curation's networks on a GPU: as on a CPU but for rounding, and the same whatever is beside an image."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from faces.types import Image

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")


@pytest.fixture(scope="module")
def images() -> list[Image]:
    """More pictures of one size than a batch holds: a photograph of six people, moved."""
    # The packages of the pipeline, which a machine for training need not have.
    insightface = pytest.importorskip("insightface")
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no CUDA provider; install onnxruntime-gpu")
    path = Path(insightface.__file__).parent / "data" / "images" / "t1.jpg"
    group = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    return [np.ascontiguousarray(np.roll(group, 40 * number, axis=1)) for number in range(19)]


@pytest.mark.parametrize("name", ["yunet", pytest.param("scrfd_2.5g", marks=pytest.mark.weights)])
def test_a_detector_finds_the_faces_that_it_finds_on_a_cpu(
    name: str, images: list[Image], request: pytest.FixtureRequest
) -> None:
    from faces.profiles import load_detector
    from faces.registry import load_weights

    models = None if name == "yunet" else request.getfixturevalue("weights") / "insightface"
    found = load_weights([name], models)
    on_gpu = load_detector(name, found, "cuda").detect_all(images)
    on_cpu = load_detector(name, found).detect_all(images)
    assert [len(faces) for faces in on_gpu] == [len(faces) for faces in on_cpu]
    assert len(on_cpu[0]) == 6
    for faces, expected in zip(on_gpu, on_cpu, strict=True):
        for one, other in zip(faces, expected, strict=True):
            assert np.abs(one.box - other.box).max() < 0.5
            assert np.abs(one.keypoints - other.keypoints).max() < 0.5
            assert one.score == pytest.approx(other.score, abs=0.01)


@pytest.mark.parametrize("name", ["yunet", pytest.param("scrfd_2.5g", marks=pytest.mark.weights)])
def test_a_detection_depends_on_its_own_image_alone(
    name: str, images: list[Image], request: pytest.FixtureRequest
) -> None:
    from faces.profiles import load_detector
    from faces.registry import load_weights

    models = None if name == "yunet" else request.getfixturevalue("weights") / "insightface"
    detector = load_detector(name, load_weights([name], models), "cuda")
    together = detector.detect_all(images)
    again = detector.detect_all([images[0]] * 16 + images[16:])[16:]
    for faces, expected in zip(again, together[16:], strict=True):
        for one, other in zip(faces, expected, strict=True):
            assert np.array_equal(one.box, other.box)
            assert np.array_equal(one.keypoints, other.keypoints)
            assert one.score == other.score


def test_embeddings_are_those_of_a_cpu_and_depend_on_their_own_face_alone(images: list[Image]) -> None:
    from faces.align import align_112
    from faces.profiles import load_detector, load_embedder
    from faces.registry import load_weights

    found = load_weights(["yunet", "sface"], None)
    faces = load_detector("yunet", found).detect(images[0])
    aligned = [align_112(images[0], face.keypoints) for face in faces] * 3  # 18: more than a batch
    on_gpu = load_embedder("sface", found, "cuda")
    together = on_gpu.embed(aligned)
    assert (together * load_embedder("sface", found).embed(aligned)).sum(axis=1).min() > 0.999
    assert np.array_equal(on_gpu.embed([aligned[0]] * 16 + aligned[16:])[16:], together[16:])


def test_a_quality_score_depends_on_no_other_image(tmp_path: Path) -> None:
    pytest.importorskip("pyiqa")
    astronaut = pytest.importorskip("skimage.data").astronaut
    from faces.quality import TopiqFace, _cfanet

    torch.manual_seed(0)
    torch.save({"params": _cfanet().state_dict()}, tmp_path / "untrained.pth")
    portrait = np.ascontiguousarray(astronaut())
    spoiled = [cv2.GaussianBlur(portrait, (0, 0), sigma) for sigma in (1, 2, 4)]
    metric = TopiqFace(tmp_path / "untrained.pth", "cuda")
    full = [portrait, *spoiled] * 3  # more than a batch, the last one padded
    scores = metric.score(full).tolist()
    assert metric.score(full).tolist() == scores
    assert metric.score(full[:1]).tolist() == scores[:1]
    assert metric.score([portrait] * 8 + full[8:])[8:].tolist() == scores[8:]
    assert metric.score(full[:5]).tolist() == scores[:5]
    on_cpu = TopiqFace(tmp_path / "untrained.pth").score(full)
    np.testing.assert_allclose(scores, on_cpu, rtol=1e-3, atol=1e-3)
