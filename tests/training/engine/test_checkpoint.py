"""Checkpoints are whole or not there, hold what was when they were begun, and run no code when they are read."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp

from training.engine.checkpoint import Checkpoints, SavedState, own_tensors
from training.engine.collectives import Collectives
from training.engine.dcp import TABLE, StoredTensors, UnreadableTensors, write_tensors
from training.engine.processes import World, processes
from training.errors import RunEnded


@pytest.fixture
def world() -> Iterator[World]:
    with processes(deterministic=False) as joined:
        yield joined


def state(step: int) -> SavedState:
    return SavedState(
        code="0.1",
        step=step,
        config={"seed": 1},
        dataset_sha256="ab",
        frozen_digests={},
        damaged={},
        world_size=1,
        torch="2",
    )


def open_checkpoints(world: World, output: Path, keep: int = 2, keep_every: int | None = None) -> Checkpoints:
    return Checkpoints(output, keep, Collectives(world), keep_every=keep_every)


def names(output: Path) -> list[str]:
    return sorted(path.name for path in (output / "checkpoints").iterdir())


def test_what_is_saved_is_loaded_again_with_all_its_bits(world: World, tmp_path: Path) -> None:
    saved = {"weights": torch.randn(5, 3), "steps": torch.tensor(7), "tiny": torch.tensor([1e-42, -0.0])}
    checkpoints = open_checkpoints(world, tmp_path)
    checkpoints.save(state(7), saved)
    checkpoints.finish()

    found = open_checkpoints(world, tmp_path).newest()
    assert found == state(7)
    loaded = {name: torch.ones_like(tensor) for name, tensor in saved.items()}
    checkpoints.load(found, loaded)
    assert all(torch.equal(loaded[name], saved[name]) for name in saved)


def test_all_of_a_checkpoint_is_on_the_disk_before_it_has_its_name(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: dict[int, int] = {}
    sync = os.fsync

    def note(descriptor: int) -> None:
        sync(descriptor)
        status = os.fstat(descriptor)
        synced[status.st_ino] = status.st_size

    monkeypatch.setattr(os, "fsync", note)
    checkpoints = open_checkpoints(world, tmp_path)
    checkpoints.save(state(5), {"weights": torch.ones(3), "more": torch.ones(1000, 1000)})
    checkpoints.finish()
    path = tmp_path / "checkpoints" / "step-000000005"
    found = [path.parent, path, *path.iterdir()]
    assert {file.name for file in found} == {"checkpoints", path.name, TABLE, "__0_0.distcp", "state.json"}
    for file in found:
        assert file.stat().st_ino in synced, file
        assert file.is_dir() or synced[file.stat().st_ino] == file.stat().st_size, file


def test_steps_after_the_save_do_not_reach_the_checkpoint_that_is_being_written(
    world: World, tmp_path: Path
) -> None:
    weights = torch.zeros(20_000_000)
    checkpoints = open_checkpoints(world, tmp_path)
    checkpoints.save(state(1), {"weights": weights})
    weights.fill_(1)  # the next step of the optimiser, while a thread writes 80 MB
    checkpoints.finish()

    loaded = {"weights": torch.empty(20_000_000)}
    checkpoints.load(state(1), loaded)
    assert loaded["weights"].count_nonzero() == 0


def test_the_newest_few_stay(world: World, tmp_path: Path) -> None:
    checkpoints = open_checkpoints(world, tmp_path, keep=2)
    for step in (5, 10, 1000):
        checkpoints.save(state(step), {"weights": torch.ones(3)})
    checkpoints.finish()
    assert names(tmp_path) == ["step-000000010", "step-000001000"]
    assert checkpoints.saved_step == 1000


def test_milestones_stay_besides_the_newest_few(world: World, tmp_path: Path) -> None:
    checkpoints = open_checkpoints(world, tmp_path, keep=1, keep_every=10)
    for step in (5, 10, 15, 20, 25, 30):
        checkpoints.save(state(step), {"weights": torch.ones(3)})
    checkpoints.finish()
    assert names(tmp_path) == ["step-000000010", "step-000000020", "step-000000030"]
    checkpoints.save(state(35), {"weights": torch.ones(3)})
    checkpoints.finish()
    assert names(tmp_path)[-2:] == ["step-000000030", "step-000000035"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"format": 1}, r"has checkpoint format 1 \(omniid 0\.1\); this version reads format 2"),
        ({"format": 3, "code": "9.9"}, r"has checkpoint format 3 \(omniid 9\.9\); this version reads"),
    ],
    ids=["older", "newer"],
)
def test_a_checkpoint_of_another_format_is_refused_with_what_to_do(
    world: World, tmp_path: Path, changes: dict[str, object], named: str
) -> None:
    checkpoints = open_checkpoints(world, tmp_path)
    checkpoints.save(state(5), {"weights": torch.ones(3)})
    checkpoints.finish()
    file = tmp_path / "checkpoints" / "step-000000005" / "state.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(RunEnded, match=rf"state\.json {named}.*representation\.weights set to the encoder"):
        open_checkpoints(world, tmp_path).newest()


@pytest.mark.parametrize("written", ["", "{", "[]", "null", "{}", '{"format": 2}'])
def test_a_damaged_state_is_named_with_what_to_do(world: World, tmp_path: Path, written: str) -> None:
    checkpoints = open_checkpoints(world, tmp_path)
    checkpoints.save(state(5), {"weights": torch.ones(3)})
    checkpoints.finish()
    (tmp_path / "checkpoints" / "step-000000005" / "state.json").write_text(written)
    with pytest.raises(RunEnded, match=r"step-000000005/state\.json"):
        open_checkpoints(world, tmp_path).newest()


def test_an_old_checkpoint_that_cannot_be_removed_is_named_and_the_run_continues(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rename = Path.rename

    def stuck(path: Path, target: Path) -> Path:
        if path.name == "step-000000005":
            raise OSError(errno.ESTALE, "Stale file handle")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", stuck)
    checkpoints = open_checkpoints(world, tmp_path, keep=1)
    for step in (5, 10, 15):
        checkpoints.save(state(step), {"weights": torch.ones(3)})
    checkpoints.finish()
    assert names(tmp_path) == ["step-000000005", "step-000000015"]
    assert "step-000000005" in caplog.text
    assert "Stale file handle" in caplog.text


def test_the_state_of_a_checkpoint_can_be_replaced(world: World, tmp_path: Path) -> None:
    checkpoints = open_checkpoints(world, tmp_path)
    owing = state(5).model_copy(update={"validation_owed": True})
    checkpoints.save(owing, {"weights": torch.ones(3)})
    checkpoints.amend(state(5))
    assert open_checkpoints(world, tmp_path).newest() == state(5)


def test_what_a_killed_run_left_half_written_is_removed_and_never_read(world: World, tmp_path: Path) -> None:
    checkpoints = open_checkpoints(world, tmp_path)
    checkpoints.save(state(5), {"weights": torch.ones(3)})
    checkpoints.finish()
    whole = tmp_path / "checkpoints" / "step-000000005"
    half = tmp_path / "checkpoints" / ".step-000000010.tmp-0123456789abcdef"
    shutil.copytree(whole, half)
    (half / "state.json").write_text(state(10).model_dump_json())

    assert open_checkpoints(world, tmp_path).newest() == state(5)
    assert names(tmp_path) == ["step-000000005"]


def test_without_checkpoints_a_run_starts_from_step_0(world: World, tmp_path: Path) -> None:
    assert open_checkpoints(world, tmp_path / "new").newest() is None


def test_a_checkpoint_with_other_tensors_is_refused(world: World, tmp_path: Path) -> None:
    checkpoints = open_checkpoints(world, tmp_path)
    checkpoints.save(state(5), {"weights": torch.ones(3)})
    checkpoints.finish()
    for other in ({"weight": torch.ones(3)}, {"weights": torch.ones(4)}):
        with pytest.raises(RunEnded, match=r"step-000000005 cannot be read: .*Remove it"):
            checkpoints.load(state(5), other)


def test_replicated_tensors_are_copied_and_written_by_one_rank(world: World) -> None:
    sizes = {"a": 1000, "b": 600, "c": 500, "d": 3, "e": 2, "f": 1}
    tensors = {name: torch.zeros(size) for name, size in sizes.items()}
    shares = [own_tensors(tensors, replace(world, rank=rank, world_size=2)) for rank in range(2)]
    assert sorted([*shares[0], *shares[1]]) == sorted(tensors)
    assert [sum(sizes[name] for name in share) for share in shares] == [1006, 1100]
    assert own_tensors(tensors, world).keys() == tensors.keys()


class _Attack:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_a_forged_table_of_contents_runs_no_code(world: World, tmp_path: Path) -> None:
    write_tensors(tmp_path / "stored", {"weights": torch.ones(3)}, world.writing)
    forged = pickle.dumps(_Attack(tmp_path / "attacked"))
    pickle.loads(pickle.dumps(_Attack(tmp_path / "works")))  # noqa: S301 - the attack would succeed
    assert (tmp_path / "works").exists()
    (tmp_path / "stored" / TABLE).write_bytes(forged)

    with pytest.raises(UnreadableTensors, match=r"posix\.mkdir is not allowed in it"):
        StoredTensors(tmp_path / "stored")
    assert not (tmp_path / "attacked").exists()


def test_entries_that_are_not_tensors_are_refused(world: World, tmp_path: Path) -> None:
    dcp.save({"steps": 5, "weights": torch.ones(3)}, checkpoint_id=tmp_path, process_group=world.writing)
    with pytest.raises(UnreadableTensors, match="BytesStorageMetadata is not allowed in it"):
        StoredTensors(tmp_path)
