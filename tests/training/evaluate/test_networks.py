"""The networks that measure, on faces whose identity and pose are known."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from rendered_people import GREY, PEOPLE, POSES, heads

from faces.registry import sha256_of
from training.evaluate import measures
from training.evaluate.networks import Face, MeasuringNetworks, NetworkNames, at_side, stacked, usual_place

LFW_PEOPLE, LFW_IMAGES = 10, 6


@pytest.fixture(scope="module")
def embedded() -> MeasuringNetworks:
    return MeasuringNetworks.load(NetworkNames.of("embedded", ()), None)


@pytest.fixture(scope="module")
def rendered(embedded: MeasuringNetworks) -> dict[str, list[Face]]:
    return {person: [embedded.measure(image) for image in heads(person)] for person in PEOPLE}


def poses(faces: list[Face]) -> measures.Floats:
    found = [face.pose_3 for face in faces]
    assert all(pose is not None for pose in found)
    return np.array(found)


def test_rendered_heads_have_their_pose_and_their_mirror_images_the_mirrored_one(
    embedded: MeasuringNetworks, rendered: dict[str, list[Face]]
) -> None:
    truth = np.array(POSES, float)
    errors, mirror_errors = [], []
    for person, faces in rendered.items():
        errors.append(measures.pose_error(poses(faces), truth))
        mirror_images = [embedded.measure(image[:, ::-1].copy()) for image in heads(person)]
        mirror_errors.append(measures.pose_error(poses(mirror_images), measures.mirrored(poses(faces))))
    assert np.median(errors) < 8
    assert np.median(mirror_errors) < 5


@pytest.mark.parametrize("roll", [-20, 15])
def test_a_rotated_image_has_the_roll_as_its_pose_error(embedded, rendered, roll: int) -> None:
    turn = cv2.getRotationMatrix2D((255.5, 255.5), -roll, 1)  # OpenCV counts against the clock
    errors = []
    for person, faces in rendered.items():
        image = cv2.warpAffine(heads(person)[0], turn, (512, 512), borderMode=cv2.BORDER_REPLICATE)
        pose = embedded.measure(np.asarray(image, np.uint8)).pose_3
        assert pose is not None
        assert np.sign(pose[2]) == np.sign(roll)
        errors.append(float(measures.pose_error(pose, poses(faces)[0])))
    assert np.median(errors) == pytest.approx(abs(roll), abs=5)


def test_images_of_one_person_are_similar_and_those_of_others_are_not(rendered) -> None:
    vectors = {person: stacked(faces, "sface") for person, faces in rendered.items()}
    for person, own in vectors.items():
        same = measures.similarity(own[:4], own[4:])
        others = [measures.similarity(own, other) for name, other in vectors.items() if name != person]
        assert same > 0.75
        assert max(others) < 0.45


def test_grey_is_no_face_and_is_embedded_only_where_the_usual_place_is_known(rendered) -> None:
    networks = MeasuringNetworks.load(NetworkNames.of("embedded", ()), None)
    nothing = networks.measure(GREY)
    assert (nothing.found, nothing.pose_3, dict(nothing.vectors)) == (False, None, {})
    networks.usual_place = usual_place(faces[0].keypoints for faces in rendered.values())
    found = networks.measure(GREY)
    assert not found.found
    assert np.linalg.norm(found.vectors["sface"]) == pytest.approx(1)
    assert usual_place([]) is None


def test_small_images_are_measured_as_large_ones(embedded, rendered) -> None:
    for person, faces in rendered.items():
        small = embedded.measure(at_side(heads(person)[0], 64))
        assert small.found
        assert float(small.vectors["sface"] @ faces[0].vectors["sface"]) > 0.8
    assert at_side(GREY, 512) is GREY


def test_real_photographs_of_a_person_are_similar_and_swapped_people_are_not(
    faces_folder: Path, weights: Path, tmp_path: Path
) -> None:
    file = weights / "MobileFaceNet_foamliu.onnx"
    (tmp_path / file.name).symlink_to(file)
    entry = {
        "kind": "arcface",
        "file": file.name,
        "sha256": sha256_of(file),
        "license": "Apache-2.0",
        "normalisation": "imagenet",
        "same_person_cosine": 0.5,
    }
    (tmp_path / "models.json").write_text(json.dumps({"mobilefacenet": entry}))
    names = NetworkNames.of("embedded", ("mobilefacenet", "sface"))
    networks = MeasuringNetworks.load(names, tmp_path)
    people = sorted(path for path in faces_folder.iterdir() if path.is_dir())[:LFW_PEOPLE]
    measured = [
        [networks.measure(_cut(path)) for path in sorted(person.glob("*.jpg"))[:LFW_IMAGES]]
        for person in people
    ]
    found = [[face for face in faces if face.found] for faces in measured]
    assert sum(map(len, found)) >= 0.9 * LFW_PEOPLE * LFW_IMAGES
    for network, same, other in (("mobilefacenet", 0.45, 0.15), ("sface", 0.5, 0.25)):
        vectors = [stacked(faces, network) for faces in found]
        own = [measures.similarity(own[:3], own[3:]) for own in vectors]
        next_ones = vectors[1:] + vectors[:1]
        swapped = [measures.similarity(*pair) for pair in zip(vectors, next_ones, strict=True)]
        assert np.mean(own) > same
        assert np.mean(swapped) < other
        assert min(own) > np.mean(swapped) + 0.1
        copies = [measures.copy_paste(own[:1], own[:1], own[3:]) for own in vectors]
        assert copies == pytest.approx([1] * len(copies))


def _cut(path: Path) -> np.ndarray:
    """The middle of an LFW image, where the face is."""
    image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    return at_side(np.ascontiguousarray(image[45:205, 45:205], np.uint8), 512)
