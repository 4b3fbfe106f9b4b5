"""The visible patches: integer arithmetic with the same result on every machine."""

from __future__ import annotations

import pytest
import torch

from training.models.hashed import mixed
from training.models.masking import visible_patches


def reference_mix(value: int) -> int:
    """SplitMix64's output function on Python's integers, which do not wrap."""
    mask = 2**64 - 1
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return value ^ (value >> 31)


def test_the_hash_is_splitmix64_for_every_kind_of_int64() -> None:
    values = [0, 1, -1, 2**63 - 1, -(2**63), 0x0123456789ABCDEF, -0x0123456789ABCDEF]
    hashed = mixed(torch.tensor(values)).tolist()
    assert [value % 2**64 for value in hashed] == [reference_mix(value % 2**64) for value in values]


def test_the_patches_are_pinned() -> None:
    seeds, targets = torch.tensor([0, -5]), torch.tensor([[0, 7], [3, 3]])
    assert visible_patches(seeds, targets, 256, 4).tolist() == [
        [[44, 184, 215, 247], [18, 86, 176, 222]],
        [[45, 113, 176, 206], [45, 113, 176, 206]],
    ]


def test_patches_are_ascending_distinct_and_within_the_image() -> None:
    visible = visible_patches(torch.arange(100), torch.arange(8).expand(100, 8), 256, 12)
    assert visible.shape == (100, 8, 12)
    assert (visible.diff(dim=-1) > 0).all()
    assert visible.min() >= 0
    assert visible.max() < 256


def test_every_patch_is_visible_equally_often() -> None:
    visible = visible_patches(torch.arange(4000), torch.arange(2).expand(4000, 2), 64, 16)
    counts = torch.bincount(visible.flatten(), minlength=64).double()
    expected = 4000 * 2 * 16 / 64
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert chi_squared < 63 + 5 * (2 * 63) ** 0.5


def test_visible_patches_differ_between_targets_and_do_not_depend_on_other_samples() -> None:
    together = visible_patches(torch.tensor([11, 12]), torch.tensor([[0, 1, 2], [4, 5, 6]]), 256, 12)
    alone = visible_patches(torch.tensor([12]), torch.tensor([[6]]), 256, 12)
    assert together[1, 2].tolist() == alone[0, 0].tolist()
    assert len({tuple(patches) for patches in together.flatten(0, 1).tolist()}) == 6


def test_all_patches_can_be_visible() -> None:
    assert visible_patches(torch.tensor([3]), torch.tensor([[0]]), 9, 9).tolist() == [[list(range(9))]]


@pytest.mark.parametrize("kept", [0, 10])
def test_zero_or_too_many_visible_patches_are_an_error(kept: int) -> None:
    with pytest.raises(ValueError, match=f"{kept} of 9"):
        visible_patches(torch.tensor([3]), torch.tensor([[0]]), 9, kept)
