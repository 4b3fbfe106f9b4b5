"""Weights & Biases gets what metrics.jsonl gets, offline, and neither its absence nor its faults end a run."""

from __future__ import annotations

import io
import json
import math
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image
from rich.console import Console
from tiny_models import mtd_config
from trainers import Run, each_of
from wandb_files import read_offline_runs
from wandb_server import wandb_server

from training.config import Config
from training.engine import tracking
from training.engine.jsonl import read_metrics
from training.engine.metrics import MetricsWriter
from training.engine.tracking import ID_FILE, WandbTracker, load_wandb, without_credentials
from training.errors import TrainingError

PROJECT = "run.wandb.project=omniid-tests"
OFFLINE = (PROJECT, "run.wandb.mode=offline")


@pytest.fixture
def wandb() -> Iterator[Any]:
    package = pytest.importorskip("wandb", reason="needs omniid[tracking]")
    package.teardown()  # it reads the environment once
    yield package
    with suppress(Exception):  # its service was killed
        package.teardown()


def config(output: Path, **changes: Any) -> Config:
    settings = {"project": "omniid-tests", "mode": "offline"} | changes
    return mtd_config(output=str(output), run={"wandb": settings})


def figures(line: dict[str, Any]) -> dict[str, float]:
    """Those of the trainer in a line of history."""
    return {name: float(value) for name, value in line.items() if not name.startswith(("_", "samples"))}


@pytest.mark.usefixtures("wandb")
@pytest.mark.slow
def test_a_resumed_run_sends_all_figures_and_grids_under_one_id(dataset: Path, tmp_path: Path) -> None:
    run = Run(tmp_path, dataset, *OFFLINE)
    run.stopped(2, 3)
    run.ended(2)
    starts = read_offline_runs(run.output)
    assert len(starts) == 2
    assert {start.run_id for start in starts} == {(run.output / ID_FILE).read_text()}
    assert {start.project for start in starts} == {"omniid-tests"}
    assert [start.exit_code for start in starts] == [0, 0]
    sent = [figures(line) for start in starts for line in start.history if "samples/path" not in line]
    assert sent == read_metrics(run.output / "metrics.jsonl")

    grids = [line for start in starts for line in start.history if "samples/path" in line]
    assert [line["step"] for line in grids] == [5, 10]
    for line in grids:
        (stored,) = run.output.glob(f"wandb/offline-run-*/files/{line['samples/path']}")
        own = run.output / "samples" / f"step-{line['step']:09}.png"
        assert np.array_equal(np.asarray(Image.open(stored)), np.asarray(Image.open(own)))


@pytest.mark.usefixtures("wandb")
def test_nothing_is_sent_but_figures_grids_and_the_configuration(dataset: Path, tmp_path: Path) -> None:
    run = Run(tmp_path, dataset, *OFFLINE, "steps=1", "optimiser.warmup_steps=0")
    run.ended(1)
    (found,) = read_offline_runs(run.output)
    assert found.config["steps"] == 1
    assert found.config["decoders"]["mtd"]["mask_ratio"] == 0.95
    assert found.kinds <= {"header", "run", "history", "summary", "metric", "files", "telemetry", "exit"}
    (folder,) = run.output.glob("wandb/offline-run-*/files")
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".png"}


def test_credentials_in_urls_are_left_out() -> None:
    given = {
        "data": {"root": "https://anna:secret@host:8443/mfhq?X-Amz-Signature=secret#a"},
        "lists": ["s3://bucket/mfhq", "/data/a@b?c", 3, None],
    }
    assert without_credentials(given) == {
        "data": {"root": "https://host:8443/mfhq"},
        "lists": ["s3://bucket/mfhq", "/data/a@b?c", 3, None],
    }


def test_without_the_package_the_message_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert load_wandb(None) is None
    with pytest.raises(
        TrainingError, match=r"^run\.wandb: .*Install omniid\[tracking\], or set run\.wandb=null"
    ):
        load_wandb(config(tmp_path).run.wandb)


@pytest.mark.usefixtures("wandb")
def test_without_an_api_key_the_run_ends_at_its_start(dataset: Path, tmp_path: Path) -> None:
    nowhere = {"HOME": str(tmp_path), "NETRC": str(tmp_path / "none"), "WANDB_MODE": "online"}
    message = Run(tmp_path, dataset, PROJECT).refused(2, environment=nowhere)
    assert "run.wandb: no API key; run `wandb login`, or set WANDB_API_KEY. To start without" in message


@pytest.mark.usefixtures("wandb")
@pytest.mark.slow
def test_a_server_that_cannot_be_reached_ends_the_run_at_its_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr(tracking, "START_TIMEOUT_S", 3)
    began_s = time.monotonic()
    with pytest.raises(TrainingError, match=r"^run\.wandb: .* set run\.wandb\.mode=offline"):
        WandbTracker(config(tmp_path, mode="online"))
    assert time.monotonic() - began_s < 60


@pytest.mark.usefixtures("wandb")
def test_a_fault_in_the_middle_of_a_run_is_one_message(tmp_path: Path) -> None:
    shown = io.StringIO()
    tracker = WandbTracker(config(tmp_path))
    console = Console(file=shown, width=400)
    with MetricsWriter(tmp_path, 0, 10_000, console=console, tracker=tracker) as metrics:
        metrics.log(1, {"train/loss": math.nan})
        for process in psutil.Process(os.getpid()).children(recursive=True):
            if "wandb-core" in process.name():
                process.kill()
        for step in range(2, 200):
            metrics.log(step, {"train/loss": 0.5})
        metrics.image(200, "samples", np.zeros((4, 4, 3), np.uint8))
    assert shown.getvalue().count("W&B gets no more figures of this run: ") == 1
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 200))
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])["train/loss"] == "NaN"


def _through_an_outage(output: Path, rank: int) -> tuple[str, float, str]:
    """In a process of its own, because the package reads the environment once."""
    shown = io.StringIO()
    tracking.UPLOAD_TIMEOUT_S = 5
    with wandb_server() as server:
        os.environ |= {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": f"http://127.0.0.1:{server.server_port}"}
        tracker = WandbTracker(config(output, mode="online"))
        console = Console(file=shown, width=1000)
        with MetricsWriter(output, 0, 10_000, rank == 0, console, tracker=tracker) as metrics:
            metrics.log(1, {"train/loss": 0.5})
            server.shutdown()
            server.server_close()
            began_s = time.monotonic()
            for step in range(2, 100):
                metrics.log(step, {"train/loss": 0.5})
        return tracker.name, time.monotonic() - began_s, shown.getvalue()


@pytest.mark.usefixtures("wandb")
def test_an_outage_in_the_middle_of_a_run_neither_ends_nor_blocks_it(tmp_path: Path) -> None:
    ((name, took_s, shown),) = each_of(1, partial(_through_an_outage, tmp_path))
    assert name.endswith(f"/me/omniid-tests/runs/{(tmp_path / ID_FILE).read_text()}")
    assert took_s < 60
    assert re.search(r"W&B gets no more .* within 5 s; `wandb sync .*`", shown)
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 99
