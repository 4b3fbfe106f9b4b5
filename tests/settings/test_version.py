"""Both commands print their version."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("command", ["mfhq", "omniid"])
def test_a_command_prints_its_name_and_version(command: str) -> None:
    path = Path(sys.executable).parent / command
    printed = subprocess.run([path, "--version"], check=True, capture_output=True, text=True).stdout
    assert printed == f"{command} {importlib.metadata.version('omniid')}\n"
