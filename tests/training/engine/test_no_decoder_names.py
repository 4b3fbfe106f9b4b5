"""The engine knows the protocol of decoders, and none of them: a new one needs no change of the engine."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from training import engine
from training.decoders.registry import Decoders

FILES = sorted(Path(str(engine.__file__)).parent.glob("*.py"))
PROTOCOL = "training.decoders.base"


def imported(text: str) -> set[str]:
    """Modules that a file imports, with the names that it takes from packages."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module)} | {f"{node.module}.{name.name}" for name in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_of_the_engine_imports_or_names_a_decoder(path: Path) -> None:
    text = path.read_text()
    modules = {name for name in imported(text) if name.startswith("training.decoders")}
    assert all(name.startswith(PROTOCOL) for name in modules)
    names = "|".join([*Decoders.model_fields, "flux"])
    assert not re.findall(rf"\b(?:{names})\w*", text, re.IGNORECASE)


def test_the_search_finds_names_in_code_messages_and_comments() -> None:
    assert len(FILES) > 15
    assert imported("from training.decoders import mtd\nimport training.decoders.flow") >= {
        "training.decoders.mtd",
        "training.decoders.flow",
    }
