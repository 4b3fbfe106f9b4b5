"""The command line helps at once, says what is wrong in words, and rehearses without leaving a trace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "training" / "engine"))

from trainers import Run, make_dataset  # noqa: E402

from training.config import Mtd  # noqa: E402
from training.engine.rehearsal import _check_room  # noqa: E402
from training.errors import TrainingError  # noqa: E402
from training.models.mtd import MtdStage  # noqa: E402
from training.models.sizes import SIZES  # noqa: E402

SCRIPTS = Path(sys.executable).parent
ENTRY = ROOT / "training" / "train.py"
TINY = SIZES["tiny"]
HEAVY = ("torch", "open_clip", "tensorboard", "obstore")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "mfhq")


def omniid(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPTS / "omniid", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1"} | environment,
    )


def test_help_says_how_to_start_and_imports_nothing_heavy() -> None:
    check = (
        "import sys\nfrom typer.testing import CliRunner\nfrom training.cli import app\n"
        "found = CliRunner().invoke(app, ['train', '--help'], env={'COLUMNS': '200'})\n"
        "print(found.stdout)\n"
        f"assert not [name for name in {HEAVY} if name in sys.modules], sys.modules.keys()"
    )
    result = subprocess.run([sys.executable, "-c", check], check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for promised in (
        "torchrun",
        "--dry-run",
        "metrics.jsonl",
        "Exit code 0",
        "Exit code 1",
        "run.per_process=4",
        "training/config.py",
    ):
        assert promised in result.stdout


def test_a_mistyped_key_is_named_at_once_and_in_torchrun_once_a_machine(tmp_path: Path) -> None:
    run = Run(tmp_path, "nowhere", "optimiser.learning_rte=1")
    result = omniid("train", *run.arguments)
    assert result.returncode == 1
    assert "optimiser.learning_rte: no such key; did you mean optimiser.learning_rate?" in result.stderr
    assert "Traceback" not in result.stderr
    assert "no such key" in run.refused(2)  # said by one of two processes


def test_a_missing_workflow_is_named(tmp_path: Path) -> None:
    result = omniid("train", tmp_path / "none.yaml")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: cannot read the workflow {tmp_path / 'none.yaml'}")


def test_the_message_reaches_the_summary_that_torchrun_prints_last(tmp_path: Path) -> None:
    told = tmp_path / "error.json"
    omniid("train", tmp_path / "none.yaml", TORCHELASTIC_ERROR_FILE=str(told))
    assert json.loads(told.read_text())["message"].startswith("cannot read the workflow")


def test_a_summary_that_cannot_be_written_does_not_hide_the_message(tmp_path: Path) -> None:
    result = omniid("train", tmp_path / "none.yaml", TORCHELASTIC_ERROR_FILE=str(tmp_path / "no" / "folder"))
    assert result.returncode == 1
    assert "cannot read the workflow" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_dry_run_says_what_a_run_will_be_and_writes_nothing(dataset: Path, tmp_path: Path) -> None:
    run = Run(
        tmp_path, dataset, "run.per_process=1", "run.strategy=fsdp", f"run.cache.folder={tmp_path / 'kept'}"
    )
    said = run.ended(2, "--dry-run").log(0)

    assert "2 processes, fsdp, fp32, 1 identities each at once, 2 micro-batches a step: a batch of 4" in said
    assert "11 training identities: 2.8 steps an epoch, 10 steps are 3.6 epochs" in said
    counts = {
        line.split()[0]: int(line.split()[1].replace(",", ""))
        for line in said.splitlines()
        if line.startswith(("  encoder.", "  decoder.", "  together"))
    }
    together = counts.pop("together")
    assert (
        together
        == sum(counts.values())
        == sum(weight.numel() for weight in MtdStage(TINY, Mtd()).parameters())
    )
    assert counts["encoder.query_LD"] == TINY.queries * TINY.width
    megabytes = together * 4 / 1e6
    assert f"ddp  {5 * megabytes:.1f} MB: weights {megabytes:.1f} MB" in said
    assert f"fsdp {5 * megabytes / 2:.1f} MB: weights {megabytes / 2:.1f} MB" in said
    assert f"optimiser {megabytes:.1f} MB, average {megabytes / 2:.1f} MB (chosen)" in said
    assert f"checkpoints: {4 * megabytes:.1f} MB each" in said
    assert "step 1: loss 0." in said
    assert "step 2: loss 0." in said
    assert f"nothing was written into {run.output}; {tmp_path / 'kept'} keeps the samples" in said
    assert not run.output.exists()


def test_a_dry_run_says_how_large_a_run_is_before_its_weights_are_looked_for(
    dataset: Path, tmp_path: Path
) -> None:
    workflow = ROOT / "workflows" / "train_mtd_small.yaml"
    places = (f"data.root={dataset}", f"output={tmp_path / 'run'}", f"model.clip={tmp_path / 'none.bin'}")
    result = omniid("train", workflow, *places, "batch=4", "run.per_process=4", "--dry-run")
    assert result.returncode == 1
    assert "  together " in result.stderr
    assert "11 training identities: 2.8 steps an epoch" in result.stderr
    assert f"error: model.clip: there is no file {tmp_path / 'none.bin'}" in result.stderr.splitlines()[-1]


def test_a_dry_run_says_how_large_a_run_is_before_it_is_refused(dataset: Path, tmp_path: Path) -> None:
    # By its batch of 256, or by the memory of this machine.
    workflow = ROOT / "workflows" / "train_mtd_paper.yaml"
    result = omniid("train", workflow, f"data.root={dataset}", f"output={tmp_path / 'run'}", "--dry-run")
    assert result.returncode == 1
    assert "  together                   1,420,376,908" in result.stderr
    assert "  fsdp 28.41 GB: weights 5.68 GB" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: ")


def test_steps_that_do_not_fit_into_memory_are_not_taken() -> None:
    _check_room(1e6, torch.device("cpu"))
    with pytest.raises(TrainingError, match=r"a process needs 1,000,000.00 GB and this machine has .*fsdp"):
        _check_room(1e15, torch.device("cpu"))


@pytest.mark.slow
def test_torchrun_killed_with_all_its_processes_goes_on_to_the_same_bits(
    dataset: Path, tmp_path: Path
) -> None:
    undisturbed = Run(tmp_path / "undisturbed", dataset)
    undisturbed.ended(2)
    run = Run(tmp_path / "run", dataset)
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
        *(str(ENTRY), *run.arguments),
    ]
    with (tmp_path / "log").open("wb") as log:
        torchrun = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 240
        while run.steps() < 5:
            assert torchrun.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        trainers = psutil.Process(torchrun.pid).children(recursive=True)
        os.killpg(torchrun.pid, signal.SIGKILL)
        torchrun.wait()
        for trainer in trainers:
            trainer.kill()
        psutil.wait_procs(trainers)
        assert run.steps() < 10

        again = subprocess.run(command, check=False, cwd=ROOT, stdout=log, stderr=log, timeout=240)
    assert again.returncode == 0, (tmp_path / "log").read_text()
    assert "going on from step" in (tmp_path / "log").read_text()
    assert run.lines() == undisturbed.lines()
    assert run.encoder() == undisturbed.encoder()
