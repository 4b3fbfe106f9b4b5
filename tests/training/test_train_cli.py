"""The command line: help is fast, errors name cause and remedy, and a dry run writes nothing."""

from __future__ import annotations

import json
import os
import re
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

from tiny_models import TINY, mtd_model  # noqa: E402
from trainers import Run, make_dataset  # noqa: E402

from training.engine.dry_run import _check_room  # noqa: E402
from training.errors import TrainingError  # noqa: E402

SCRIPTS = Path(sys.executable).parent
ENTRY = ROOT / "training" / "train.py"
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


def test_help_shows_examples_and_does_not_import_torch() -> None:
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


def test_a_mistyped_key_is_named_at_once_and_under_torchrun_once_per_machine(tmp_path: Path) -> None:
    run = Run(tmp_path, "nowhere", "optimiser.learning_rte=1")
    result = omniid("train", *run.arguments)
    assert result.returncode == 1
    assert "optimiser.learning_rte: no such key; did you mean optimiser.learning_rate?" in result.stderr
    assert "Traceback" not in result.stderr
    assert "no such key" in run.refused(2)  # printed by one of two ranks


def test_a_missing_workflow_is_named(tmp_path: Path) -> None:
    result = omniid("train", tmp_path / "none.yaml")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: cannot read the workflow {tmp_path / 'none.yaml'}")


def test_the_message_is_in_torchrun_s_summary(tmp_path: Path) -> None:
    report = tmp_path / "error.json"
    omniid("train", tmp_path / "none.yaml", TORCHELASTIC_ERROR_FILE=str(report))
    assert json.loads(report.read_text())["message"].startswith("cannot read the workflow")


def test_a_summary_that_cannot_be_written_does_not_hide_the_message(tmp_path: Path) -> None:
    result = omniid("train", tmp_path / "none.yaml", TORCHELASTIC_ERROR_FILE=str(tmp_path / "no" / "folder"))
    assert result.returncode == 1
    assert "cannot read the workflow" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_dry_run_prints_sizes_and_writes_nothing(dataset: Path, tmp_path: Path) -> None:
    run = Run(
        tmp_path, dataset, "run.per_process=1", "run.strategy=fsdp", f"run.cache.folder={tmp_path / 'kept'}"
    )
    printed = run.ended(2, "--dry-run").log(0)

    assert "2 ranks, fsdp, fp32, run.per_process=1, 2 micro-batches of each rank a step: batch 4" in printed
    assert "11 training identities: 2.8 steps an epoch, 10 steps are 3.6 epochs" in printed
    counts = {
        line.split()[0]: int(line.split()[1].replace(",", ""))
        for line in printed.splitlines()
        if line.startswith(("  representation.", "  decoders.", "  total"))
    }
    total = counts.pop("total")
    expected = sum(weight.numel() for weight in mtd_model().parameters())
    assert total == sum(counts.values()) == expected
    assert counts["representation.query_LD"] == TINY.queries * TINY.width
    megabytes = total * 4 / 1e6
    assert f"ddp  {5 * megabytes:.1f} MB: weights {megabytes:.1f} MB" in printed
    assert f"fsdp {5 * megabytes / 2:.1f} MB: weights {megabytes / 2:.1f} MB" in printed
    assert f"optimiser {megabytes:.1f} MB, EMA {megabytes / 2:.1f} MB (chosen)" in printed
    assert f"checkpoints: {4 * megabytes:.1f} MB each" in printed
    assert "step 1: loss 0." in printed
    assert "step 2: loss 0." in printed
    assert re.search(
        r"^validation: loss_own 0\.\d+, loss_one_input 0\.\d+, loss_swapped 0\.\d+$", printed, re.M
    )
    assert f"nothing was written into {run.output}; {tmp_path / 'kept'} keeps the samples" in printed
    assert not run.output.exists()


def test_a_dry_run_prints_sizes_before_it_needs_weights(dataset: Path, tmp_path: Path) -> None:
    workflow = ROOT / "workflows" / "train_mtd_small.yaml"
    clip = tmp_path / "none.bin"
    paths = (f"data.root={dataset}", f"output={tmp_path / 'run'}", f"representation.clip={clip}")
    result = omniid("train", workflow, *paths, "batch=4", "run.per_process=4", "--dry-run")
    assert result.returncode == 1
    assert "  total " in result.stderr
    assert "11 training identities: 2.8 steps an epoch" in result.stderr
    assert f"error: representation.clip: there is no file {clip}" in result.stderr.splitlines()[-1]


def test_a_dry_run_prints_sizes_before_an_error_of_the_batch(dataset: Path, tmp_path: Path) -> None:
    # By its batch of 256, or by the memory of this machine.
    workflow = ROOT / "workflows" / "train_mtd_paper.yaml"
    result = omniid("train", workflow, f"data.root={dataset}", f"output={tmp_path / 'run'}", "--dry-run")
    assert result.returncode == 1
    assert "  total                      1,420,376,908" in result.stderr
    assert "  fsdp 28.41 GB: weights 5.68 GB" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: ")


def test_steps_that_do_not_fit_into_memory_are_not_taken() -> None:
    _check_room(1e6, torch.device("cpu"))
    with pytest.raises(TrainingError, match=r"a rank needs 1,000,000.00 GB and this machine has .*fsdp"):
        _check_room(1e15, torch.device("cpu"))


@pytest.mark.slow
def test_a_killed_torchrun_resumes_bit_for_bit(dataset: Path, tmp_path: Path) -> None:
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
    assert "resuming from step" in (tmp_path / "log").read_text()
    assert run.lines() == undisturbed.lines()
    assert run.encoder() == undisturbed.encoder()
