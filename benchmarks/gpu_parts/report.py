"""What `gpu_check.py` says of a check: the version of the code, reasons, and the table on the terminal."""

from __future__ import annotations

import hashlib
import re
import subprocess
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

CODE = ("faces", "settings", "shards", "storage", "training", "workflows", "benchmarks", "tests/gpu")
"""Directories whose Python and YAML files are part of the digest of the code."""
DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "google": "protobuf",
    "open_clip": "open-clip-torch",
    "skimage": "scikit-image",
    "yaml": "pyyaml",
}
"""Packages whose modules have other names."""


def code_version(root: Path) -> dict[str, Any]:
    """Which code it is; a tree that was copied without its repository is known by its digest alone."""
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    digest = hashlib.sha256()
    for path in sorted(_files(root)):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    commit, changes = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain")
    return {
        "version": tomllib.loads(text)["project"]["version"],
        "git_commit": commit,
        "git_has_changes": None if changes is None else bool(changes),
        "sha256": digest.hexdigest(),
    }


def why_missing(module: str, missing: Sequence[Mapping[str, str | None]]) -> str:
    """Why a part is skipped that cannot import a module."""
    name = DISTRIBUTIONS.get(module, re.sub(r"[-_.]+", "-", module).lower())
    for package in missing:
        if package["package"] == name:
            return f"the package {name} is not installed; {package['wheel']} brings it"
    return (
        f"the module {module} cannot be imported; add the wheel of its package to benchmarks/gpu-wheels.txt"
    )


def print_table(report: Mapping[str, Any]) -> None:
    """Print what was found, a line for each part."""
    machine = report.get("environment", {})
    gpus = machine.get("gpus") or [{"name": f"no GPU, {machine.get('cpu_name', 'unknown CPU')}"}]
    print(
        f"\n{gpus[0]['name']}, {machine.get('cpu_cores')} cores, driver {machine.get('driver_version')}, "
        f"torch {machine.get('torch_version')}, Python {machine.get('python_version')}"
    )
    for package in report.get("missing_packages", []):
        print(f"not installed: {package['package']} ({package['needed_by']} needs it): {package['wheel']}")
    for wheel, problem in report.get("wheels", {}).get("rejected", {}).items():
        print(f"not installed: {wheel}: {problem}")
    for name, part in report.get("parts", {}).items():
        print(f"{name:<15} {part['status']:<10} {part['took_s']:>6.1f} s   {_summary(part)}")
        failed = [test for test in part["figures"].get("tests", []) if test["outcome"] == "failed"]
        for test in failed:
            print(f"{'':<35}{test['name']}: {test['reason']}")
    if "error" in report:
        print(f"error: {report['error']}")
    print(f"{report['status']} after {report['took_s']:.0f} s")


def _summary(part: Mapping[str, Any]) -> str:
    reason = [part["reason"]] if part["reason"] else []
    return ", ".join([*reason, *_figures(part["figures"])])


def _figures(figures: Mapping[str, Any]) -> Iterator[str]:
    """The figures that a reader looks for first."""
    if "passed" in figures:
        yield f"{figures['passed']} passed, {figures['failed']} failed, {figures['skipped']} skipped"
    if "step_s" in figures:
        mfu = figures["mfu"]
        yield f"step {figures['step_s'] * 1e3:.1f} ms"
        yield f"{figures['targets_per_s']:.0f} targets/s"
        yield f"MFU {mfu:.1%}" if mfu is not None else "no MFU: the peak of this device is not known"
        yield f"{figures['share_of_matrix_product']:.1%} of a large matrix product"
        yield f"{figures['peak_memory_gb']:.1f} GB"
        if figures["data_wait_share"] is not None:
            yield f"waiting for data {figures['data_wait_share']:.2%}"
    if "stream_targets_per_s" in figures:
        yield f"stream alone {figures['stream_targets_per_s']:.0f} targets/s"
    if "run_targets_per_s" in figures:
        yield f"MTD run {figures['run_targets_per_s']:.0f} targets/s"
        yield f"waiting for data {figures['run_data_wait_share']:.2%}"


def _files(root: Path) -> Iterator[Path]:
    for directory in CODE:
        for pattern in ("*.py", "*.yaml"):
            yield from (root / directory).rglob(pattern)


def _git(root: Path, *arguments: str) -> str | None:
    """What git says; None where there is no git, or the tree is not a repository's own."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],  # noqa: S607 - where git is differs
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
