"""The benchmark that gives the thresholds of linking: its groups, weights, tails and counts are what they say."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import insightface
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from faces.landmarks import FaceLandmarker
from faces.profiles import load_detector, load_embedder
from faces.registry import load_weights
from faces.types import Detection

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
from face_labels import wrong_labels
from identity_groups import (
    Cosines,
    genuine,
    groups_by_pose,
    impostor,
    random_groups,
    turned_and_frontal,
)
from labelled_faces import COLLECTIONS, LabelledFaces, labelled_face, load
from linked_groups import agreement, joined_cosines, linked
from score_tail import Tail, fit_tail, share_at_or_above, weighted_quantile

people = arrays(np.int64, st.integers(1, 60), elements=st.integers(0, 5))
yaws = st.floats(-90, 90, width=32)


@given(person=people, size=st.integers(1, 8), data=st.data())
def test_groups_share_no_image_and_are_of_one_person(person: np.ndarray, size: int, data: st.DataObject):
    yaw = data.draw(arrays(np.float32, len(person), elements=yaws))
    for groups in (
        random_groups(person, yaw, size, seed=0),
        groups_by_pose(person, yaw, size),
        turned_and_frontal(person, yaw, size, seed=0),
    ):
        assert len(np.unique(groups.members)) == groups.members.size
        assert (person[groups.members] == groups.person[:, None]).all()
    assert len(groups_by_pose(person, yaw, size).person) == sum(
        count // size for count in np.unique(person, return_counts=True)[1]
    )


@given(person=people, data=st.data())
def test_groups_by_pose_follow_each_other_from_left_to_right(person: np.ndarray, data: st.DataObject):
    yaw = data.draw(arrays(np.float32, len(person), elements=yaws))
    groups = groups_by_pose(person, yaw, 3)
    for one in np.unique(groups.person):
        own = yaw[groups.members[groups.person == one]].ravel()
        assert (np.diff(own) >= 0).all()


def test_turned_groups_are_compared_with_frontal_ones_only():
    person = np.repeat([0, 1], 12)
    yaw = np.tile(np.array([0] * 4 + [40] * 4 + [-60] * 2 + [20] * 2, np.float32), 2)
    vectors = np.random.default_rng(0).standard_normal((24, 4)).astype(np.float32)
    groups = turned_and_frontal(person, yaw, 2, seed=0)
    assert np.unique(groups.side, return_counts=True)[1].tolist() == [4, 6]  # 20 degrees is neither
    pairs = genuine(groups, vectors)
    assert len(pairs.values) == 2 * 2 * 3
    assert (groups.side[pairs.groups].sum(axis=1) == 1).all()


def test_an_image_without_a_pose_is_in_no_group():
    yaw = np.array([0, np.nan, 5, 6], np.float32)
    assert 1 not in random_groups(np.zeros(4, np.int64), yaw, 1, seed=0).members


def test_each_pair_of_persons_counts_once():
    person = np.repeat([0, 1, 2], [2, 4, 6])
    vectors = np.random.default_rng(0).standard_normal((12, 3)).astype(np.float32)
    groups = random_groups(person, np.zeros(12, np.float32), 2, seed=0)
    others = impostor(groups, vectors)
    sums = np.bincount(others.pair_of_persons, others.weights())
    assert sums[sums > 0].tolist() == pytest.approx([1 / 3] * 3)
    assert len(others.values) == 1 * 2 + 1 * 3 + 2 * 3


@given(
    shape=st.floats(-0.4, 0.3),
    scale=st.floats(0.005, 0.1),
    share=st.floats(0.001, 0.1),
    decades=st.floats(0.1, 6),
)
def test_the_threshold_of_a_rate_has_that_rate(shape: float, scale: float, share: float, decades: float):
    tail = Tail(0.3, share, scale, shape)
    far = share * 10**-decades
    assert float(tail.far(np.array(tail.cosine(far)))) == pytest.approx(far, rel=1e-6)


@pytest.mark.parametrize("shape", [-0.25, -0.05, 0.0, 0.1])
def test_a_known_tail_is_found(shape: float):
    uniform = np.random.default_rng(0).random(200_000)
    truth = Tail(0.0, 1.0, 0.03, shape)
    values = np.array([truth.cosine(float(far)) for far in uniform])
    fitted = fit_tail(values, np.ones(len(values)), share=0.1)
    assert fitted.share == pytest.approx(0.1, abs=1e-4)
    assert fitted.shape == pytest.approx(shape, abs=0.03)
    # Of 50 such samples, one has a value there.
    assert fitted.cosine(1e-7) == pytest.approx(truth.cosine(1e-7), rel=0.15)
    assert fit_tail(values, np.ones(len(values)), share=0.1, exponential=True).shape == 0.0


def test_too_few_values_give_no_tail():
    with pytest.raises(ValueError, match="2 values are in the tail; expected 10 or more"):
        fit_tail(np.arange(100) / 100, np.ones(100), share=0.02)


@settings(max_examples=25)
@given(
    values=st.lists(st.integers(0, 300), min_size=60, max_size=120, unique=True),
    counts=st.lists(st.integers(1, 4), min_size=120, max_size=120),
)
def test_a_weight_is_so_many_equal_values(values: list[int], counts: list[int]):
    cosines, weights = np.array(values) / 300, np.array(counts[: len(values)])
    repeated = np.repeat(cosines, weights)
    ones = np.ones(len(repeated))
    for quantile in (0.1, 0.5, 0.9):
        assert weighted_quantile(cosines, weights, quantile) == weighted_quantile(repeated, ones, quantile)
    assert share_at_or_above(cosines, weights, 0.5) == pytest.approx((repeated >= 0.5).mean())
    once, often = fit_tail(cosines, weights, 0.5), fit_tail(repeated, ones, 0.5)
    assert (once.start, once.share) == pytest.approx((often.start, often.share))
    assert (once.scale, once.shape) == pytest.approx((often.scale, often.shape), abs=1e-6)


@given(rows=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=25))
def test_agreement_counts_pairs(rows: list[tuple[int, int]]):
    found, wanted = np.array(rows, np.int64).T
    a, b = np.triu_indices(len(rows), k=1)
    joined, together = found[a] == found[b], wanted[a] == wanted[b]
    counted = agreement(found, wanted)
    assert (counted.joined, counted.wanted) == (joined.sum(), together.sum())
    assert counted.both == (joined & together).sum()


def test_linking_joins_the_groups_of_a_person():
    random = np.random.default_rng(0)
    person = np.repeat(np.arange(5), 6)
    vectors = np.eye(5, 32)[person] + 0.08 * random.standard_normal((30, 32))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    groups = random_groups(person, np.zeros(30, np.float32), 2, seed=0)
    found = linked(groups, vectors, 0.6)
    assert agreement(found, groups.person).precision == agreement(found, groups.person).recall == 1.0
    assert len(joined_cosines(groups, found, vectors)) == 5 * 3
    assert len(np.unique(linked(groups, vectors, 0.9999))) == len(groups.person)


def test_the_labelled_face_is_the_central_one_of_the_large_ones():
    def face(x: float, side: float) -> Detection:
        box = np.array([x - side / 2, 50 - side / 2, x + side / 2, 50 + side / 2], np.float32)
        return Detection(box, 0.9, np.zeros((5, 2), np.float32))

    image = np.zeros((100, 200, 3), np.uint8)
    large, central, tiny = face(20, 40), face(120, 30), face(100, 10)
    assert labelled_face([large, central, tiny], image) is central
    assert labelled_face([], image) is None


def faces_of(root: Path, cache: Path, *, networks: bool) -> LabelledFaces:
    """With or without networks: without, everything must come from the cache."""
    weights = load_weights(["yunet", "sface", "face_landmarker"], None) if networks else {}
    return load(
        root,
        cache,
        detector=("yunet", load_detector("yunet", weights) if networks else None),  # type: ignore[arg-type]
        landmarker=FaceLandmarker(weights["face_landmarker"].path) if networks else None,  # type: ignore[arg-type]
        embedders={"sface": load_embedder("sface", weights) if networks else None},  # type: ignore[dict-item]
        report=lambda _: None,
    )


def test_faces_are_found_once_and_then_read(tmp_path: Path):
    photograph = cv2.imread(str(Path(insightface.__file__).parent / "data" / "images" / "t1.jpg"))
    half = photograph.shape[1] // 2
    pictures = {"left": photograph[:, :half], "right": photograph[:, half:], "nobody": photograph[:40, :40]}
    for collection in COLLECTIONS:
        for name, picture in pictures.items():
            folder = tmp_path / collection / name
            folder.mkdir(parents=True)
            assert cv2.imwrite(str(folder / f"{name}_0001.jpg"), picture)
    first = faces_of(tmp_path, tmp_path / "cache", networks=True)
    assert first.person.tolist() == ["left", "nobody", "right"] * 2
    assert first.found.tolist() == [True, False, True] * 2
    lengths = np.linalg.norm(first.embeddings["sface"], axis=1)
    assert lengths.tolist() == pytest.approx([1, 0, 1] * 2, abs=1e-5)
    assert np.isfinite(first.pose[first.found]).all()
    again = faces_of(tmp_path, tmp_path / "cache", networks=False)
    assert np.array_equal(again.embeddings["sface"], first.embeddings["sface"])
    assert np.array_equal(again.pose, first.pose, equal_nan=True)
    (tmp_path / "pins105").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="Pass the directory that contains pins105"):
        faces_of(tmp_path, tmp_path / "cache", networks=False)


def test_wrong_labels_name_files_of_the_collections():
    wrong = wrong_labels()
    assert wrong
    assert all(Path(file).parts[0] in COLLECTIONS and what for file, what in wrong.items())


def test_pairs_of_persons_have_numbers_of_their_own():
    persons = np.array([[0, 1], [0, 11], [1, 1], [1, 0]])
    pairs = Cosines(np.zeros(4, np.float32), persons, persons)
    assert len(np.unique(pairs.pair_of_persons)) == 4
