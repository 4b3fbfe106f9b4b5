"""What a step sees of an identity depends on nothing but seed, epoch and key."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from training.config import Data
from training.data.draws import draw, draw_held_out

PAPER = Data(root="mfhq")
ranges = st.tuples(st.integers(1, 8), st.integers(1, 8)).map(lambda pair: (min(pair), max(pair)))
datas = st.builds(Data, root=st.just("mfhq"), inputs=st.integers(1, 8) | ranges, targets=st.integers(1, 8))
seeds, epochs = st.integers(0, 2**63 - 1), st.integers(0, 10**6)


@given(datas, seeds, epochs, st.text(max_size=20))
def test_inputs_and_targets_are_distinct_images_in_the_configured_numbers(
    data: Data, seed: int, epoch: int, key: str
) -> None:
    drawn = draw(data, seed, epoch, key)
    assert data.least_inputs <= len(drawn.inputs) <= data.most_inputs
    assert len(drawn.targets) == data.targets
    assert len(set(drawn.inputs)) == len(drawn.inputs)
    assert list(drawn.targets) == sorted(set(drawn.targets))
    assert set(drawn.inputs) | set(drawn.targets) == set(drawn.images) <= set(range(8))
    assert -(2**63) <= drawn.seed < 2**63


@given(datas, seeds, epochs, st.text(max_size=20))
def test_a_draw_is_the_same_each_time_and_has_a_seed_of_its_own(
    data: Data, seed: int, epoch: int, key: str
) -> None:
    drawn = draw(data, seed, epoch, key)
    assert drawn == draw(data, seed, epoch, key)
    others = [
        (seed ^ 1, epoch, key),
        (seed, epoch + 1, key),
        (seed, epoch, key + "x"),
        (seed, epoch, "x" + key),
    ]
    assert drawn.seed not in {draw(data, *other).seed for other in others}


def test_a_draw_is_the_same_for_ever() -> None:
    drawn = draw(Data(root="mfhq", inputs=(1, 5), targets=4), 0, 0, "clip-a_0")
    assert (drawn.inputs, drawn.targets, drawn.seed) == (
        (4, 6, 3, 0, 2),
        (1, 2, 3, 4),
        -6052971683797699865,
    )


def test_images_and_numbers_of_inputs_are_drawn_equally_often() -> None:
    data = Data(root="mfhq", inputs=(1, 5), targets=2)
    draws = [draw(data, 7, epoch, "clip-a_0") for epoch in range(8000)]
    counts = Counter(len(drawn.inputs) for drawn in draws)
    assert sorted(counts) == [1, 2, 3, 4, 5]
    assert all(abs(count - 1600) < 180 for count in counts.values())
    firsts = Counter(drawn.inputs[0] for drawn in draws)
    targets = Counter(image for drawn in draws for image in drawn.targets)
    assert all(abs(firsts[image] - 1000) < 150 for image in range(8))
    assert all(abs(targets[image] - 2000) < 200 for image in range(8))


def test_a_target_is_an_input_as_often_as_chance_says() -> None:
    data = Data(root="mfhq", inputs=4, targets=4)
    shared = [
        len({*drawn.inputs} & {*drawn.targets}) for drawn in (draw(data, 1, e, "k") for e in range(4000))
    ]
    assert abs(sum(shared) / len(shared) - 2) < 0.06


@given(datas, st.text(max_size=20))
def test_held_out_targets_are_never_inputs(data: Data, key: str) -> None:
    drawn = draw_held_out(data, key)
    assert not {*drawn.inputs} & {*drawn.targets}
    assert len(drawn.inputs) == min(data.most_inputs, 7)
    assert len(drawn.targets) == min(data.targets, 8 - len(drawn.inputs)) >= 1
    assert drawn == draw_held_out(data, key)
