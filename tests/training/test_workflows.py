"""The shipped workflows are valid, and those of the paper have the paper's numbers."""

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


def test_each_size_has_a_workflow() -> None:
    for stage, sizes in (
        ("control", ["paper", "tiny"]),
        ("flow", ["paper", "tiny"]),
        ("mtd", ["paper", "small", "tiny"]),
    ):
        names = [path.stem for path in WORKFLOWS if path.stem.startswith(f"train_{stage}_")]
        assert names == [f"train_{stage}_{size}" for size in sizes]
        assert [load(name).representation.size for name in names] == sizes
        assert {name for each in names for name, _ in load(each).decoders.chosen()} == {stage}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_needs_only_dataset_and_output(path: Path) -> None:
    config = load(path.stem)
    assert (config.data.root, config.output) == ("/data/mfhq", Path("/data/run"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_shows_the_command_that_starts_it(path: Path) -> None:
    comments = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(f"workflows/{path.name} data.root=" in line for line in comments)


def test_the_papers_numbers() -> None:
    config = load("train_mtd_paper")
    assert (config.steps, config.decoders.mtd.mask_ratio) == (250_000, 0.95)
    assert (config.data.inputs, config.data.targets) == (3, 8)
    assert config.representation.clip == "hub"


def test_the_papers_numbers_of_flow_matching() -> None:
    config = load("train_flow_paper")
    flow = config.decoders.flow
    assert (config.steps, flow.prompt) == (10_000, "photo of a person.")
    assert (config.data.inputs, config.data.targets) == (3, 8)
    assert (flow.base, flow.timesteps) == ("black-forest-labs/FLUX.1-dev", "uniform")
    assert flow.revision
    assert config.representation.weights
    assert not config.representation.frozen


@pytest.mark.parametrize("name", ["train_mtd_paper", "train_mtd_small", "train_flow_paper"])
@pytest.mark.parametrize("processes", [*USUAL_GPUS, 16])
def test_usual_numbers_of_gpus_divide_the_batch(processes: int, name: str) -> None:
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
    files = [ROOT / "README.md", ROOT / "docs" / "training.md", *WORKFLOWS, *sorted(LAUNCH.iterdir())]
    files += [ROOT / "training" / name for name in ("train.py", "cli/train.py")]
    for path in files:
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


def test_all_documents_with_commands_are_searched() -> None:
    files = [file for file, _, _ in COMMANDS]
    assert files.count("README.md") >= 4
    assert set(files) >= {f"workflows/{path.name}" for path in WORKFLOWS}
    assert {word for file, words, _ in COMMANDS if file == "README.md" for word in words[:1]} >= {
        "sbatch",
        "torchrun",
        "omniid",
        "workflows/launch/one_machine.sh",
    }


@pytest.mark.parametrize(
    ("file", "words", "counts"),
    COMMANDS,
    ids=[f"{file}: {' '.join(words)}" for file, words, _ in COMMANDS],
)
def test_a_shown_command_is_valid_on_its_number_of_ranks(
    file: str, words: list[str], counts: list[int]
) -> None:
    (workflow,) = [word for word in words if re.fullmatch(r"workflows/train_\w+\.yaml", word)]
    given = [word for word in words if re.match(r"[a-z_]+(\.[a-z_]+)*=", word)]
    absent = [
        word for word in ("data.root=/data", "output=/run") if word.split("=")[0] not in " ".join(given)
    ]
    config = load_workflow(ROOT / workflow, [*given, *absent], Config)
    for processes in counts:
        Share(config.batch, config.run.per_process, rank=0, world_size=processes)


def test_the_batch_of_the_demo_fits_its_dataset() -> None:
    config = load("train_mtd_tiny")
    assert config.batch <= 8
    assert (config.representation.size, config.representation.clip) == ("tiny", "random")
