"""The workflows that are shipped can be used as they are, and the paper's is the paper's."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from settings.loading import load_workflow
from training.config import Config
from training.data.order import Share

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / "workflows").glob("train_*.yaml"))
LAUNCH = ROOT / "workflows" / "launch"
USUAL_GPUS = (1, 2, 4, 8)
"""Of a machine."""
STARTS = r"sbatch|torchrun|omniid train|workflows/launch/one_machine\.sh"
SHOWN = re.compile(rf"^[# ]*(?:Example: )?((?:{STARTS}) .*train_.*)$", re.M)
"""A command in a text, in a comment or indented."""


def load(name: str) -> Config:
    (path,) = (path for path in WORKFLOWS if path.stem == name)
    return load_workflow(path, ["data.root=/data/mfhq", "output=/data/run"], Config)


def test_there_is_one_for_each_size() -> None:
    for stage, sizes in (("flow", ["paper", "tiny"]), ("mtd", ["paper", "small", "tiny"])):
        names = [path.stem for path in WORKFLOWS if path.stem.startswith(f"train_{stage}_")]
        assert names == [f"train_{stage}_{size}" for size in sizes]
        assert [load(name).model.size for name in names] == sizes
        assert {load(name).stage for name in names} == {stage}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_needs_nothing_but_data_set_and_output(path: Path) -> None:
    config = load(path.stem)
    assert (config.data.root, config.output) == ("/data/mfhq", Path("/data/run"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_says_how_it_is_started(path: Path) -> None:
    comments = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(f"workflows/{path.name} data.root=" in line for line in comments)


def test_the_papers_numbers() -> None:
    config = load("train_mtd_paper")
    assert (config.steps, config.mtd.mask_ratio) == (250_000, 0.95)
    assert (config.data.inputs, config.data.targets) == (3, 8)
    assert config.model.clip == "hub"


def test_the_papers_numbers_of_the_second_stage() -> None:
    config = load("train_flow_paper")
    assert (config.steps, config.flow.prompt) == (10_000, "photo of a person.")
    assert (config.data.inputs, config.data.targets) == (3, 8)
    assert (config.flow.base, config.flow.timesteps) == ("black-forest-labs/FLUX.1-dev", "uniform")
    assert config.flow.revision
    assert config.model.clip == "encoder"


@pytest.mark.parametrize("name", ["train_mtd_paper", "train_mtd_small", "train_flow_paper"])
@pytest.mark.parametrize("processes", [*USUAL_GPUS, 16])
def test_a_batch_can_be_cut_for_usual_numbers_of_gpus(processes: int, name: str) -> None:
    config = load(name)
    Share(config.batch, config.run.per_process, rank=0, world_size=processes)


def options(words: list[str], **defaults: int) -> dict[str, int]:
    """The numbers that a command gives for some options, or else the defaults: `--nodes=2` or `--nodes 2`."""
    line = " ".join(words)
    found = {name: re.search(rf"--{name.replace('_', '-')}[= ](\d+)", line) for name in defaults}
    return {name: int(match[1]) if match else defaults[name] for name, match in found.items()}


def sbatch_defaults() -> dict[str, int]:
    lines = re.findall(
        r"^#SBATCH --(nodes|gpus-per-node)=(\d+)$", (LAUNCH / "slurm.sbatch").read_text(), re.M
    )
    return {name.replace("-", "_"): int(value) for name, value in lines}


def processes_of(words: list[str]) -> list[int]:
    """How many processes a command may start."""
    if words[0] == "sbatch":
        given = options(words, **sbatch_defaults())
        return [given["nodes"] * given["gpus_per_node"]]
    if words[0] == "torchrun":
        given = options(words, nnodes=1, nproc_per_node=1)
        return [given["nnodes"] * given["nproc_per_node"]]
    return [1] if words[0] == "omniid" else list(USUAL_GPUS)


def commands() -> list[tuple[str, list[str], list[int]]]:
    """Every command to train with that the documentation shows: where, its words, its numbers of processes."""
    found = []
    places = [ROOT / "README.md", *WORKFLOWS, *sorted(LAUNCH.iterdir())]
    places += [ROOT / "training" / name for name in ("train.py", "cli.py")]
    for path in places:
        text = re.sub(r"\\\n[# ]*", "", path.read_text())
        for line in SHOWN.findall(text):
            words = shlex.split(line, comments=True)
            found.append((str(path.relative_to(ROOT)), words, processes_of(words)))
    job = next(
        document
        for document in yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text())
        if document["kind"] == "Job"
    )
    (container,) = job["spec"]["template"]["spec"]["containers"]
    numbers = {entry["name"]: entry["value"] for entry in container["env"]}
    machines, each = int(numbers["NODES"]), int(numbers["NPROC"])
    return [*found, ("workflows/launch/kubernetes.yaml", container["args"], [machines * each])]


COMMANDS = commands()


def test_commands_are_found_wherever_they_are_shown() -> None:
    places = [place for place, _, _ in COMMANDS]
    assert places.count("README.md") >= 4
    assert set(places) >= {f"workflows/{path.name}" for path in WORKFLOWS}
    assert {word for place, words, _ in COMMANDS if place == "README.md" for word in words[:1]} >= {
        "sbatch",
        "torchrun",
        "omniid",
        "workflows/launch/one_machine.sh",
    }


@pytest.mark.parametrize(
    ("place", "words", "counts"),
    COMMANDS,
    ids=[f"{place}: {' '.join(words)}" for place, words, _ in COMMANDS],
)
def test_a_command_that_is_shown_can_be_run_on_what_it_starts(
    place: str, words: list[str], counts: list[int]
) -> None:
    (workflow,) = [word for word in words if re.fullmatch(r"workflows/train_\w+\.yaml", word)]
    given = [word for word in words if re.match(r"[a-z_]+(\.[a-z_]+)*=", word)]
    absent = [
        word for word in ("data.root=/data", "output=/run") if word.split("=")[0] not in " ".join(given)
    ]
    config = load_workflow(ROOT / workflow, [*given, *absent], Config)
    for processes in counts:
        Share(config.batch, config.run.per_process, rank=0, world_size=processes)


def test_the_demo_can_be_trained_on_the_few_identities_that_the_demo_builds() -> None:
    config = load("train_mtd_tiny")
    assert config.batch <= 8
    assert (config.model.size, config.model.clip) == ("tiny", "random")
