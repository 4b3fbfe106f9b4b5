"""The figures of a run survive kills and are those of an undisturbed run."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from shards.atomic import OutOfSpace
from training.engine.jsonl import read_metrics
from training.engine.metrics import METRICS_FILE, TENSORBOARD_FOLDER, MetricsWriter


def logged(output: Path, first: int, last: int, steps: int = 100, terminal: bool = False) -> str:
    """Log steps `first` to `last` from the checkpoint before `first`; what the console showed."""
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=terminal, width=140, soft_wrap=not terminal, highlight=False)
    with MetricsWriter(output, first - 1, steps, console=console) as metrics:
        for step in range(first, last + 1):
            metrics.log(step, figures(step))
    return shown.getvalue()


def figures(step: int) -> dict[str, float]:
    return {
        "train/loss": 1 / step,
        "speed/targets_per_s": 1234.5,
        "speed/mfu": 0.512,
        "speed/data_wait": 0.004,
    }


def board(output: Path) -> dict[int, float]:
    events = EventAccumulator(str(output / TENSORBOARD_FOLDER))
    events.Reload()
    return {event.step: event.value for event in events.Scalars("train/loss")}


def test_a_run_that_was_killed_and_resumed_leaves_the_same_lines_as_an_undisturbed_one(
    tmp_path: Path,
) -> None:
    logged(tmp_path / "undisturbed", 1, 9)
    logged(tmp_path / "cut", 1, 7)
    logged(tmp_path / "cut", 5, 9)
    whole, cut = ((tmp_path / name / METRICS_FILE).read_bytes() for name in ("undisturbed", "cut"))
    assert cut == whole
    assert [line["step"] for line in read_metrics(tmp_path / "cut" / METRICS_FILE)] == list(range(1, 10))


def test_tensorboard_shows_no_step_past_the_checkpoint_of_a_resumed_run(tmp_path: Path) -> None:
    logged(tmp_path, 1, 7)
    logged(tmp_path, 5, 5)
    assert sorted(board(tmp_path)) == [1, 2, 3, 4, 5]


def test_a_run_that_died_before_its_first_checkpoint_begins_with_empty_files(tmp_path: Path) -> None:
    logged(tmp_path, 1, 7)
    logged(tmp_path, 1, 2)
    assert [line["step"] for line in read_metrics(tmp_path / METRICS_FILE)] == [1, 2]
    assert sorted(board(tmp_path)) == [1, 2]


@pytest.mark.parametrize("torn", [b'{"step": 4, "train/lo', b"\0" * 300, b'{"step": 4}', b"[4]\n", b"{}\n"])
def test_what_a_kill_or_a_power_cut_left_of_a_line_is_dropped(tmp_path: Path, torn: bytes) -> None:
    logged(tmp_path, 1, 3)
    with (tmp_path / METRICS_FILE).open("ab") as file:
        file.write(torn)
    assert [line["step"] for line in read_metrics(tmp_path / METRICS_FILE)] == [1, 2, 3]
    logged(tmp_path, 4, 5)
    lines = (tmp_path / METRICS_FILE).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5]


def test_what_was_logged_is_on_the_disk_when_the_process_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from training.engine.metrics import MetricsWriter\n"
        "writer = MetricsWriter(Path(sys.argv[1]), 0, 10)\n"
        "for step in range(1, 4): writer.log(step, {'train/loss': 1 / step})\n"
        "print('logged', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"logged\n"
        os.kill(process.pid, signal.SIGKILL)
    assert [line["step"] for line in read_metrics(tmp_path / METRICS_FILE)] == [1, 2, 3]
    assert sorted(board(tmp_path)) == [1, 2, 3]


def test_values_that_are_not_finite_stay_json_and_stay_what_they_are(tmp_path: Path) -> None:
    values = {"train/loss": math.nan, "train/grad_norm": math.inf, "val/loss_own": -math.inf}
    with MetricsWriter(tmp_path, 0, 10, console=Console(file=io.StringIO())) as metrics:
        metrics.log(1, values)

    def refuse(name: str) -> float:
        raise AssertionError(f"{name} is not JSON")

    text = (tmp_path / METRICS_FILE).read_text()
    assert json.loads(text, parse_constant=refuse)["train/grad_norm"] == "Infinity"
    (line,) = read_metrics(tmp_path / METRICS_FILE)
    assert math.isnan(line["train/loss"])
    assert (line["train/grad_norm"], line["val/loss_own"]) == (math.inf, -math.inf)


def test_floats_are_written_with_all_their_digits(tmp_path: Path) -> None:
    loss = float(np.float32(0.1234567))
    with MetricsWriter(tmp_path, 0, 10, console=Console(file=io.StringIO())) as metrics:
        metrics.log(1, {"train/loss": loss})
    assert read_metrics(tmp_path / METRICS_FILE)[0]["train/loss"] == loss


def test_a_log_gets_a_line_for_each_of_the_metrics_file(tmp_path: Path) -> None:
    lines = logged(tmp_path, 1, 100).splitlines()
    assert len(read_metrics(tmp_path / METRICS_FILE)) == 100
    assert lines[0] == "step 1/100  loss 1.0000  targets/s 1,234.5  MFU 51.2%  data wait 0.4%"
    assert [line.split()[1] for line in lines] == [f"{step}/100" for step in range(1, 101)]
    assert lines[-1].startswith("step 100/100  loss 0.0100  ")
    assert lines[-1].endswith("ETA 0 s")


def test_a_log_gets_every_validation(tmp_path: Path) -> None:
    shown = io.StringIO()
    with MetricsWriter(tmp_path, 0, 10, console=Console(file=shown, width=200)) as metrics:
        for step in (2, 4):
            metrics.log(step, {"val/loss_own": 0.25, "val/swap_ratio": 1.5})
    assert shown.getvalue().splitlines() == [
        "step 2/10  validation: loss_own 0.2500  swap_ratio 1.5000",
        "step 4/10  validation: loss_own 0.2500  swap_ratio 1.5000",
    ]


def test_an_interval_follows_its_figure_in_a_log(tmp_path: Path) -> None:
    shown = io.StringIO()
    ends = {"val/swap_ratio_low": 1.25, "val/swap_ratio_high": 1.75}
    with MetricsWriter(tmp_path, 0, 10, console=Console(file=shown, width=200)) as metrics:
        metrics.log(2, {"val/loss_own": 0.25, "val/swap_ratio": 1.5} | ends | {"val/damaged": 0})
    said = "step 2/10  validation: loss_own 0.2500  swap_ratio 1.5000 [1.2500, 1.7500]  damaged 0\n"
    assert shown.getvalue() == said
    (line,) = read_metrics(tmp_path / METRICS_FILE)
    assert (line["val/swap_ratio_low"], line["val/swap_ratio_high"]) == (1.25, 1.75)


def test_losses_of_several_decoders_are_shown_beside_their_sum(tmp_path: Path) -> None:
    shown = io.StringIO()
    losses = {"train/loss": 0.75, "train/loss_mtd": 0.5, "train/loss_flow": 0.5}
    with MetricsWriter(tmp_path, 0, 10, console=Console(file=shown, width=200)) as metrics:
        metrics.log(1, losses)
    assert shown.getvalue() == "step 1/10  loss 0.7500  loss_mtd 0.5000  loss_flow 0.5000\n"


def test_a_terminal_gets_a_bar_with_the_figures_and_is_left_with_its_cursor(tmp_path: Path) -> None:
    shown = logged(tmp_path, 31, 40, terminal=True)
    assert "40/100" in shown
    assert "loss 0.0250  targets/s 1,234.5  MFU 51.2%  data wait 0.4%  ETA " in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l"), "the cursor stays hidden"


def test_mfu_is_left_out_where_it_is_not_known(tmp_path: Path) -> None:
    shown = io.StringIO()
    with MetricsWriter(tmp_path, 0, 10, console=Console(file=shown, width=200)) as metrics:
        metrics.log(1, {"train/loss": 0.5, "speed/targets_per_s": 10.0})
    assert shown.getvalue() == "step 1/10  loss 0.5000  targets/s 10.0\n"


def test_other_ranks_write_nothing_and_may_still_print(tmp_path: Path) -> None:
    shown = io.StringIO()
    with MetricsWriter(tmp_path, 0, 10, enabled=False, console=Console(file=shown)) as metrics:
        metrics.log(1, {"train/loss": 0.5, "val/loss_own": 0.5})
        metrics.image(1, "samples", np.zeros((4, 4, 3), np.uint8))
        metrics.message("clip-a_0: [damaged]")
    assert shown.getvalue() == "clip-a_0: [damaged]\n"
    assert list(tmp_path.iterdir()) == []


def test_an_image_goes_to_a_file_and_to_tensorboard(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    with MetricsWriter(tmp_path, 0, 10_000, console=Console(file=io.StringIO())) as metrics:
        metrics.image(5000, "samples", image)
    with Image.open(tmp_path / "samples" / "step-000005000.png") as stored:
        assert np.array_equal(np.asarray(stored), image)
    events = EventAccumulator(str(tmp_path / TENSORBOARD_FOLDER))
    events.Reload()
    (event,) = events.Images("samples")
    assert event.step == 5000
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(event.encoded_image_string))), image)


def test_a_full_disk_ends_the_run_in_words(small_disk: Callable[[int], Path]) -> None:
    def fill(output: Path) -> None:
        with MetricsWriter(output, 0, 10_000, console=Console(file=io.StringIO())) as metrics:
            for step in range(1, 2000):
                metrics.log(step, {"train/loss": 1 / step})

    with pytest.raises(OutOfSpace, match=r"(metrics\.jsonl|tensorboard): the disk is full"):
        fill(small_disk(2**16))
