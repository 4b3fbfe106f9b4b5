"""Fixtures of the engine's tests: a dataset of noise, and a run that nothing disturbed."""

from __future__ import annotations

from pathlib import Path

import pytest
from trainers import Run, make_dataset


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven identities to train on, three held out; no test may change it."""
    return make_dataset(tmp_path_factory.mktemp("data") / "mfhq")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> Run:
    """Ten steps on two processes."""
    run = Run(tmp_path_factory.mktemp("undisturbed"), dataset)
    run.ended(2)
    return run
