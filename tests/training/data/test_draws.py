"""What a step sees of an identity depends on nothing but seed, epoch and key."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from training.config import Data, Validation
from training.data.draws import draw, draw_held_out

PAPER = Data(root="mfhq")
ranges = st.tuples(st.integers(1, 8), st.integers(1, 8)).map(lambda pair: (min(pair), max(pair)))
datas = st.builds(Data, root=st.just("mfhq"), inputs=st.integers(1, 8) | ranges, targets=st.integers(1, 8))
counts = st.integers(1, 7).flatmap(lambda inputs: st.tuples(st.just(inputs), st.integers(1, 8 - inputs)))
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
    assert set(drawn.inputs) | set(drawn.targets) <= set(range(8))
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


@given(numbers=counts, key=st.text(max_size=20))
def test_held_out_targets_are_never_inputs(numbers: tuple[int, int], key: str) -> None:
    inputs, targets = numbers
    validation = Validation(inputs=inputs, targets=targets)
    drawn = draw_held_out(validation, key)
    assert not {*drawn.inputs} & {*drawn.targets}
    assert (len(drawn.inputs), len(drawn.targets)) == numbers
    assert not drawn.flip
    assert drawn == draw_held_out(validation, key)


@given(numbers=counts, seed=seeds, epoch=epochs, key=st.text(max_size=20))
def test_targets_come_from_where_the_configuration_says(
    numbers: tuple[int, int], seed: int, epoch: int, key: str
) -> None:
    inputs, targets = numbers
    others = draw(Data(root="mfhq", inputs=inputs, targets=targets, targets_from="others"), seed, epoch, key)
    assert not {*others.inputs} & {*others.targets}
    assert len(others.targets) == targets
    own = min(inputs, targets)
    among = draw(Data(root="mfhq", inputs=inputs, targets=own, targets_from="inputs"), seed, epoch, key)
    assert {*among.targets} <= {*among.inputs} == {*others.inputs}
    assert len(among.targets) == own


def test_a_share_of_the_identities_is_mirrored_and_nothing_else_changes() -> None:
    plain, mirrored = (
        [draw(Data(root="mfhq", flip=share), 3, epoch, "k") for epoch in range(4000)] for share in (0.0, 0.3)
    )
    assert not any(drawn.flip for drawn in plain)
    assert abs(sum(drawn.flip for drawn in mirrored) / 4000 - 0.3) < 0.03
    assert [replace(drawn, flip=False) for drawn in mirrored] == plain
