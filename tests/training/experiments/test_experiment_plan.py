"""Tables become jobs: shared where they are the same, in order, and refused when they cannot run."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2] / "shards"))

import shards_factory as factory

from settings.section import ConfigError
from shards.schema import Split
from shards.writer import write_dataset
from training.config import Config
from training.errors import TrainingError
from training.experiments.command import Options, run_experiment
from training.experiments.config import (
    Row,
    Size,
    Stage,
    Table,
    load_size,
    load_table,
    size_names,
    table_names,
)
from training.experiments.plan import EVALUATE, EXPORT, Job, Plan, merged, plan

ROOT = Path("/experiments")
DATA = {"dataset": "/data/mfhq", "webface": "/data/webface"}


def planned(table: str, size: str = "paper", seeds: int = 1, **options: Any) -> Plan:
    return plan(load_table(table), load_size(size), seeds=seeds, root=ROOT, datasets=DATA, **options)


def config_of(job: Job) -> Config:
    return Config.model_validate(job.settings)


def stages(plan: Plan, row: str) -> dict[str, Job]:
    """The jobs of a row's first seed, by their stage."""
    found: dict[str, Job] = {}

    def collect(job: Job) -> None:
        for need in job.needs:
            collect(need)
        found["evaluate" if job.action == EVALUATE else job.name.split("-")[0]] = job

    collect(plan.evaluations[row][0])
    return found


@pytest.mark.parametrize("size", size_names())
@pytest.mark.parametrize("table", table_names())
def test_every_row_of_every_table_is_a_valid_configuration(table: str, size: str) -> None:
    found = planned(table, size, seeds=2)
    assert list(found.evaluations) == [row.name for row in found.table.rows]
    jobs = found.jobs()
    assert len({job.output(ROOT) for job in jobs}) == len(jobs)
    for place, job in enumerate(jobs):
        assert {need.name for need in job.needs} <= {before.name for before in jobs[:place]}


def test_rows_that_share_a_stage_share_its_run() -> None:
    found = planned("table2")
    assert stages(found, "3-8")["mtd"] != stages(found, "3-1")["mtd"]
    downstream = planned("table3")
    assert stages(found, "3-8")["flow"] == stages(downstream, "full")["flow"]
    assert stages(downstream, "full")["control"] == stages(planned("table1"), "omni-id")["control"]
    # Seven runs of MTD in Table 2, and no more in Table 3 than 1-1 and WebFace's.
    assert sum(job.name.startswith("mtd") for job in found.jobs()) == 7
    assert sum(job.name.startswith("mtd") for job in downstream.jobs()) == 3


def test_the_rows_of_table_2_differ_in_what_the_paper_says() -> None:
    found = planned("table2")
    mtd = {row: config_of(stages(found, row)["mtd"]) for row in found.evaluations if row != "without-mtd"}
    assert {row: (config.data.inputs, config.data.targets) for row, config in mtd.items()} == {
        "3-8": (3, 8), "3-1": (3, 1), "3-1-inputs": (3, 1), "3-5": (3, 5), "8-8": (8, 8),
        "mask-99": (3, 8), "mask-85": (3, 8),
    }  # fmt: skip
    assert mtd["3-1-inputs"].data.targets_from == "inputs"
    ratios = {row: config.decoders.mtd.mask_ratio for row, config in mtd.items() if config.decoders.mtd}
    assert (ratios["mask-99"], ratios["mask-85"], ratios["3-8"]) == (0.99, 0.85, 0.95)
    for row in found.evaluations:
        flow = config_of(stages(found, row)["flow"])
        assert (flow.data.inputs, flow.data.targets) == (3, 8)
    without = config_of(stages(found, "without-mtd")["flow"])
    assert (without.representation.weights, without.representation.clip) == (None, "hub")


def test_the_rows_of_table_3_leave_out_what_the_paper_says() -> None:
    found = planned("table3")
    of_row = {row: stages(found, row) for row in found.evaluations}
    assert {row: set(jobs) for row, jobs in of_row.items()} == {
        "full": {"mtd", "flow", "control", "evaluate"},
        "without-mtd": {"flow", "control", "evaluate"},
        "without-flow": {"mtd", "control", "evaluate"},
        "without-few-to-many": {"mtd", "flow", "control", "evaluate"},
        "webface": {"mtd", "flow", "control", "evaluate"},
    }
    for stage in ("mtd", "flow"):
        data = config_of(of_row["without-few-to-many"][stage]).data
        assert (data.inputs, data.targets, data.targets_from) == (1, 1, "inputs")
        assert config_of(of_row["webface"][stage]).data.root == "/data/webface"
        full = config_of(of_row["full"][stage]).data
        assert (full.root, full.inputs, full.targets, full.targets_from) == ("/data/mfhq", 3, 8, "all")
    for row, jobs in of_row.items():
        config = config_of(jobs["control"])
        assert (config.data.root, config.data.inputs, config.data.targets) == ("/data/mfhq", 3, 8)
        assert config.decoders.control is not None
        adapter = None if row == "without-flow" else str(config_of(jobs["flow"]).output)
        assert str(config.decoders.control.adapter) == str(adapter)
        before = jobs["mtd" if row == "without-flow" else "flow"]
        assert config.representation.weights == f"{config_of(before).output}/encoder"
        assert jobs["evaluate"].settings["inputs"] == [1, 3]
        assert jobs["evaluate"].settings["data"] == "/data/mfhq"


def test_the_tables_hold_the_papers_figures() -> None:
    """Omni-ID, CVPR 2025: Tables 1, 2 and 3, identity similarity and pose error by number of inputs."""
    papers = {
        table: {row.name: row.paper for row in load_table(table).rows if row.paper}
        for table in ("table1", "table2", "table3")
    }
    assert papers["table1"] == {
        "arcface": both((0.515, 0.523, 0.529), (2.4, 2.3, 2.3), (1, 3, 5)),
        "clip": both((0.648, 0.670, 0.680), (2.3, 2.3, 2.2), (1, 3, 5)),
        "arcface-clip": both((0.638, 0.655, 0.663), (2.4, 2.4, 2.3), (1, 3, 5)),
        "omni-id": both((0.708, 0.728, 0.737), (2.1, 2.0, 2.0), (1, 3, 5)),
    }
    similarities = {
        "3-8": (0.683, 0.733), "without-mtd": (0.336, 0.358), "3-1": (0.491, 0.515), "3-5": (0.582, 0.615),
        "8-8": (0.661, 0.696), "mask-99": (0.670, 0.700), "mask-85": (0.609, 0.650),
    }  # fmt: skip
    for row, (one, three) in similarities.items():
        assert papers["table2"][row] == {"similarity": {1: one, 3: three}}
    assert papers["table3"] == {
        "full": both((0.708, 0.728), (2.1, 2.0), (1, 3)),
        "without-mtd": both((0.468, 0.473), (2.8, 3.1), (1, 3)),
        "without-flow": both((0.672, 0.685), (2.4, 2.3), (1, 3)),
        "without-few-to-many": both((0.616, 0.633), (2.3, 2.2), (1, 3)),
        "webface": both((0.678, 0.693), (2.2, 2.1), (1, 3)),
    }


def both(similarity: tuple[float, ...], pose_error: tuple[float, ...], inputs: tuple[int, ...]) -> Any:
    """A row's two figures by number of inputs."""
    return {
        "similarity": dict(zip(inputs, similarity, strict=True)),
        "pose_error": dict(zip(inputs, pose_error, strict=True)),
    }


def test_ablations_change_one_key_of_the_row_of_table_2_whose_runs_they_share() -> None:
    found, table2 = planned("ablations"), planned("table2")
    assert stages(found, "omni-id") == stages(table2, "3-8")
    assert stages(found, "adapter-init")["mtd"] == stages(table2, "3-8")["mtd"]
    mtd = {row: config_of(stages(found, row)["mtd"]) for row in found.evaluations}
    assert [
        row for row, config in mtd.items() if config.decoders.mtd and config.decoders.mtd.tower == "all"
    ] == ["mtd-tower-all"]
    assert [row for row, config in mtd.items() if config.representation.class_token] == ["class-token"]
    flow = {row: config_of(stages(found, row)["flow"]).decoders.flow for row in found.evaluations}
    assert {row: config.adapter_init for row, config in flow.items() if config} == {
        "omni-id": None, "mtd-tower-all": None, "class-token": None, "adapter-init": "small",
    }  # fmt: skip


def test_stages_start_from_those_before_them() -> None:
    jobs = stages(planned("table1"), "omni-id")
    mtd, flow, control = (config_of(jobs[stage]) for stage in ("mtd", "flow", "control"))
    assert flow.representation.weights == f"{mtd.output}/encoder"
    assert control.representation.weights == f"{flow.output}/encoder"
    assert control.representation.frozen
    assert jobs["evaluate"].settings["source"] == str(control.output)
    assert jobs["evaluate"].settings["inputs"] == [1, 3, 5]


def test_figure_9_is_one_run_of_mtd_and_a_flow_run_for_each_of_its_checkpoints() -> None:
    found = planned("figure9")
    jobs = found.jobs()
    (mtd,) = [job for job in jobs if job.name.startswith("mtd") and job.action != EXPORT]
    exports = [job.settings["step"] for job in jobs if job.action == EXPORT]
    assert exports == [12_500, 50_000, 100_000, 150_000, 200_000]
    kept = config_of(mtd).checkpoints.keep_every
    assert kept
    assert not any(step % kept for step in exports)
    assert sum(job.name.startswith("flow") and job.action == "train" for job in jobs) == 7


@pytest.mark.parametrize("size", ["paper", "small", "tiny"])
def test_the_ends_of_figure_9_are_evaluated_in_table_2(size: str) -> None:
    figure, table2 = planned("figure9", size).evaluations, planned("table2", size).evaluations
    assert figure["0"] == table2["without-mtd"]
    assert figure["100"] == table2["3-8"]


def test_seeds_have_runs_of_their_own_and_come_row_by_row() -> None:
    found = planned("table2", "small", seeds=3, rows=["3-8", "3-1"])
    seeds = [job.settings["seed"] for job in found.jobs() if job.action == "train"]
    assert seeds == sorted(seeds)
    assert set(seeds) == {0, 1, 2}
    assert sum(job.action in {"tower", "autoencoder"} for job in found.jobs()) == 2


def test_rows_of_the_small_size_share_one_frozen_transformer_and_its_latents() -> None:
    found = planned("table1", "small", seeds=2)
    (transformer,) = [job for job in found.jobs() if job.action == "transformer"]
    (autoencoder,) = transformer.needs
    assert autoencoder.action == "autoencoder"
    trained = [config_of(job).decoders for job in found.jobs() if job.action == "train"]
    generators = [decoders.control or decoders.flow for decoders in trained if decoders.mtd is None]
    assert len(generators) == 2 * 4 * 2
    root = transformer.output(ROOT).parent.parent
    for generator in generators:
        assert generator is not None
        assert generator.transformer_source == transformer.output(ROOT)
        assert generator.own_vae == str(autoencoder.output(ROOT))
        assert generator.latents == str(root / "latents")


def test_the_directory_of_kept_latents_shapes_no_name() -> None:
    table, size = load_table("table2"), load_size("small")
    one, other = (
        [job.name for job in plan(table, size, seeds=1, root=Path(root), datasets=DATA).jobs()]
        for root in ("/a", "/b")
    )
    assert one == other


def test_the_directory_of_weights_shapes_no_name() -> None:
    one, other = (planned("table1", models_dir=Path(place)) for place in ("/a", "/b"))
    assert [job.name for job in one.jobs()] == [job.name for job in other.jobs()]
    flow = config_of(stages(one, "arcface")["flow"])
    assert str(flow.representation.models_dir) == "/a"
    assert stages(one, "arcface")["evaluate"].settings["models_dir"] == "/a"


def test_the_small_size_measures_by_more_networks_where_their_files_are_given() -> None:
    without, given = (
        stages(planned("table1", "small", models_dir=place), "omni-id")["evaluate"]
        for place in (None, Path("/a"))
    )
    assert (without.settings["profile"], without.settings["networks"]) == ("embedded", ["sface"])
    assert given.settings["networks"] == ["mobilefacenet", "sface"]
    # Figures of different networks never stand in one table.
    assert without.name != given.name
    paper = stages(planned("table1", models_dir=Path("/a")), "omni-id")["evaluate"]
    assert (paper.settings["profile"], paper.settings["networks"]) == ("paper", [])


def test_missing_files_of_the_measuring_networks_are_named_before_anything_runs(tmp_path: Path) -> None:
    lines: list[str] = []
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset.json").write_text("{}")
    data = [str(tmp_path / "data")]
    options = Options(rows=("3-8",), models_dir=tmp_path)
    with pytest.raises(TrainingError, match=r"arcface_r50: w600k_r50\.onnx is missing"):
        run_experiment(
            "table2", "paper", data, tmp_path / "out", options, message=lines.append, result=lines.append
        )
    assert not (tmp_path / "out").exists()
    only_list = replace(options, only_list=True)
    run_experiment(
        "table2", "paper", data, tmp_path / "out", only_list, message=lines.append, result=lines.append
    )
    assert sum(line.startswith("open  ") for line in lines) == 3


def test_rows_whose_dataset_is_not_given_are_left_out_and_named(tmp_path: Path) -> None:
    lines: list[str] = []
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset.json").write_text("{}")

    def listed(*rows: str) -> None:
        options = Options(rows=rows, only_list=True)
        data = [str(tmp_path / "data")]
        run_experiment("table3", "paper", data, tmp_path, options, message=lines.append, result=lines.append)

    listed()
    (remark,) = [line for line in lines if line.startswith("not in the table: ")]
    assert "row webface needs the dataset 'webface'. Pass --data webface=DATASET" in remark
    assert sum(line.startswith("open  evaluate") for line in lines) == 4
    with pytest.raises(ConfigError, match="row webface needs the dataset 'webface'"):
        listed("webface")


@pytest.mark.parametrize(
    ("data", "output", "models_dir", "expected"),
    [
        ("webface={}", "out", None, "--data: give the dataset of the experiment too, without a name"),
        ("{}", "file", None, "--output: .*file is not a directory"),
        ("{}", "out", "none", "--models-dir: there is no directory .*none"),
    ],
)
def test_arguments_that_cannot_be_used_are_named(
    tmp_path: Path, data: str, output: str, models_dir: str | None, expected: str
) -> None:
    (tmp_path / "file").touch()
    options = Options(models_dir=models_dir and tmp_path / models_dir)
    with pytest.raises(ConfigError, match=expected):
        run_experiment(
            "table2", "tiny", [data.format(tmp_path)], tmp_path / output, options, message=print, result=print
        )


@pytest.mark.parametrize(
    ("people", "expected"), [(0, "holds no people out"), (1, "leaves 1 held-out person")]
)
def test_a_dataset_without_enough_held_out_people_is_an_error_before_anything_runs(
    tmp_path: Path, people: int, expected: str
) -> None:
    samples = [factory.sample(f"held-{number}_0", Split.TEST) for number in range(people)]
    samples += [factory.sample("train-0_0", Split.TRAIN)]
    limits = factory.ShardLimits(max_samples=5)
    write_dataset(tmp_path / "data", samples, factory.videos(samples), factory.PROVENANCE, limits)
    with pytest.raises(TrainingError, match=expected):
        run_experiment(
            "table2",
            "tiny",
            [str(tmp_path / "data")],
            tmp_path / "out",
            Options(),
            message=print,
            result=print,
        )
    assert not (tmp_path / "out").exists()


def test_a_dataset_that_changed_has_jobs_of_its_own_and_one_that_moved_does_not() -> None:
    names = [
        [job.name for job in planned("table2", rows=["3-8"], digests={"dataset": digest}).jobs()]
        for digest in ("a", "b")
    ]
    assert not set(names[0]) & set(names[1])
    moved = plan(
        load_table("table2"),
        load_size("paper"),
        seeds=1,
        root=ROOT,
        datasets={"dataset": "/elsewhere"},
        digests={"dataset": "a"},
        rows=["3-8"],
    )
    assert [job.name for job in moved.jobs()] == names[0]


def test_mistakes_are_named_before_anything_runs() -> None:
    kept = {"decoders": {"flow": {"latents": "${latents@20%}"}}}
    with pytest.raises(ConfigError, match="row one: it needs a stage 'latents'"):
        _planned_row({"mtd": {}, "flow": kept}, load_size("small"))
    with pytest.raises(ConfigError, match=r"no experiment 'table9'\. Choose from ablations, figure9, table1"):
        load_table("table9")
    with pytest.raises(ConfigError, match="no size 'huge'"):
        load_size("huge")
    with pytest.raises(ConfigError, match="table2 has no row '3-9'"):
        planned("table2", rows=["3-9"])
    with pytest.raises(
        ConfigError, match=r"row webface needs the dataset 'webface'\. Pass --data webface=DATA"
    ):
        plan(load_table("table3"), load_size("paper"), seeds=1, root=ROOT, datasets={"dataset": "/data"})
    size = Size(
        stages={"flow": Stage(workflow=workflow("flow"), overrides={"representation": {"weights": "${mtd}"}})}
    )
    with pytest.raises(ConfigError, match="row one: it needs a stage 'mtd'"):
        _planned_row({"flow": {}}, size)
    with pytest.raises(ConfigError, match=r"row one, stage mtd: .*masks: Extra inputs"):
        _planned_row({"mtd": {"masks": 1}}, Size(stages={"mtd": Stage(workflow=workflow("mtd"))}))
    with pytest.raises(ConfigError, match="7% of the steps of mtd is step 112, whose checkpoint is not kept"):
        _planned_row(
            {"mtd": {}, "flow": {"representation": {"weights": "${mtd@7%}/encoder"}}}, load_size("small")
        )


def _planned_row(stages: dict[str, Any], size: Size) -> Plan:
    row = Row(name="one", label="one", stages=stages)
    table = Table(name="own", title="own", inputs=(1,), figures=("similarity",), rows=(row,))
    return plan(table, size, seeds=1, root=ROOT, datasets=DATA)


def workflow(stage: str) -> str:
    return str(Path(load_size("small").stages[stage].workflow or ""))


TREES = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
MAPPINGS = st.dictionaries(st.sampled_from("abc"), TREES, max_size=3)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(MAPPINGS, MAPPINGS)
def test_changes_are_in_the_merged_tree_and_nothing_else_changes(
    base: dict[str, Any], changes: dict[str, Any]
) -> None:
    found = merged(base, changes)
    assert merged(found, changes) == found
    assert merged(base, {}) == base
    for key in base.keys() - changes.keys():
        assert found[key] == base[key]
    for key, value in changes.items():
        if not isinstance(value, dict):
            assert found[key] == value
