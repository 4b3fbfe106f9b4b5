"""Decoders in their sandbox, and small videos."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from sandboxed_videos import Attack, attack_with, write_clip

from pipeline.sandbox import SandboxedDecoder


@pytest.fixture(scope="session")
def decoder() -> Iterator[SandboxedDecoder]:
    made = SandboxedDecoder(memory_gb=2.0)
    yield made
    made.close()


@pytest.fixture(scope="session")
def hostile() -> Iterator[SandboxedDecoder]:
    """A decoder that runs the attack named in a file."""
    made = SandboxedDecoder(memory_gb=0.25, entry="hostile_decoder:serve")
    yield made
    made.close()


@pytest.fixture
def attack(hostile: SandboxedDecoder, tmp_path: Path) -> Attack:
    """Runs an attack in place of a decoder, asks for all frames, and gives what the video failed with."""
    return partial(attack_with, hostile, tmp_path)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4")
