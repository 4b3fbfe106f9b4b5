"""Eight images of a track: far enough apart in pose, and of those the best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

from pipeline.config import Selection
from pipeline.rejection import Rejection
from pipeline.stages.apart import farthest_points, points_apart
from pipeline.stages.select import (
    FrameTable,
    Picks,
    are_closed,
    candidates,
    choose,
    cluster_by_pose,
    pick_apart,
    pose_points,
    promise_of,
    ranks,
)
from shards.schema import Reason

Rows = list[tuple[float, float, float]]
DEGREES = st.integers(-6000, 6000).map(lambda hundredths: hundredths / 100)
COARSE = st.integers(-60, 60).map(lambda tenths: tenths / 10)
POSES = st.one_of(
    st.lists(st.tuples(DEGREES, DEGREES, DEGREES), min_size=1, max_size=40),
    # On a coarse grid, distances are equal or just about: where rounding errors decide.
    st.lists(st.tuples(COARSE, st.just(0.0), st.just(0.0)), min_size=8, max_size=40),
)


def table(poses: Rows, closed: Sequence[int] = ()) -> FrameTable:
    """A table of poses; `closed` are the rows with closed eyes."""
    return FrameTable(
        pose_deg=np.array(poses, dtype=np.float64).reshape(-1, 3),
        eyes_closed=np.isin(np.arange(len(poses)), closed),
    )


def sharp(count: int) -> NDArray[np.float64]:
    return np.full(count, 100.0)


def turning(count: int, step_deg: float) -> Rows:
    return [(step_deg * number, 0.0, 0.0) for number in range(count)]


BETWEEN_TWO = [
    *[(6.85, 21.94, 19.88), (5.6, 19.36, 17.39), (8.1, 24.52, 22.37), (-1.9, 3.88, 2.45)],
    *[(-9.4, -11.6, -12.49), (-16.9, -27.08, -27.43), (20.6, 50.32, 47.27), (28.1, 65.8, 62.21)],
    (35.6, 81.28, 77.15),
]
"""The first lies midway between the next two; rounded, both distances are less than half of theirs."""


@settings(max_examples=150, deadline=None)
@given(POSES)
@example(BETWEEN_TWO)
def test_eight_points_are_always_found_when_sampling_finds_them(poses: Rows) -> None:
    points, least = np.array(poses), 1.5
    picked, separation = pick_apart(points, 8, least)
    _, reachable = farthest_points(points, 8)
    assert len(picked) in {0, 8}
    assert picked or reachable < least
    assert not picked or pdist(points[picked]).min() >= max(separation, least) - 1e-8
    assert separation <= max(reachable, least)


@settings(max_examples=150, deadline=None)
@given(POSES, st.data())
def test_a_choice_is_eight_of_the_clusters_best_far_enough_apart_or_a_rejection(
    poses: Rows, data: st.DataObject
) -> None:
    count = len(poses)
    clusters = np.array(data.draw(st.lists(st.integers(0, 30), min_size=count, max_size=count)))
    badness = np.array(data.draw(st.lists(st.integers(0, 5), min_size=count, max_size=count)), dtype=float)
    closed = data.draw(st.lists(st.integers(0, count), max_size=count))
    least = data.draw(st.sampled_from([0.0, 0.5, 1.5, 10.0]))
    config = Selection(min_separation_deg=least, roll_weight=data.draw(st.sampled_from([0.0, 0.3, 1.0])))
    frames = table(poses, closed)
    chosen = choose(frames, clusters, badness, config)
    assert choose(frames, clusters, badness, config) == chosen
    if isinstance(chosen, Rejection):
        assert chosen.reason is Reason.TOO_FEW_POSES
        return
    assert len(chosen) == 8
    assert chosen == sorted(set(chosen))
    assert pdist(pose_points(frames.pose_deg, config.roll_weight)[chosen]).min() >= least - 1e-8
    ranks = list(zip(frames.eyes_closed, badness, range(count), strict=True))
    best = sorted(
        min(ranks[row] for row in np.flatnonzero(clusters == cluster))[2] for cluster in np.unique(clusters)
    )
    # Second images of a cluster are used only where the best of each do not suffice.
    alone = choose(table([poses[row] for row in best]), clusters[best], badness[best], config)
    assert set(chosen) <= set(best) or isinstance(alone, Rejection)


def test_each_pose_cluster_is_represented_by_its_best_image() -> None:
    poses = [pose for pose in turning(8, 10) for _ in range(3)]
    badness = np.array([2.0, 1.0, 3.0] * 8)
    assert choose(table(poses), np.repeat(np.arange(8), 3), badness, Selection()) == list(range(1, 24, 3))


def test_the_best_clusters_are_taken_between_the_ends_of_the_range() -> None:
    badness = np.array([5.0, 1.0] * 5)
    chosen = choose(table(turning(10, 20)), np.arange(10), badness, Selection())
    assert isinstance(chosen, list)
    assert {0, 9} < set(chosen)
    assert sum(row % 2 for row in chosen) == 5


def test_within_a_tenth_of_the_range_the_best_stands_for_its_end() -> None:
    badness = np.array([5.0, 1.0] * 8)
    chosen = choose(table(turning(16, 10)), np.arange(16), badness, Selection())
    assert chosen == [1, 3, 5, 7, 9, 11, 13, 15]


def test_of_poses_that_only_a_search_finds_each_is_the_best_that_fits() -> None:
    grid = 1.6 * np.arange(8)
    outwards = grid + np.linspace(-0.04, 0.04, 8)
    # The best image of all is too near to two poses that are needed.
    yaw = np.concatenate([[0.8], grid, outwards])
    picked, _ = pick_apart(np.stack([yaw, 0 * yaw, 0 * yaw], axis=1), 8, 1.5)
    assert sorted(picked) == list(range(1, 9))


def test_quality_decides_between_neighbouring_poses() -> None:
    rng = np.random.default_rng(3)
    poses, badness = [(yaw, 0.0, 0.0) for yaw in rng.uniform(-20, 20, 40)], rng.uniform(0, 1, 40)
    chosen = choose(table(poses), np.arange(40), badness, Selection())
    assert isinstance(chosen, list)
    assert np.median(badness[chosen]) < 0.25


def test_a_better_image_of_nearly_the_same_pose_keeps_the_worse_one_out() -> None:
    poses = [*turning(8, 10), (-0.5, 0.0, 0.0)]
    badness = np.array([1.0] * 4 + [3.0] + [1.0] * 4)
    poses[8] = (39.5, 0.0, 0.0)
    assert choose(table(poses), np.arange(9), badness, Selection()) == [0, 1, 2, 3, 5, 6, 7, 8]


def test_closed_eyes_are_chosen_only_where_eight_poses_cannot_be_had_without_them() -> None:
    badness = np.array([0.0, *[9.0] * 8])
    with_closed = choose(table(turning(9, 10), closed=[0]), np.arange(9), badness, Selection())
    assert with_closed == [1, 2, 3, 4, 5, 6, 7, 8]
    needed = choose(table(turning(8, 10), closed=[0]), np.arange(8), badness[:8], Selection())
    assert needed == [0, 1, 2, 3, 4, 5, 6, 7]


def test_within_a_cluster_open_eyes_win_over_a_better_score() -> None:
    poses = [*turning(8, 10), (70.4, 0.0, 0.0)]
    clusters = np.array([*range(8), 7])
    badness = np.array([9.0] * 7 + [0.0, 9.0])
    assert choose(table(poses, closed=[7]), clusters, badness, Selection()) == [0, 1, 2, 3, 4, 5, 6, 8]


def test_eyes_are_closed_when_less_open_than_usual_for_the_person() -> None:
    squinting = np.array([0.3, 0.32, 0.31, 0.05, 0.3])
    assert are_closed(squinting, Selection()).tolist() == [False, False, False, True, False]


def test_eight_separate_poses_are_enough_in_whatever_clusters() -> None:
    chosen = choose(table(turning(14, 10)), np.arange(14) % 7, np.zeros(14), Selection())
    assert isinstance(chosen, list)


def test_too_few_images_are_rejected_also_when_no_separation_is_asked_for() -> None:
    rejection = choose(table(turning(5, 10)), np.arange(5), np.zeros(5), Selection(min_separation_deg=0))
    assert rejection == Rejection(Reason.TOO_FEW_POSES, "5 images may be chosen, 8 needed")


def test_no_candidates_at_all_are_too_few() -> None:
    rejection = choose(table([]), np.zeros(0, np.int64), np.zeros(0), Selection())
    assert isinstance(rejection, Rejection)


def test_a_still_head_is_rejected_before_it_is_scored_with_the_figures() -> None:
    still = [(0.01 * number, 0.0, 0.0) for number in range(50)]
    rejection = candidates(table(still), sharp(50), Selection(min_separation_deg=1.5))
    assert isinstance(rejection, Rejection)
    assert rejection.reason is Reason.TOO_FEW_POSES
    assert rejection.detail == "8 poses are at most 0.12 degrees apart, 1.50 needed"


def test_a_separation_just_below_the_least_does_not_read_as_enough() -> None:
    poses = turning(8, 1.4996)
    rejection = choose(table(poses), np.arange(8), np.zeros(8), Selection(min_separation_deg=1.5))
    assert isinstance(rejection, Rejection)
    assert rejection.detail == "the best 8 images of different poses are 1.49 degrees apart, 1.50 needed"


def test_a_head_that_only_rolls_shows_no_new_poses_when_roll_does_not_count() -> None:
    rolling = table([(0.0, 0.0, 3.0 * number) for number in range(30)])
    assert isinstance(candidates(rolling, sharp(30), Selection(roll_weight=0)), Rejection)
    assert isinstance(candidates(rolling, sharp(30), Selection(roll_weight=1)), Picks)


def test_each_cluster_gives_a_few_candidates_in_order_of_frame() -> None:
    found = candidates(table(turning(200, 0.5)), sharp(200), Selection(clusters=16, candidates_per_cluster=3))
    assert isinstance(found, Picks)
    rows = [pick.row for pick in found.picks]
    assert rows == sorted(rows)
    assert sorted((pick.cluster, pick.rank) for pick in found.picks) == [
        (cluster, rank) for cluster in range(16) for rank in range(3)
    ]


def test_frames_of_another_identity_are_no_candidates_and_only_candidates_are_asked_for() -> None:
    asked: list[int] = []

    def is_same_person(row: int) -> bool:
        asked.append(row)
        return row % 3 > 0

    config = Selection(clusters=10, candidates_per_cluster=2)
    found = candidates(table(turning(200, 0.5)), sharp(200), config, is_same_person)
    assert isinstance(found, Picks)
    assert len(found.picks) == 20
    assert all(pick.row % 3 for pick in found.picks)
    assert sorted(asked) == sorted([*found.others, *(pick.row for pick in found.picks)])
    assert len(asked) < 60


def test_candidates_are_sharp_and_have_open_eyes_where_a_cluster_has_such() -> None:
    poses = [(10.0 * number + 0.01 * variant, 0.0, 0.0) for number in range(10) for variant in range(4)]
    frames, sharpness = table(poses, closed=range(0, 40, 4)), np.array([100.0, 20.0, 100.0, 90.0] * 10)
    found = candidates(frames, sharpness, Selection(clusters=10, candidates_per_cluster=2))
    assert isinstance(found, Picks)
    assert [(pick.row % 4, pick.rank) for pick in found.picks] == [(2, 0), (3, 1)] * 10


def test_the_clusters_at_the_ends_are_represented_by_frames_near_the_ends() -> None:
    yaw = np.linspace(-20, 20, 121)
    # The most promising frames of a cluster are in its middle.
    middling = 100 - 40 * np.abs((yaw + 20) % 8 - 4) / 4
    found = candidates(table([(float(y), 0.0, 0.0) for y in yaw]), middling, Selection(clusters=9))
    assert isinstance(found, Picks)
    turned = np.sort([yaw[pick.row] for pick in found.picks])
    assert (turned[:2] <= -20 + 0.05 * 40).all()
    assert (turned[-2:] >= 20 - 0.05 * 40).all()


def test_a_cluster_at_two_ends_is_represented_at_each() -> None:
    # Eight poses far away, and a cluster that holds the least yaw in one frame and the least pitch in another.
    far = [(40.0 + 25 * number, pitch, 0.0) for number in range(4) for pitch in (60.0, 85.0)]
    corner = [(0.0, 10.0, 0.0), (0.3, 9.5, 0.0), (6.0, 6.0, 0.0), (10.0, 0.0, 0.0), (9.5, 0.3, 0.0)]
    promise = np.array([1.0] * 8 + [1.0, 2.0, 9.0, 1.0, 2.0])
    found = candidates(table([*far, *corner]), promise, Selection(clusters=9))
    assert isinstance(found, Picks)
    picked = {pick.row for pick in found.picks if pick.row >= 8}
    assert picked & {8, 9}
    assert picked & {11, 12}


def test_the_cluster_at_an_end_keeps_a_choice_of_two() -> None:
    poses = [*turning(8, 100), (930.0, 0.0, 0.0), (990.0, 0.0, 0.0), (999.0, 0.0, 0.0)]
    promise = np.array([1.0] * 8 + [9.0, 5.0, 2.0])
    found = candidates(table(poses), promise, Selection(clusters=9))
    assert isinstance(found, Picks)
    assert {(pick.row, pick.rank) for pick in found.picks if pick.row >= 8} == {(9, 0), (10, 1)}


def test_closed_eyes_at_an_end_do_not_replace_open_ones_further_in() -> None:
    poses = [*turning(24, 2), *((90.0 + 0.2 * number, 0.0, 0.0) for number in range(8))]
    found = candidates(table(poses, closed=range(28, 32)), sharp(32), Selection(clusters=9))
    assert isinstance(found, Picks)
    assert {pick.row for pick in found.picks if pick.row >= 24} <= {24, 25, 26, 27}


def test_ranks_are_places_and_equal_values_share_one() -> None:
    assert ranks(np.array([3.0, 1.0, 1.0, 9.0])).tolist() == [0.5, 0.0, 0.0, 1.0]
    assert ranks(np.array([])).tolist() == []
    assert ranks(np.array([7.0])).tolist() == [0.0]


def test_of_two_equally_sharp_images_the_one_with_more_bytes_promises_more() -> None:
    promise = promise_of(np.array([50.0, 80.0, 80.0, 90.0]), np.array([100, 100, 130, 90]))
    assert promise.tolist() == [0.5, 1.0, 1.5, 1.0]


def test_eight_far_enough_apart_are_candidates_also_where_they_promise_little() -> None:
    # Eight clusters, whose most promising frames lie at the borders towards each other, two by two.
    poses = [(10.0 * (number // 2) + side, 0.0, 0.0) for number in range(8) for side in (0.0, 1.9, 4.9)]
    poses = [(yaw if number % 6 < 3 else yaw + 4.9 + 0.1, 0.0, 0.0) for number, (yaw, *_) in enumerate(poses)]
    promise = np.array([1.0, 2.0, 9.0, 9.0, 2.0, 1.0] * 4)
    config = Selection(clusters=9, candidates_per_cluster=1, min_separation_deg=1.5)
    found = candidates(table(poses), promise, config)
    assert isinstance(found, Picks)
    chosen = pose_points(np.array(poses), 0.5)[[pick.row for pick in found.picks]]
    assert points_apart(chosen, 8, 1.5) is not None


def test_the_same_frames_give_the_same_candidates() -> None:
    rng = np.random.default_rng(0)
    frames, sharpness = table(rng.normal(0, 10, (120, 3)).tolist()), rng.uniform(50, 150, 120)
    assert candidates(frames, sharpness, Selection()) == candidates(frames, sharpness, Selection())


def test_there_are_never_more_clusters_than_different_poses() -> None:
    points = np.array([[0.0, 0, 0], [5, 0, 0], [5, 0, 0], [9, 0, 0]])
    labels = cluster_by_pose(points, 16)
    assert len(np.unique(labels)) == 3
    assert labels[1] == labels[2]
