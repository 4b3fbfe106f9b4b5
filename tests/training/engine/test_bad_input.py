"""Bad input ends every process with exit code 1 and one message; nothing hangs."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from damaged_data import damage
from trainers import Run

NOWHERE = "representation.clip=/nowhere/weights.bin"
"""Other problems must be named before weights are fetched and networks built, which takes minutes."""


@pytest.fixture
def copy(dataset: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(dataset, tmp_path / "copy"))


@pytest.mark.slow
def test_a_half_written_dataset(copy: Path, tmp_path: Path) -> None:
    (copy / "dataset.json").unlink()
    message = Run(tmp_path / "run", copy).refused(2)
    assert f"{copy} is no finished dataset" in message
    assert not (tmp_path / "run" / "output").exists()


def test_fewer_identities_than_a_batch(dataset: Path, tmp_path: Path) -> None:
    message = Run(tmp_path, dataset, "batch=12", NOWHERE).refused(2)
    assert "11 training identities, fewer than the batch of 12" in message


def test_a_batch_that_the_processes_cannot_share_out(dataset: Path, tmp_path: Path) -> None:
    message = Run(tmp_path, dataset, "batch=10", "run.per_process=2", NOWHERE).refused(2)
    assert "batch=10" in message
    assert "with 2 processes, run.per_process may be 1, 5" in message


@pytest.mark.parametrize("ranks", [3, 4])
def test_more_ranks_than_identities_in_a_batch(dataset: Path, tmp_path: Path, ranks: int) -> None:
    message = Run(tmp_path, dataset, "batch=2", NOWHERE).refused(ranks)
    assert f"batch must be a multiple of the {ranks} " in message
    assert not (tmp_path / "output").exists()


def test_a_frozen_representation_without_weights(dataset: Path, tmp_path: Path) -> None:
    message = Run(tmp_path, dataset, "representation.frozen=true").refused(3)
    assert "representation.frozen: a representation with random weights stays random. Set" in message


def test_a_frozen_representation_whose_weights_are_missing(dataset: Path, tmp_path: Path) -> None:
    weights = f"representation.weights={tmp_path / 'nothing'}"
    message = Run(tmp_path, dataset, "representation.frozen=true", weights).refused(3)
    assert f"representation.weights: there is no directory {tmp_path / 'nothing'}" in message


def test_a_decoder_that_the_representation_does_not_suit(dataset: Path, tmp_path: Path) -> None:
    arcface = ("representation.kind=arcface", "representation.recogniser=sface", "data.inputs=2")
    message = Run(tmp_path, dataset, *arcface).refused(3)
    assert "decoders.mtd: it attends to identity tokens of 128 channels, and the representation" in message


def test_a_bucket_that_cannot_be_reached(tmp_path: Path) -> None:
    message = Run(tmp_path, "s3://faces/mfhq", "run.retry_s=1").refused(
        2,
        environment={
            "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "a-secret",
            "AWS_REGION": "us-east-1",
        },
    )
    assert "s3://faces/mfhq" in message
    assert "a-secret" not in message


@pytest.mark.slow
def test_an_output_that_is_not_the_same_folder_on_every_machine(dataset: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", dataset)
    run.arguments[2] = "output=runs/one"
    machines = [tmp_path / "first", tmp_path / "second"]
    for machine in machines:
        (machine / "runs" / "one").mkdir(parents=True)
        (machine / "runs" / "one" / ".lock").write_text("of a run of yesterday")
    message = run.refused(2, folders=machines)
    assert message.startswith(f"error: rank 1: the output {machines[1]}/runs/one")
    assert "Use one that every node sees" in message


def test_an_output_that_cannot_be_written_to(dataset: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", dataset)
    (tmp_path / "file").write_text("")
    run.arguments[2] = f"output={tmp_path / 'file' / 'run'}"
    assert f"the output {tmp_path / 'file' / 'run'} cannot be used" in run.refused(2)


@pytest.mark.slow
def test_a_checkpoint_of_another_configuration_names_what_differs(
    dataset: Path, copy: Path, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run", dataset)
    run.stopped(1, 1)

    message = run.refused(2, "optimiser.learning_rate=0.5", "data.targets=3", "run.decode_threads=2", NOWHERE)
    assert "data.targets: 2 -> 3" in message
    assert "optimiser.learning_rate: 0.001 -> 0.5" in message
    assert "representation.clip: random -> weights.bin" in message
    assert "decode_threads" not in message

    metadata = copy / "dataset.json"
    other = Run(tmp_path / "other", copy)
    other.arguments[2] = f"output={run.output}"
    assert metadata.exists()
    assert other.ended(1).processes  # the same bytes in another place are the same dataset


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named_and_the_one_before_takes_its_place(
    undisturbed: Run, dataset: Path, tmp_path: Path
) -> None:
    run = Run(tmp_path, dataset)
    shutil.copytree(undisturbed.output / "checkpoints", run.output / "checkpoints")
    newest = run.output / "checkpoints" / run.checkpoints()[-1]
    for broken in (
        "__0_0.distcp",
        ".metadata",
        "state.json",
    ):  # each is met before the one that is broken already
        data = (newest / broken).read_bytes()
        (newest / broken).write_bytes(data[: len(data) // 2])
        message = run.refused(2)
        assert str(newest) in message
        assert not re.search(r"cannot be read: (process \d+: )?\. ", message)  # never without a reason
        assert "Remove" in message

    shutil.rmtree(newest)
    assert "resuming from step 8" in run.ended(2).log(0)
    assert run.encoder() == undisturbed.encoder()


def test_a_checkpoint_of_an_earlier_format(undisturbed: Run, dataset: Path, tmp_path: Path) -> None:
    run = Run(tmp_path, dataset)
    shutil.copytree(undisturbed.output / "checkpoints", run.output / "checkpoints")
    path = run.output / "checkpoints" / run.checkpoints()[-1] / "state.json"
    state = json.loads(path.read_text())
    digests, code = state.pop("frozen_digests"), state.pop("code")
    assert (digests, bool(code)) == ({}, True)
    path.write_text(json.dumps(state | {"format": 1, "frozen_digest": ""}))
    message = run.refused(2)
    assert f"{path} has checkpoint format 1; this version reads format 2" in message
    assert "representation.weights set to the encoder" in message
    assert run.checkpoints() == undisturbed.checkpoints()


def test_a_workflow_of_an_earlier_version(dataset: Path, tmp_path: Path) -> None:
    run = Run(tmp_path, dataset)
    workflow = Path(run.arguments[0])
    workflow.write_text(workflow.read_text().replace("decoders: {mtd: {}}", "stage: mtd"))
    message = run.refused(2)
    assert "stage: this key is from an earlier version" in message
    assert not run.output.exists()


def test_a_finished_run_without_its_checkpoints_is_not_begun_anew_beside_its_encoder(
    undisturbed: Run, dataset: Path, tmp_path: Path
) -> None:
    run = Run(tmp_path, dataset)
    shutil.copytree(undisturbed.output / "encoder", run.output / "encoder")
    message = run.refused(2)
    assert f"{run.output} holds the encoder of a finished run, but no checkpoint to resume from" in message
    assert run.encoder() == undisturbed.encoder()


@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_with_more_room_the_same_command_resumes(
    small_disk: Callable[[int], Path], undisturbed: Run, dataset: Path, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run", dataset)
    run.output = small_disk(60_000_000)  # one checkpoint of 40 MB, but not two
    run.arguments[2] = f"output={run.output}"

    message = run.refused(2)
    assert "the disk is full" in message
    assert "step-000000004" in message
    assert run.checkpoints() == ["step-000000002"]

    small_disk(300_000_000)
    run.ended(2)
    assert run.encoder() == undisturbed.encoder()
    assert run.lines() == undisturbed.lines()


def test_an_output_without_any_room_is_named_before_the_first_step(
    small_disk: Callable[[int], Path], dataset: Path, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run", dataset)
    run.output = small_disk(1_000_000)
    run.output.mkdir()
    run.arguments[2] = f"output={run.output}"
    subprocess.run(
        ["dd", "if=/dev/zero", f"of={run.output / 'other'}"], check=False, stderr=subprocess.DEVNULL
    )
    assert shutil.disk_usage(run.output).free == 0
    assert "the disk is full" in run.refused(2)


def test_damaged_identities_within_the_budget_are_skipped_named_and_counted(
    copy: Path, tmp_path: Path
) -> None:
    key = damage(copy)
    run = Run(tmp_path / "run", copy)
    trainers = run.ended(2)
    # Ten batches of four from eleven identities meet it three times or four.
    assert trainers.said().count("skipped: ") == 1
    assert f"skipped: sample {key}" in trainers.log(0)
    assert sorted(set(run.series("data/damaged"))) == [0, 1]


def test_too_many_damaged_identities_end_the_run(copy: Path, tmp_path: Path) -> None:
    key = damage(copy)
    message = Run(tmp_path / "run", copy).refused(2, "run.max_damaged=0")
    assert "1 damaged identities were met, more than run.max_damaged=0" in message
    assert key in message
    assert "mfhq verify" in message


def test_losses_that_are_not_finite_change_nothing_and_end_the_run_past_the_budget(
    dataset: Path, tmp_path: Path
) -> None:
    run = Run(tmp_path, dataset, "optimiser.learning_rate=1e38", "optimiser.warmup_steps=0")
    message = run.refused(2, "run.max_nonfinite_steps=3", "checkpoints.every=100")
    assert "more than run.max_nonfinite_steps=3" in message
    assert "optimiser.learning_rate" in message
    skipped = run.series("train/skipped")
    assert skipped[-1] == 4
    assert skipped == sorted(skipped)


def test_a_run_that_failed_in_its_last_step_is_not_a_finished_one_when_it_is_started_again(
    dataset: Path, tmp_path: Path
) -> None:
    run = Run(tmp_path, dataset, "optimiser.learning_rate=1e38", "optimiser.warmup_steps=0", "steps=4")
    allowed = "run.max_nonfinite_steps=2"
    first = run.refused(1, allowed)
    assert f"more than {allowed}" in first
    assert "step-000000004" not in run.checkpoints()
    assert run.refused(1, allowed) == first
    assert not (run.output / "encoder").exists()


def test_what_one_process_alone_cannot_do_ends_all_of_them(dataset: Path, copy: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    message = Run(tmp_path / "run", copy.name).refused(2, folders=[copy.parent, elsewhere])
    assert "rank 1: copy is not a directory" in message

    # In the middle of the run: only the second process sees its shards vanish.
    shutil.copytree(copy, elsewhere / copy.name)
    run = Run(tmp_path / "run", copy.name, "steps=1000", "run.retry_s=1", "checkpoints.every=1000")
    with run.started(2, folders=[copy.parent, elsewhere]) as trainers:
        trainers.until(lambda: run.steps() >= 2)
        shutil.rmtree(elsewhere / copy.name)
        assert trainers.wait() == [1, 1], trainers.said()
        assert "train/mfhq-train" in trainers.log(0)
        assert "error" not in trainers.log(1)
    assert run.checkpoints() == [f"step-{run.steps():09}"]  # nothing that was learned is lost


def test_a_process_that_stops_answering_does_not_keep_the_others_once_it_is_ended(
    dataset: Path, tmp_path: Path
) -> None:
    run = Run(tmp_path, dataset, "steps=1000")
    with run.started(2) as trainers:
        trainers.until(lambda: run.steps() >= 1)
        trainers.signal(signal.SIGSTOP, ranks=[1])
        stuck_at = run.steps()
        time.sleep(2)
        assert run.steps() <= stuck_at + 2  # the other one waits for it, at the latest in the step after next
        trainers.signal(signal.SIGKILL, ranks=[1])
        assert trainers.wait() == [1, -signal.SIGKILL]
