"""Fixtures of the data contract's tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import shards_factory as factory

from shards.schema import Split
from shards.writer import write_dataset


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished dataset that no test may change."""
    root = tmp_path_factory.mktemp("pristine") / "mfhq"
    factory.build(root)
    return root


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A dataset of two identities, for tests that verify it many times."""
    root = tmp_path / "tiny"
    samples = [factory.sample("clip-b_1", Split.TEST), factory.sample("clip-a_0", Split.TRAIN)]
    write_dataset(root, samples, factory.videos(samples), factory.PROVENANCE, factory.LIMITS)
    return root


@pytest.fixture
def root(pristine: Path, tmp_path: Path) -> Path:
    """A copy of the finished dataset to plant findings in."""
    copy = tmp_path / "mfhq"
    shutil.copytree(pristine, copy)
    return copy
