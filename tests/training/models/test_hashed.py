"""Random numbers on the device: they have their distribution and depend only on their seeds."""

from __future__ import annotations

import math

import pytest
import torch

from training.models.hashed import normals, seeded, uniforms

NORMALS = [-1.0402566, 1.7382830, -1.7179874, -0.3868493]
UNIFORMS = [0.13307965, 0.89394289]
SEEDS = torch.arange(-500, 500) * 7919


def test_normals_are_normal() -> None:
    numbers = normals(seeded(SEEDS, 1), 1001)
    assert numbers.shape == (1000, 1001)
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3)):
        assert math.isclose((numbers**power).mean().item(), moment, abs_tol=0.02)
    inside = (numbers.abs() < 1).float().mean().item()
    assert math.isclose(inside, 0.6827, abs_tol=0.002)


def test_rows_columns_and_uses_are_independent() -> None:
    one, other = normals(seeded(SEEDS, 1), 64), normals(seeded(SEEDS, 2), 64)
    for a, b in ((one[:-1], one[1:]), (one[:, :-1], one[:, 1:]), (one[:, :32], one[:, 32:]), (one, other)):
        assert abs((a * b).mean().item()) < 0.02


def test_uniforms_are_uniform() -> None:
    numbers = uniforms(seeded(torch.arange(20_000), 3))
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = torch.histc(numbers, bins=10, min=0, max=1)
    assert (counts - 2000).abs().max() < 200


def test_numbers_of_a_seed_do_not_depend_on_other_seeds() -> None:
    together = normals(SEEDS, 10)
    assert torch.equal(normals(SEEDS[17], 10), together[17])
    assert torch.equal(normals(SEEDS.view(10, 100), 10).flatten(0, 1), together)


def test_numbers_of_a_seed_are_pinned() -> None:
    """Values of the first version: a resumed run needs the same numbers."""
    assert normals(torch.tensor(12345), 4).tolist() == pytest.approx(NORMALS, abs=1e-6)
    assert uniforms(torch.tensor([12345, -1])).tolist() == pytest.approx(UNIFORMS, abs=1e-7)
