"""What evaluations found becomes a table and a plot: means over seeds, intervals, and the paper's figures."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from pydantic import ValidationError
from scipy import stats

from training.errors import TrainingError
from training.experiments.config import Row, Size, Table
from training.experiments.evaluations import t_quantile
from training.experiments.plan import EVALUATE, Job, Plan
from training.experiments.plot import plot_svg
from training.experiments.result import Figure, Figures, RowResult
from training.experiments.table import collect, markdown, write_table

Found = dict[str, tuple[float, float, float]]
"""Mean and interval by figure, of 1 input."""
SVG = "{http://www.w3.org/2000/svg}"


def network(name: str, sha256: str, *, chose_data: bool = False) -> dict[str, object]:
    return {"name": name, "sha256": sha256, "conditions": [], "chose_data": chose_data}


def evaluated(root: Path, name: str, found: Found | None, sha256: str = "a", precision: str = "fp32") -> Job:
    """A job, with the files of its result unless it is not done: two persons, on both sides of each mean."""
    job = Job(name, EVALUATE, {}, (Job(f"of-{name}", "train", {}),))
    if found is not None:
        figures = {
            figure: {"value": value, "low": low, "high": high, "people": 2}
            for figure, (value, low, high) in found.items()
        }
        document = {
            "sources": [{"name": "0-run"}],
            "networks": {
                "identity": [network("sface", sha256), network("other", "b")],
                "detector": network("yunet", "c"),
                "pose": network("face_landmarker", "d"),
            },
            "dataset": {"digest": "e"},
            "code_version": "1.0.0",
            "warnings": ["2 people are few"],
            "results": [{"source": "0-run", "inputs": 1, "figures": figures}],
        }
        job.output(root).mkdir(parents=True)
        (job.output(root) / "evaluation.json").write_text(json.dumps(document))
        people = [
            {"person": person, "inputs": 1}
            | {figure: value + side for figure, (value, _, _) in found.items()}
            for person, side in (("ann", -0.125), ("bob", 0.125))
        ]
        settings = {"0-run.device": "cpu", "0-run.precision": precision, "0-run.steps": 4}
        (job.output(root) / "settings.json").write_text(json.dumps(settings))
        (job.output(root) / "images.jsonl").touch()
        (job.output(root) / "people.jsonl").write_text("".join(json.dumps(line) + "\n" for line in people))
    return job


def row(
    name: str, label: str, x: float | None = None, paper: dict[str, dict[int, float]] | None = None
) -> Row:
    return Row(name=name, label=label, stages={"flow": {}}, x=x, paper=paper or {})


def table(rows: tuple[Row, ...], figures: tuple[str, ...], x: str | None = None) -> Table:
    return Table(name="own", title="A table", inputs=(1,), figures=figures, rows=rows, x=x)


def test_a_table_is_the_mean_over_seeds_with_its_interval_beside_the_papers_figure(tmp_path: Path) -> None:
    rows = (
        row("two", "two seeds", paper={"similarity": {1: 0.708}}),
        row("one", "one seed", paper={"pose_error": {1: 2.4}}),
        row("open", "not evaluated"),
    )
    found = {
        "two": ({"sface.similarity": (0.5, 0.1, 0.9)}, {"sface.similarity": (0.7, 0.3, 1.0)}),
        "one": ({"sface.similarity": (0.25, 0.125, 0.5), "pose_error": (3.25, 2.5, 4.75)}, None),
        "open": (None, None),
    }
    plan = Plan(
        table(rows, ("similarity", "pose_error")),
        {
            name: tuple(evaluated(tmp_path, f"{name}-{seed}", each) for seed, each in enumerate(of_seeds))
            for name, of_seeds in found.items()
        },
    )
    size = Size(stages={}, labels={"one": "one seed of SFace"})
    written, text = write_table(plan, "tiny", collect(plan, size, tmp_path), tmp_path, {"data": ["/data"]})
    # Of 0.5 and 0.7: the standard error is 0.1, and the quantile for one degree of freedom 12.706.
    assert text == (
        "# A table (size tiny)\n\n"
        "| row | seeds | similarity, 1 input | paper | pose error, 1 input | paper |\n"
        "|---|---|---|---|---|---|\n"
        "| two seeds | 2 of 2 | 0.600 (-0.671 to 1.871) | 0.708 |  |  |\n"
        "| one seed of SFace | 1 of 2 | 0.250 (0.125 to 0.500) |  | 3.2 (2.5 to 4.8) | 2.4 |\n"
        "| not evaluated | 0 of 2 |  |  |  |  |\n\n"
        "In brackets: 95 % intervals, over seeds where a row has several, else over persons. "
        "One seed cannot tell two trainings apart. Similarity is measured by sface, the paper's by ArcFace.\n\n"
        "Differences from the row two seeds, of the same seeds and persons:\n\n"
        "| row | seeds | similarity, 1 input |\n"
        "|---|---|---|\n"
        "| one seed of SFace | 1 of 2 | -0.250 (-0.250 to -0.250) |\n\n"
        "- All rows: 2 people are few\n"
        "- two seeds: there is no pose error, because no pose was found in the images\n"
    )
    assert written == [tmp_path / "own-tiny.json", tmp_path / "own-tiny.md", tmp_path / "own-tiny.svg"]
    assert written[1].read_text() == text
    document = json.loads(written[0].read_bytes())
    assert document["size"] == "tiny"
    assert document["rows"][0]["figures"]["similarity"]["1"]["seeds"] == {"0": 0.5, "1": 0.7}
    assert document["rows"][0]["code_versions"] == ["1.0.0"]
    assert [found["network"] for found in document["rows"]] == ["sface", "sface", None]


def test_a_figure_that_no_evaluated_row_has_is_named_with_the_reason(tmp_path: Path) -> None:
    rows = (row("first", "first"), row("other", "other"), row("open", "not evaluated"))
    found: Found = {"sface.similarity": (0.5, 0.1, 0.9)}
    plan = Plan(
        table(rows, ("similarity", "pose_error")),
        {
            "first": (evaluated(tmp_path, "first", found),),
            "other": (evaluated(tmp_path, "other", found | {"pose_error": (2.0, 1.0, 3.0)}),),
            "open": (evaluated(tmp_path, "open", None),),
        },
    )
    _, text = write_table(plan, "tiny", collect(plan, Size(stages={}), tmp_path), tmp_path, {})
    assert text.splitlines()[-2:] == [
        "- All rows: 2 people are few",
        "- first: there is no pose error, because no pose was found in the images",
    ]


def test_networks_that_condition_a_row_or_chose_the_data_are_named(tmp_path: Path) -> None:
    rows = (row("first", "first"), row("other", "other"))
    found: Found = {"sface.similarity": (0.5, 0.1, 0.9)}
    plan = Plan(
        table(rows, ("similarity",)),
        {name: (evaluated(tmp_path, name, found),) for name in ("first", "other")},
    )
    for name in ("first", "other"):
        path = tmp_path / "evaluations" / name / "evaluation.json"
        document = json.loads(path.read_text())
        document["warnings"] = []
        document["networks"]["identity"] = [
            network("sface", "a", chose_data=True) | {"conditions": ["0-run"] if name == "other" else []},
            network("mobilefacenet", "b"),
        ]
        path.write_text(json.dumps(document))
    _, text = write_table(plan, "tiny", collect(plan, Size(stages={}), tmp_path), tmp_path, {})
    assert text.splitlines()[-2:] == [
        "- All rows: sface measures, and chose the images of the dataset, so its figures are higher on them",
        "- other: sface conditions this row and measures it",
    ]


def validated(root: Path, name: str, *ratios: float, inputs: int = 1) -> None:
    """A run, with its validations."""
    run = root / "runs" / f"of-{name}"
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"config": {"validation": {"inputs": inputs}}}))
    lines = [
        {"step": step, "val/swap_ratio": ratio, "val/swap_ratio_low": 1.0, "val/swap_ratio_high": 1.25}
        for step, ratio in enumerate(ratios)
    ]
    text = [json.dumps(line) + "\n" for line in [{"step": 0, "train/loss": 1.0}, *lines, {"step": 9}]]
    (run / "metrics.jsonl").write_text("".join(text))


def test_the_swap_ratio_is_that_of_the_last_validation_and_is_compared_over_seeds(tmp_path: Path) -> None:
    found: Found = {"sface.similarity": (0.5, 0.1, 0.9)}
    rows = (row("first", "first"), row("other", "other"))
    plan = Plan(
        table(rows, ("swap_ratio",)),
        {
            name: tuple(evaluated(tmp_path, f"{name}-{seed}", found) for seed in range(seeds))
            for name, seeds in (("first", 2), ("other", 2))
        },
    )
    validated(tmp_path, "first-0", 1.5, 1.125)
    first, second = collect(plan, Size(stages={}), tmp_path)
    figure = first.figures["swap_ratio"][1]
    assert (figure.value, figure.low, figure.high) == (1.125, 1.0, 1.25)
    assert second.figures == {}

    validated(tmp_path, "other-0", 1.0625)
    _, second = collect(plan, Size(stages={}), tmp_path)
    assert second.minus_first == {}  # one seed in common, and no figures of persons
    validated(tmp_path, "first-1", 1.25)
    validated(tmp_path, "other-1", 1.125)
    _, second = collect(plan, Size(stages={}), tmp_path)
    difference = second.minus_first["swap_ratio"][1]
    assert difference.seeds == {0: -0.0625, 1: -0.125}
    assert difference.low < difference.value == -0.09375 < difference.high

    (tmp_path / "runs" / "of-other-1" / "metrics.jsonl").write_text("{")
    with pytest.raises(TrainingError, match=r"the validations of .*other-1 cannot be read"):
        collect(plan, Size(stages={}), tmp_path)


def test_rows_are_compared_seed_by_seed_and_with_one_seed_person_by_person(tmp_path: Path) -> None:
    rows = (row("first", "first"), row("other", "other"), row("alone", "alone"))
    own = [
        {"sface.similarity": (value, 0.0, 1.0), "other.similarity": (value, 0.0, 1.0)}
        for value in (0.2, 0.5, 0.4)
    ]
    # The seeds differ by .3, the rows by .1 in each seed, less one hundredth in the last.
    other = [{"sface.similarity": (value, 0.0, 1.0)} for value in (0.3, 0.6, 0.49)]
    found = {"first": own, "other": other, "alone": [None, other[1], None]}
    plan = Plan(
        table(rows, ("similarity", "other.similarity")),
        {
            name: tuple(evaluated(tmp_path, f"{name}-{seed}", each) for seed, each in enumerate(of_seeds))
            for name, of_seeds in found.items()
        },
    )
    first, second, alone = collect(plan, Size(stages={}), tmp_path)
    assert first.minus_first == {}
    assert first.figures.keys() == {"similarity", "other.similarity"}
    assert second.minus_first.keys() == {"similarity"}
    difference = second.minus_first["similarity"][1]
    assert difference.seeds == pytest.approx({0: 0.1, 1: 0.1, 2: 0.09})
    wanted = stats.ttest_rel([0.3, 0.6, 0.49], [0.2, 0.5, 0.4]).confidence_interval(0.95)
    assert (difference.low, difference.high) == pytest.approx((wanted.low, wanted.high), abs=1e-4)
    assert alone.minus_first["similarity"][1].value == pytest.approx(0.1)
    assert list(alone.minus_first["similarity"][1].seeds) == [1]
    text = markdown("A table", (1,), [first, second, alone])
    assert "| alone | 1 of 3 | +0.100 (+0.100 to +0.100) |" in text  # one seed in common with the first row


def test_pose_errors_are_compared_on_the_images_whose_pose_both_have(tmp_path: Path) -> None:
    rows = (row("first", "first"), row("other", "other"))
    poses = {"first": {0: 1.0, 1: 21.0}, "other": {0: 1.0, 1: None}}
    jobs = {}
    for name, errors in poses.items():
        known = [error for error in errors.values() if error is not None]
        mean = sum(known) / len(known)
        job = evaluated(tmp_path, name, {"pose_error": (mean, mean, mean)})
        lines = [
            {"person": who, "inputs": 1, "target": target, "sample": 0, "pose_error": error}
            for who in ("ann", "bob")
            for target, error in errors.items()
        ]
        (job.output(tmp_path) / "images.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        jobs[name] = (job,)
    first, other = collect(Plan(table(rows, ("pose_error",)), jobs), Size(stages={}), tmp_path)
    assert first.figures["pose_error"][1].value == 11
    assert other.figures["pose_error"][1].value == 1
    assert other.minus_first["pose_error"][1].value == 0


@pytest.mark.parametrize(("sha256", "precision"), [("z", "fp32"), ("a", "bf16")])
def test_rows_that_were_evaluated_otherwise_are_not_compared_and_the_table_says_so(
    tmp_path: Path, sha256: str, precision: str
) -> None:
    rows = (row("first", "first"), row("other", "other"))
    value: Found = {"sface.similarity": (0.5, 0.4, 0.6)}
    jobs = {
        "first": (evaluated(tmp_path, "first", value),),
        "other": (evaluated(tmp_path, "other", value, sha256, precision),),
    }
    results = collect(Plan(table(rows, ("similarity",)), jobs), Size(stages={}), tmp_path)
    assert results[1].minus_first == {}
    text = markdown("A table", (1,), results)
    assert "Differences" not in text
    assert "- other: 1 of 1 seeds are not compared with the first row: evaluated on another dataset" in text


def test_a_table_with_more_evaluations_is_not_replaced(tmp_path: Path) -> None:
    rows = (row("first", "first"),)
    value: Found = {"sface.similarity": (0.5, 0.4, 0.6)}
    both = (evaluated(tmp_path, "first-0", value), evaluated(tmp_path, "first-1", value))
    for jobs, count in ((both, 3), (both[:1], 0), (both, 3)):
        plan = Plan(table(rows, ("similarity",)), {"first": jobs})
        written, _ = write_table(plan, "tiny", collect(plan, Size(stages={}), tmp_path), tmp_path, {})
        assert len(written) == count
    assert json.loads((tmp_path / "own-tiny.json").read_bytes())["rows"][0]["seeds"] == 2


def test_a_damaged_result_is_named_with_the_remedy(tmp_path: Path) -> None:
    rows = (row("first", "first"), row("other", "other"))
    value: Found = {"sface.similarity": (0.5, 0.4, 0.6)}
    jobs = {name: (evaluated(tmp_path, name, value),) for name in ("first", "other")}
    plan = Plan(table(rows, ("similarity",)), jobs)
    people = jobs["other"][0].output(tmp_path) / "people.jsonl"
    people.unlink()
    with pytest.raises(
        TrainingError, match=rf"{people} cannot be read: .* Delete .*evaluation\.json and run"
    ):
        collect(plan, Size(stages={}), tmp_path)
    (people.parent / "evaluation.json").write_text("{")
    with pytest.raises(TrainingError, match=r"evaluation\.json cannot be read"):
        collect(plan, Size(stages={}), tmp_path)


def test_the_quantiles_are_those_of_students_t() -> None:
    for degrees in range(1, 10):
        assert t_quantile(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), abs=5e-4)
    assert t_quantile(30) >= stats.t.ppf(0.975, 30)


def test_a_figure_is_plotted_with_its_axes_and_a_point_for_each_evaluated_row(tmp_path: Path) -> None:
    values = {0.0: 0.2, 0.5: 0.4, 1.0: 0.35}
    rows = (*(row(f"{x:g}", f"{x:.0%}", x) for x in values), row("open", "80 %", 0.8))
    jobs = {
        f"{x:g}": (evaluated(tmp_path, f"at-{x:g}", {"sface.similarity": (value, value - 0.1, value + 0.1)}),)
        for x, value in values.items()
    }
    plan = Plan(
        table(rows, ("similarity",), x="share of MTD's steps"),
        {**jobs, "open": (evaluated(tmp_path, "open", None),)},
    )
    results = collect(plan, Size(stages={}), tmp_path)
    written, _ = write_table(plan, "tiny", results, tmp_path, {})
    assert [path.name for path in written] == ["own-tiny.json", "own-tiny.md", "own-tiny.svg"]
    drawing = ET.fromstring(written[2].read_bytes())  # noqa: S314 - our own file
    texts = {"".join(text.itertext()) for text in drawing.iter(f"{SVG}text")}
    assert {
        "A table (size tiny)",
        "share of MTD's steps",
        "identity similarity (sface)",
        "inputs",
        "100%",
    } <= texts
    (line,) = [group for group in drawing.iter(f"{SVG}g") if group.get("id") == "similarity-1"]
    marks = [float(mark.get("y", "")) for mark in line.iter(f"{SVG}use")]
    assert len(marks) == len(values)
    assert marks[1] < marks[2] < marks[0]  # y grows downwards in SVG
    before = written[2].read_bytes()
    assert write_table(plan, "tiny", results, tmp_path, {})[0][2].read_bytes() == before


def test_a_table_is_plotted_row_by_row_with_its_seeds(tmp_path: Path) -> None:
    rows = (row("first", "the first row"), row("second", "the second row"), row("open", "not evaluated"))
    seeds = {"first": (0.5, 0.7), "second": (0.1, 0.2), "open": ()}
    plan = Plan(
        table(rows, ("similarity",)),
        {
            name: tuple(
                evaluated(tmp_path, f"{name}-{seed}", {"sface.similarity": (value, value, value)})
                for seed, value in enumerate(values)
            )
            for name, values in seeds.items()
        },
    )
    written, _ = write_table(plan, "tiny", collect(plan, Size(stages={}), tmp_path), tmp_path, {})
    drawing = ET.fromstring(written[2].read_bytes())  # noqa: S314 - our own file
    texts = ["".join(text.itertext()) for text in drawing.iter(f"{SVG}text")]
    assert {"A table (size tiny)", "identity similarity (sface)", "inputs"} <= set(texts)
    assert "not evaluated" not in texts
    marks = {
        group.get("id"): [
            (float(mark.get("x", "")), float(mark.get("y", ""))) for mark in group.iter(f"{SVG}use")
        ]
        for group in drawing.iter(f"{SVG}g")
    }
    (first_x, first_y), (second_x, second_y) = marks["similarity-1"]
    assert first_x > second_x
    assert first_y < second_y  # the first row on top
    lowest, highest = sorted(marks["similarity-1-first"])
    assert (lowest[0] + highest[0]) / 2 == pytest.approx(first_x, abs=1e-4)
    assert lowest[1] == highest[1] == pytest.approx(first_y)


def test_a_row_of_a_figure_without_a_place_on_its_axis_is_named() -> None:
    with pytest.raises(ValidationError, match=r"rows: late need x, a place on the axis 'share'"):
        table((row("0", "0 %", 0.0), row("late", "90 %")), ("similarity",), x="share")


def test_points_of_one_seed_are_hollow_and_numbers_of_inputs_stand_side_by_side() -> None:
    def result(row: str, figures: Figures) -> RowResult:
        return RowResult(row, row, None, figures, {}, "sface", seeds=1, planned=1)

    def figure(value: float, low: float, high: float, *seeds: float) -> Figure:
        return Figure(value, low, high, dict(enumerate(seeds)), None)

    # A bootstrap interval need not hold the mean; and the second row has no pose error.
    outside = figure(0.5, 0.6, 0.7, 0.5)
    several = figure(0.2, 0.1, 0.3, 0.15, 0.25)
    both = {"similarity": {1: outside, 3: several}}
    results = [result("a", both | {"pose_error": {1: several}}), result("b", both)]
    drawing = ET.fromstring(plot_svg("A title that is too long for its plot" * 4, None, results))  # noqa: S314
    found = {group.get("id"): list(group.iter(f"{SVG}use")) for group in drawing.iter(f"{SVG}g")}
    assert {name: len(marks) for name, marks in found.items() if name and name.startswith(("sim", "pose"))} == {
        "similarity-1": 2, "similarity-3": 2, "similarity-3-a": 2, "similarity-3-b": 2,
        "pose_error-1": 1, "pose_error-1-a": 2,
    }  # fmt: skip
    (one, _), (three, _) = (
        [float(mark.get("y", "")) for mark in found[f"similarity-{count}"]] for count in (1, 3)
    )
    assert one < three
    white = [mark for marks in found.values() for mark in marks if "#ffffff" in mark.get("style", "")]
    assert len({(mark.get("x"), mark.get("y")) for mark in white}) == 2  # of 1 input, one a row
    titles = ["".join(text.itertext()) for text in drawing.iter(f"{SVG}text")]
    assert sum("A title" in line for line in titles) > 1


def test_a_figure_of_which_nothing_is_evaluated_has_no_plot(tmp_path: Path) -> None:
    plan = Plan(
        table((row("0", "0 %", 0.0),), ("similarity",), x="share"),
        {"0": (evaluated(tmp_path, "open", None),)},
    )
    written, text = write_table(plan, "tiny", collect(plan, Size(stages={}), tmp_path), tmp_path, {})
    assert [path.name for path in written] == ["own-tiny.json", "own-tiny.md"]
    assert "| row | seeds |\n|---|---|\n| 0 % | 0 of 1 |\n" in text
