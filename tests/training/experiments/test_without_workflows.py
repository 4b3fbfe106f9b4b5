"""`omniid experiment` of an installed package, which has the code without the workflow files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_without_workflow_files_the_error_says_where_to_run_it(tmp_path: Path) -> None:
    packages = tmp_path / "site"
    packages.mkdir()
    for name in ("faces", "settings", "shards", "storage", "training"):
        (packages / name).symlink_to(ROOT / name)
    command = [
        sys.executable,
        "-m",
        "training.cli",
        "experiment",
        "table2",
        "--data",
        "mfhq",
        "--output",
        "out",
    ]
    environment = os.environ | {"PYTHONPATH": str(packages)}
    found = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert found.returncode == 1
    assert f"{packages / 'workflows' / 'experiments'} does not exist" in found.stderr
    assert "Run this command from a clone of the repository" in found.stderr
    assert not (tmp_path / "out").exists()
