"""Options and fixtures that all tests share."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from seaweed import S3Server, serving

FOLDER_OPTIONS = {
    "clips": "folder of real talking-head clips with a MANIFEST.tsv",
    "weights": "folder of real networks (insightface/det_2.5g.onnx, MobileFaceNet_foamliu.onnx)",
    "faces": "folder of LFW images, one sub-folder a person",
    "metadata": "folder of the datasets' genuine annotation files",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    for name, text in FOLDER_OPTIONS.items():
        parser.addoption(
            f"--{name}",
            type=Path,
            default=None,
            metavar="DIR",
            help=f"{text}; without it, its tests are skipped",
        )
    parser.addoption(
        "--download",
        action="store_true",
        help="also run tests that download the pipeline's packages (4 GB) from the package index",
    )
    parser.addoption(
        "--rayjob-crd",
        type=Path,
        default=None,
        metavar="FILE",
        help="KubeRay's ray.io_rayjobs.yaml, of its Helm chart; without it, its test is skipped",
    )


def _folder(request: pytest.FixtureRequest, name: str) -> Path:
    folder: Path | None = request.config.getoption(f"--{name}")
    if folder is None or not folder.is_dir():
        pytest.skip(f"--{name} names no folder: {FOLDER_OPTIONS[name]}")
    return folder


@pytest.fixture(scope="session")
def clips(request: pytest.FixtureRequest) -> Path:
    return _folder(request, "clips")


@pytest.fixture(scope="session")
def weights(request: pytest.FixtureRequest) -> Path:
    return _folder(request, "weights")


@pytest.fixture(scope="session")
def faces_folder(request: pytest.FixtureRequest) -> Path:
    return _folder(request, "faces")


@pytest.fixture(scope="session")
def metadata(request: pytest.FixtureRequest) -> Path:
    return _folder(request, "metadata")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server."""
    with serving(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


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
    monkeypatch.setattr("storage.backends.STALL_S", 0.5)


@pytest.fixture(autouse=True)
def _ordinary_priority() -> Iterator[None]:
    """Undo what SVT-AV1 does when root encodes a clip: real-time priority, which starves the machine."""
    yield
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Gives a real file system of a given size in bytes; a second call changes its size."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = False

    def resize(size: int) -> Path:
        nonlocal mounted
        options = f"size={size}" + (",remount" if mounted else "")
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
        result = subprocess.run(command, check=False, capture_output=True, text=True)
        if result.returncode and not mounted:
            pytest.skip(f"a small file system cannot be mounted here: {result.stderr.strip()}")
        assert result.returncode == 0, result.stderr
        mounted = True
        return disk / "mfhq"

    yield resize
    if mounted:
        subprocess.run(["umount", str(disk)], check=True)
