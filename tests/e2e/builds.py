"""Running builds on the test session's cluster, and looking at what they leave."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
WORKFLOW = "workflows/curate_demo.yaml"
SCRIPTS = Path(sys.executable).parent


@dataclass(frozen=True)
class Cluster:
    """A running Ray cluster of one node.

    Attributes:
        process: its root; all of Ray's processes descend from it.
        environment: what a process needs to use it.
    """

    process: subprocess.Popen[bytes]
    environment: dict[str, str]


def start_build(
    cluster: Cluster, clips: Path, output: Path, *more: str, log: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start `mfhq build` on the cluster as a process of its own."""
    command = [str(SCRIPTS / "mfhq"), "build", WORKFLOW, f"source.path={clips}", f"output={output}", *more]
    sink = log.open("wb") if log else None
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=cluster.environment, stdout=sink, stderr=subprocess.STDOUT
    )


def mfhq(cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `mfhq` to its end, its builds on the cluster."""
    return subprocess.run(
        [str(SCRIPTS / "mfhq"), *arguments],
        cwd=REPOSITORY,
        env=cluster.environment,
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )


def build(cluster: Cluster, clips: Path, output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run `mfhq build` of the demo's workflow to its end."""
    return mfhq(cluster, "build", WORKFLOW, f"source.path={clips}", f"output={output}", *more)


def staged(output: Path) -> int:
    """How many videos of a build are finished."""
    return len(list(output.glob(".staging/*/??/*.parquet")))


def wait_until_staged(output: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    """Wait for a running build to have finished a number of videos."""
    while staged(output) < count:
        assert process.poll() is None, f"the build ended with {process.returncode} before"
        time.sleep(0.05)


def canonical_files(root: Path) -> dict[str, bytes]:
    """The bytes of a dataset that must be the same in every build."""
    paths = [*root.glob("*.json"), *root.glob("*.parquet"), *root.glob("*/*.tar")]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(paths)}
