"""From the figures of people to means, intervals and comparisons."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluate.chart import Point, Series, chart, ticks
from training.evaluate.figures import GeneratedFigures, PersonFigures
from training.evaluate.result import comparisons, levels, person_rows, results, stat

NET = "net"
VALUES = st.lists(st.one_of(st.none(), st.floats(-1, 1)), min_size=1, max_size=12)


def person(
    name: str, mean: list[float], truth: list[float], **errors: dict[tuple[int, int], float]
) -> PersonFigures:
    """A person with one embedding of generated images by each source."""
    identity = {"similarity": 0.5, "similarity_found": None, "similarity_usual_place": 0.4}
    identity |= {"similarity_to_inputs": 0.6, "copy_paste": 0.1, "copy_paste_nearest": 0.2}
    generated = {
        (source, 1): GeneratedFigures(
            images=4,
            found=3,
            poses=len(pose_errors),
            pose_errors=pose_errors,
            identity={NET: dict(identity)},
            means={NET: np.array(mean, dtype=float)},
            usual_means={NET: -np.array(mean, dtype=float)},
        )
        for source, pose_errors in errors.items()
    }
    return PersonFigures(
        person=name,
        key=f"{name}_0",
        inputs=(0,),
        targets=(1, 2),
        targets_not_found=(),
        inputs_not_found=(),
        target_means={NET: np.array(truth, dtype=float)},
        input_means={NET: np.array(truth, dtype=float)},
        levels={"pose.frontal": 10.0, "pose.inputs": None},
        generated=generated,
    )


@given(VALUES)
def test_a_mean_lies_in_its_interval_and_counts_the_people_behind_it(values: list[float | None]) -> None:
    known = [value for value in values if value is not None]
    found = stat(values)
    if not known:
        assert found is None
        return
    assert found is not None
    assert found["value"] == pytest.approx(np.mean(known), abs=1e-6)
    assert found["people"] == len(known)
    assert min(known) - 1e-6 <= found["low"] <= found["high"] <= max(known) + 1e-6


def test_gain_and_nearest_compare_a_person_with_all_others() -> None:
    people = [
        person("a", [1, 0], [1, 0], one={}),
        person("b", [0, 1], [0, 1], one={}),
        person("c", [1, 0], [0, -1], one={}),
    ]
    rows = {row.person: row.values for row in person_rows(people, [NET])}
    assert rows["a"]["net.similarity_to_others"] == pytest.approx(0)
    assert rows["b"]["net.similarity_to_others"] == pytest.approx(-0.5)
    assert rows["c"]["net.similarity_to_others"] == pytest.approx(0.5)
    assert [rows[name]["net.gain"] for name in "abc"] == pytest.approx([1, 1.5, -0.5])
    assert [rows[name]["net.nearest"] for name in "abc"] == [1, 1, 0]
    assert [rows[name]["net.gain_usual_place"] for name in "abc"] == pytest.approx([-1, -1.5, 0.5])
    found = levels(people, [NET])
    assert found["identity.net.real_to_others"]["value"] == pytest.approx((0 - 0.5 - 0.5) / 3, abs=1e-6)
    assert found["pose.frontal"] == {"value": 10.0, "low": 10.0, "high": 10.0, "people": 3}
    assert "pose.inputs" not in found


def test_counts_are_those_of_images_and_a_figure_that_nobody_has_is_absent() -> None:
    people = [person(name, [1, 0], [1, 0], one={(1, 0): 5.0}) for name in "ab"]
    (result,) = results(person_rows(people, [NET]))
    assert (result["images"], result["faces_not_found"], result["poses_not_found"]) == (8, 2, 6)
    figures = result["figures"]
    assert isinstance(figures, dict)
    assert figures["pose_error"]["value"] == 5
    assert figures["faces_found"]["value"] == 0.75
    assert "net.similarity_found" not in figures


def test_pose_errors_are_compared_on_images_that_both_sources_have() -> None:
    people = [
        person("a", [1, 0], [1, 0], one={(1, 0): 5.0, (2, 0): 50.0}, other={(1, 0): 7.0}),
        person("b", [0, 1], [0, 1], one={(1, 0): 5.0}, other={(2, 0): 1.0}),
    ]
    (pair,) = comparisons(person_rows(people, [NET]), "one")
    assert (pair["source"], pair["minus"], pair["inputs"]) == ("other", "one", 1)
    differences = pair["differences"]
    assert isinstance(differences, dict)
    assert differences["pose_error"] == {"value": 2.0, "low": 2.0, "high": 2.0, "people": 1}
    assert differences["net.gain"]["value"] == 0


@given(st.floats(-50, 50), st.floats(0.001, 100))
def test_ticks_are_round_and_lie_between_the_bounds(low: float, span: float) -> None:
    found = ticks(low, low + span)
    assert 2 <= len(found) <= 9
    assert all(low - 1e-6 <= tick <= low + span + 1e-6 for tick in found)
    assert np.allclose(np.diff(found), found[1] - found[0])


def test_a_chart_shows_each_point_with_its_interval_and_escapes_names() -> None:
    points = [Point(k, 0.5, 0.4, 0.6) for k in (1, 3)]
    drawn = chart([Series("<b>", points), Series("other", points)], [("chance", 0.1)])
    assert drawn.count("<circle") == drawn.count('stroke-width="2"') == 4
    assert "&lt;b&gt;, 3 inputs: 0.500" in drawn
    assert "<b>" not in drawn
    assert drawn.count('class="level"') == 1
    assert chart([], []) == ""
