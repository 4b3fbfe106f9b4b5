"""Fixtures of the stream's tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import small_data
from seaweed import S3Server, serving

from training.data import places


@pytest.fixture(scope="session")
def mfhq(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 12 training and 5 held-out identities, which no test may change."""
    return small_data.build(tmp_path_factory.mktemp("stream") / "mfhq")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server."""
    with serving(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture(scope="session")
def uploaded(s3: S3Server, mfhq: Path) -> str:
    """The address of the data set on the server."""
    return s3.upload(mfhq, "bucket", "sets/mfhq")


@pytest.fixture
def credentials(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment lets clients into the server, and nowhere else."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "AZURE_", "GOOGLE_"))]:
        monkeypatch.delenv(name)
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is silent for half a second has stalled."""
    monkeypatch.setattr(places, "STALL_S", 0.5)
