"""What tests of the public package share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from pipeline.demo.photographs import PEOPLE, package_file
from training.models.sizes import SIZES
from training.representations.omniid import OmniIDEncoder

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def mfhq(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dataset."""
    sys.path.insert(0, str(REPOSITORY / "tests" / "shards"))
    import shards_factory

    root = tmp_path_factory.mktemp("data") / "mfhq"
    shards_factory.build(root)
    return root


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny encoder that was trained on tight crops."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("export") / "encoder"
    OmniIDEncoder(SIZES["tiny"], crop_scale=1.1).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def photo() -> Path:
    """Of one face."""
    return package_file(*PEOPLE["astronaut"].source)
