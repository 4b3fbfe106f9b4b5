"""Wheels that travel with the source tree: installed into a directory that comes first on the path."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Installed:
    """What a directory of wheels gave."""

    site: Path
    """For PYTHONPATH."""
    wheels: list[str] = field(default_factory=list)
    """Installed."""
    rejected: dict[str, str] = field(default_factory=dict)
    """Wheels that do not fit this Python or platform, or are damaged, and why."""
    size_mb: float = 0.0
    """Of all wheels."""


def install(directory: Path | None, site: Path) -> Installed:
    """Install the wheels of a directory, without a network and without their dependencies.

    Args:
        directory: with `*.whl` files; None for none.
        site: where to, created.

    Raises:
        FileNotFoundError: there is no such directory, or it contains no wheels.
    """
    site.mkdir(parents=True, exist_ok=True)
    found = Installed(site)
    if directory is None:
        return found
    wheels = sorted(directory.glob("*.whl"))
    if not wheels:
        raise FileNotFoundError(f"--wheels {directory} contains no wheels. `make gpu-wheels` downloads them")
    found.size_mb = round(sum(wheel.stat().st_size for wheel in wheels) / 1e6, 1)
    if _problem(wheels, site) is None:
        found.wheels = [wheel.name for wheel in wheels]
        return found
    # One that does not fit stops all: find out which.
    for wheel in wheels:
        problem = _problem([wheel], site)
        if problem is None:
            found.wheels.append(wheel.name)
        else:
            found.rejected[wheel.name] = problem
    return found


def _problem(wheels: list[Path], site: Path) -> str | None:
    """Why the wheels cannot be installed."""
    if importlib.util.find_spec("pip") is None:
        return _unpack(wheels, site)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    command += ["--no-deps", "--no-compile", "--no-cache-dir", "--upgrade", "--target", str(site)]
    done = subprocess.run(
        [*command, *map(str, wheels)], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode == 0:
        return None
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    return errors[0] if errors else f"pip ended with exit code {done.returncode}"


def _unpack(wheels: list[Path], site: Path) -> str | None:
    """What pip does for wheels without scripts, where there is no pip."""
    for wheel in wheels:
        try:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(site)
        except (zipfile.BadZipFile, OSError) as error:
            return str(error)
    return None
