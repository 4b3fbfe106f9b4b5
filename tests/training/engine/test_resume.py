"""A run that is killed, stopped, or resumed on other numbers of ranks equals the run that was never disturbed."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from trainers import Run, Trainers

ROUNDING = 1e-5
"""Relative; sums in another order differ in the last bits, and ten steps carry them on."""


def assert_same(run: Run, other: Run) -> None:
    assert run.lines() == other.lines()
    assert run.encoder() == other.encoder()
    found, expected = run.tensors(), other.tensors()
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


@pytest.mark.slow
def test_killed_at_any_moment_a_run_gives_the_same_bits(
    undisturbed: Run, dataset: Path, tmp_path: Path
) -> None:
    run = Run(tmp_path, dataset)

    # One process of two dies; the other one says so and ends.
    with run.started(2) as trainers:
        trainers.until(lambda: run.steps() >= 3)
        trainers.signal(signal.SIGKILL, ranks=[1])
        assert trainers.wait() == [1, -signal.SIGKILL]
        assert "error: another rank has ended" in trainers.log(0)
        assert "Traceback" not in trainers.log(0)

    # All die while a checkpoint is being written.
    with run.started(2) as trainers:
        trainers.until(lambda: run.steps() >= 4)
        trainers.until(lambda: _caught_writing(run, trainers), poll_s=0.001)
        trainers.kill()
    assert _being_written(run)
    whole = {name for name in run.checkpoints() if not name.startswith(".")}

    # All die between steps, past the checkpoint that the others resumed from.
    with run.started(2) as trainers:
        reached = run.steps()
        trainers.until(lambda: run.steps() > reached)
        trainers.kill()
    assert whole <= set(run.checkpoints())

    run.ended(2)
    assert_same(run, undisturbed)
    assert run.checkpoints() == ["step-000000008", "step-000000010"]


def _caught_writing(run: Run, trainers: Trainers) -> bool:
    """Whether the processes stand still in the middle of a checkpoint, which they do then."""
    if _being_written(run):
        trainers.signal(signal.SIGSTOP)
        if _being_written(run):
            return True
        trainers.signal(signal.SIGCONT)  # it was finished meanwhile: the next one
    return False


def _being_written(run: Run) -> list[str]:
    return [name for name in run.checkpoints() if name.startswith(".step-")]


@pytest.mark.slow
def test_sigterm_to_one_process_stops_all_saved_and_the_same_command_resumes(
    undisturbed: Run, dataset: Path, tmp_path: Path
) -> None:
    run = Run(tmp_path, dataset)
    run.stopped(2, 3, ranks=[1])
    stopped_at = run.steps()
    assert run.checkpoints()[-1] == f"step-{stopped_at:09}"
    assert stopped_at < 10

    again = run.ended(2)

    assert f"resuming from step {stopped_at} of 10" in again.log(0)
    assert f"{run.output}/samples/step-000000010.png" in again.log(0)
    assert_same(run, undisturbed)


@pytest.mark.slow
def test_two_then_one_then_two_processes_see_the_same_samples_in_the_same_order(
    undisturbed: Run, dataset: Path, tmp_path: Path
) -> None:
    run = Run(tmp_path, dataset)
    run.stopped(2, 2)
    run.stopped(1, run.steps() + 2)  # four micro-batches of one identity instead of two
    run.ended(2, "run.per_process=2")

    assert run.series("data/order") == undisturbed.series("data/order")
    assert len(set(run.series("data/order"))) == 10
    assert run.series("train/loss") == pytest.approx(undisturbed.series("train/loss"), rel=ROUNDING)
    assert run.series("val/loss_own") == pytest.approx(undisturbed.series("val/loss_own"), rel=ROUNDING)


@pytest.mark.slow
def test_sharded_and_copied_weights_learn_the_same_and_read_each_others_checkpoints(
    undisturbed: Run, dataset: Path, tmp_path: Path
) -> None:
    run = Run(tmp_path, dataset)
    run.stopped(2, 3, "run.strategy=fsdp")
    run.stopped(1, run.steps() + 2, "run.strategy=ddp", "run.per_process=4")
    run.ended(2, "run.strategy=fsdp", "run.activation_checkpointing=true")

    assert run.series("data/order") == undisturbed.series("data/order")
    for name in ("train/loss", "train/grad_norm", "val/loss_own", "val/loss_swapped"):
        assert run.series(name) == pytest.approx(undisturbed.series(name), rel=20 * ROUNDING), name
    found, expected = run.tensors(), undisturbed.tensors()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-2, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("world_size", "strategy"), [(4, "ddp"), (2, "fsdp")])
def test_processes_add_up_in_the_same_order_before_and_after_a_stop(
    dataset: Path, tmp_path: Path, world_size: int, strategy: str
) -> None:
    overrides = (f"run.strategy={strategy}", f"batch={world_size}", "steps=4")
    straight = Run(tmp_path / "straight", dataset, *overrides)
    straight.ended(world_size)
    stopped = Run(tmp_path / "stopped", dataset, *overrides)
    stopped.stopped(world_size, 2)
    stopped.ended(world_size)

    assert_same(stopped, straight)


def test_a_finished_run_started_again_is_left_as_it_is(undisturbed: Run) -> None:
    before = undisturbed.lines(), undisturbed.encoder(), undisturbed.checkpoints()
    undisturbed.ended(2)
    assert (undisturbed.lines(), undisturbed.encoder(), undisturbed.checkpoints()) == before


def test_a_second_run_in_the_same_output_is_refused_while_the_first_one_lives(
    dataset: Path, tmp_path: Path
) -> None:
    run = Run(tmp_path, dataset, "steps=1000")
    with run.started(1) as trainers:
        trainers.until(lambda: run.steps() >= 1)
        assert f"another run is writing to {run.output}" in run.refused(1)
        assert all(process.is_alive() for process in trainers.processes)
