"""Fixtures of the stream's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_data
from seaweed import S3Server


@pytest.fixture(scope="session")
def mfhq(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 12 training and 5 held-out identities, which no test may change."""
    return small_data.build(tmp_path_factory.mktemp("stream") / "mfhq")


@pytest.fixture(scope="session")
def uploaded(s3: S3Server, mfhq: Path) -> str:
    """The address of the data set on the server."""
    return s3.upload(mfhq, "bucket", "sets/mfhq")
