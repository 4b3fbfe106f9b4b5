"""Held-out batches are the same on any number of processes, and inputs are never targets."""

from __future__ import annotations

import threading
from itertools import zip_longest
from pathlib import Path

import pytest
import small_data
import torch
from small_data import TEST

from shards.schema import Split
from training.config import Validation
from training.data.dataset import StreamedDataset, open_dataset
from training.data.held_out import held_out_batches
from training.errors import Stopped

VALIDATION = Validation()
"""Three inputs and the other five images as targets."""


def batches(  # type: ignore[no-untyped-def]
    root: Path,
    rank: int = 0,
    world_size: int = 1,
    *,
    per_process: int = 2,
    identities: int | None = None,
    validation: Validation = VALIDATION,
):
    dataset = open_dataset(str(root), retry_s=1.0)
    keys = dataset.keys(Split.TEST)[:identities]
    reads = small_data.MTD
    return list(
        held_out_batches(dataset, keys, validation, per_process, reads, rank=rank, world_size=world_size)
    )


def valid_keys(found) -> list[list[str]]:  # type: ignore[no-untyped-def]
    return [
        [key for key, valid in zip(batch.keys, batch.valid_B, strict=True) if valid] for batch, *_ in found
    ]


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_all_processes_together_give_the_batches_of_one(mfhq: Path, world_size: int) -> None:
    alone = batches(mfhq)
    shares = [batches(mfhq, rank, world_size) for rank in range(world_size)]
    assert len({len(share) for share in shares}) == 1
    together = [item for group in zip_longest(*shares) for item in group]
    for one, other in zip(alone, together, strict=False):
        small_data.assert_same(one.batch, other.batch)
        assert one.persons == other.persons
    assert all(
        not batch.valid_B.any() and set(persons) == {""} for batch, persons, _ in together[len(alone) :]
    )


def test_every_held_out_identity_comes_once_with_its_person(mfhq: Path) -> None:
    found = batches(mfhq)
    assert sorted(key for keys in valid_keys(found) for key in keys) == TEST
    for batch, persons, _ in found:
        for key, valid, person in zip(batch.keys, batch.valid_B, persons, strict=True):
            assert person == (f"p-{key.removesuffix('_0')}" if valid else "")


@pytest.mark.parametrize(
    ("per_process", "identities"), [(1, [1, 1, 1, 1, 1]), (2, [2, 2, 1]), (3, [3, 2]), (4, [3, 2]), (8, [5])]
)
def test_batches_have_one_shape_and_blank_rows_are_spread_evenly(
    mfhq: Path, per_process: int, identities: list[int]
) -> None:
    found = batches(mfhq, per_process=per_process)
    assert [len(keys) for keys in valid_keys(found)] == identities
    assert {item.batch.images_BKSSC.shape for item in found} == {(per_process, 8, 64, 64, 3)}


def test_only_the_given_identities_come(mfhq: Path) -> None:
    assert valid_keys(batches(mfhq, per_process=8, identities=3)) == [TEST[:3]]


def test_no_target_is_an_input(mfhq: Path) -> None:
    for batch, *_ in batches(mfhq):
        assert batch.input_valid_BM is None
        assert batch.inputs_BM.shape[1] == 3
        assert batch.targets_BN.shape[1] == 5
        both = torch.cat([batch.inputs_BM, batch.targets_BN], 1)
        assert torch.equal(both.sort(1)[0], torch.arange(8).expand(len(batch.keys), 8))


def test_inputs_and_targets_are_as_many_as_validation_asks_for(mfhq: Path) -> None:
    for inputs, targets in ((7, 1), (1, 2)):
        for batch, *_ in batches(mfhq, validation=Validation(inputs=inputs, targets=targets)):
            assert batch.input_valid_BM is None
            assert (batch.inputs_BM.shape[1], batch.targets_BN.shape[1]) == (inputs, targets)
    with pytest.raises(ValueError, match="targets: 4 inputs leave 4 images of an identity, given: 5"):
        Validation(inputs=4)


def test_a_damaged_sample_is_a_blank_row_with_its_reason(tmp_path: Path) -> None:
    root = small_data.build(tmp_path / "mfhq")
    small_data.flip_byte(root / "test/mfhq-test-000000-g0000.tar", 2000)
    found = batches(root)
    assert sorted(key for keys in valid_keys(found) for key in keys) == TEST[1:]
    assert found[0].batch.keys[0] == TEST[0]
    assert found[0].persons[0] == ""
    ((key, message),) = [problem for item in found for problem in item.problems.items()]
    assert key == TEST[0]
    assert message.startswith(f"sample {TEST[0]}: test/mfhq-test-000000-g0000.tar: member")


def test_a_stop_ends_the_wait_for_held_out_identities(mfhq: Path) -> None:
    dataset = open_dataset(str(mfhq), retry_s=300.0)
    dataset.__class__ = Stuck
    reading = held_out_batches(
        dataset, TEST[:4], VALIDATION, 2, small_data.MTD, rank=0, world_size=1, stopping=lambda: True
    )
    with pytest.raises(Stopped):
        list(reading)


class Stuck(StreamedDataset):
    """The real data set, on storage that answers nothing until the request is cancelled."""

    def fetch(self, key: str, stopped: threading.Event | None = None):  # type: ignore[no-untyped-def]
        assert stopped is not None
        assert stopped.wait(30)
        return super().fetch(key, stopped)


def test_a_dataset_without_a_test_split_has_no_batches(tmp_path: Path) -> None:
    assert batches(small_data.build(tmp_path / "mfhq", test=[])) == []
