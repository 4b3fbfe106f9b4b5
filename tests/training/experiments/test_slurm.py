"""Jobs go to Slurm with their dependencies; sbatch is a script that writes down what it is called with."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pytest
import yaml

from settings.section import ConfigError
from training.errors import TrainingError
from training.experiments.command import Options, run_experiment
from training.experiments.commands import REPOSITORY
from training.experiments.plan import EVALUATE, EXPORT, Job
from training.experiments.slurm import submit

SBATCH = """\
#!{python}
import json, sys
from pathlib import Path
calls = Path({calls!r})
known = json.loads(calls.read_text()) if calls.exists() else []
if any("broken" in word for word in sys.argv):
    sys.exit("sbatch: error: invalid partition")
calls.write_text(json.dumps([*known, sys.argv[1:]]))
print(f"{{100 + len(known)}};cluster")
"""
TOWER = Job("tower-0", "tower", {"data": "/data", "size": "tiny", "seed": 0})
TRAINED = Job("mtd-0", "train", {"output": "/out"}, (TOWER,))
EXPORTED = Job("mtd-0-step4", EXPORT, {"run": "/out", "step": 4}, (TRAINED,))
EVALUATED = Job(
    "flow-0", EVALUATE, {"source": "/out", "data": "/data", "inputs": [1], "networks": []}, (TRAINED,)
)


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "bin" / "sbatch"
    program.parent.mkdir()
    program.write_text(SBATCH.format(python=sys.executable, calls=str(tmp_path / "calls.json")))
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return tmp_path / "calls.json"


def test_jobs_wait_for_those_that_they_need_and_for_others_of_their_name(calls: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    submit([TOWER, TRAINED, EXPORTED, EVALUATED], tmp_path, ["--nodes", "2", "--time=1:00"], lines.append)
    assert lines[1] == "train mtd-0: Slurm job 101"
    lines_of = {call[1].removeprefix("--job-name="): call for call in json.loads(calls.read_text())}
    dependencies = {
        name: next(word for word in call if word.startswith("--dependency="))
        for name, call in lines_of.items()
    }
    assert dependencies == {
        "tower-0": "--dependency=singleton",
        "mtd-0": "--dependency=afterok:100,singleton",
        "mtd-0-step4": "--dependency=afterok:101,singleton",
        "flow-0": "--dependency=afterok:101,singleton",
    }
    launch = REPOSITORY / "workflows" / "launch"
    train = lines_of["mtd-0"]
    assert train[-2:] == [str(launch / "slurm.sbatch"), str(tmp_path / "workflows" / "mtd-0.yaml")]
    assert train[train.index("--nodes") : -2] == ["--nodes", "2", "--time=1:00"]
    # A batch job may find what an interrupted one of the same name has left.
    tower = lines_of["tower-0"]
    begun = [str(TOWER.output(tmp_path)), "--continue"]
    assert tower[tower.index("training.experiments.tower") + 2 :][:2] == begun
    export = lines_of["mtd-0-step4"]
    script = export.index(str(launch / "slurm_command.sbatch"))
    # The last number of nodes counts.
    assert export[script - 1] == "--nodes=1"
    assert export[script + 1 : script + 4] == ["training.cli", "export", "/out"]


def test_a_micro_batch_fits_the_ranks_that_a_training_gets(calls: Path, tmp_path: Path) -> None:
    settings = {
        "output": "/out",
        "data": {"root": "/data"},
        "representation": {"size": "tiny"},
        "decoders": {"mtd": {}},
        "batch": 16,
        "run": {"per_process": 16},
    }
    submit([Job("mtd-0", "train", settings)], tmp_path, ["--nodes=2"], lambda _: None, ranks=8)
    (call,) = json.loads(calls.read_text())
    assert yaml.safe_load(Path(call[-1]).read_text())["run"]["per_process"] == 2


def test_the_gpus_of_the_machine_that_submits_are_not_those_of_a_training(tmp_path: Path) -> None:
    options = Options(slurm="--nodes=2", processes="gpu")
    with pytest.raises(
        ConfigError, match=r"--processes: gpu counts this machine's. With --slurm, pass the ranks"
    ):
        run_experiment("table2", "paper", ["/data"], tmp_path, options, message=print, result=print)


def test_a_table_of_what_is_done_submits_nothing(calls: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset.json").write_text("{}")
    options = Options(slurm="--nodes=2", only_table=True)
    tables: list[str] = []
    run_experiment(
        "ablations", "tiny", [str(tmp_path / "data")], tmp_path, options, message=print, result=tables.append
    )
    assert not calls.exists()
    assert "| defaults | 0 of 1 |" in tables[0]


def test_what_is_done_is_not_submitted(calls: Path, tmp_path: Path) -> None:
    TOWER.output(tmp_path).mkdir(parents=True)
    (TOWER.output(tmp_path) / "tower.safetensors").touch()
    submit([TOWER, TRAINED], tmp_path, [], lambda _: None)
    (call,) = json.loads(calls.read_text())
    assert "--dependency=singleton" in call


def test_a_job_that_is_rejected_is_named_with_its_command(calls: Path, tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"sbatch rejected a job: sbatch: error: invalid partition.*broken"
    ):
        submit([TOWER], tmp_path, ["--partition=broken"], lambda _: None)
    assert not calls.exists()


def test_a_machine_without_slurm_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TrainingError, match="sbatch is not on the PATH"):
        submit([TOWER], tmp_path, [], lambda _: None)
