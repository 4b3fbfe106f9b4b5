"""The wheel in empty environments: it installs one name, and each extra brings what its public name needs.

What comes out is compared with what the source tree gives. Packages come from the package index, in the versions
of the project's lock; uv links those that `make setup` has downloaded.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPTS = Path(sys.executable).parent
UV = str(SCRIPTS / "uv")
USES = Path(__file__).parent / "uses.py"
PACKAGES = ("faces", "pipeline", "settings", "shards", "storage", "training")
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Environment:
    """A virtual environment."""

    folder: Path

    @property
    def python(self) -> str:
        """Its interpreter."""
        return str(self.folder / "bin" / "python")

    def install(self, *arguments: str) -> None:
        """Install packages with uv."""
        run([UV, "pip", "install", "--quiet", "--python", self.python, *arguments])

    def run(self, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one of its commands, or `python`, away from the source tree."""
        command, *rest = map(str, arguments)
        return run([str(self.folder / "bin" / command), *rest], cwd=self.folder, check=check)

    def uses(self, *arguments: object) -> dict:
        """What `uses.py` prints here; `-I` keeps this process's paths out."""
        return json.loads(self.run("python", "-I", USES, *arguments).stdout)


def run(command: list[str], cwd: Path | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command without what the environment says of Python's paths."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
    }
    ended = subprocess.run(command, cwd=cwd, env=kept, capture_output=True, text=True, check=False)
    assert not check or ended.returncode == 0, ended.stderr
    return ended


def version_of(wheel: Path) -> str:
    """The version in a wheel's name."""
    return wheel.name.split("-")[1]


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=repository)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(
    wheel: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Environment]]:
    """Makes an environment that has the wheel with some extras; one of these at a time is on the disk."""
    asked = subprocess.run(
        [UV, "pip", "compile", "--quiet", "--refresh", "-"],
        input="typer",
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode:
        pytest.skip(f"no package index can be reached: {(asked.stderr.strip().splitlines() or ['?'])[-1]}")
    made: list[Path] = []

    def make(extras: str) -> Environment:
        if made:
            shutil.rmtree(made.pop())
        folder = tmp_path_factory.mktemp("environment")
        made.append(folder)
        run([UV, "venv", "--quiet", "--clear", f"--python={sys.executable}", str(folder)])
        environment = Environment(folder)
        wanted = f"omniid[{extras}]" if extras else "omniid"
        lock = str(repository / "requirements.lock")
        environment.install("--constraints", lock, f"{wanted} @ {wheel.as_uri()}")
        return environment

    yield make
    for folder in made:
        shutil.rmtree(folder)


@pytest.fixture
def from_source(repository: Path) -> Callable[..., dict]:
    """What `uses.py` gives in the source tree."""

    def use(*arguments: object) -> dict:
        command = [sys.executable, str(USES), *map(str, arguments)]
        paths = os.environ | {"PYTHONPATH": str(repository)}
        return json.loads(subprocess.run(command, env=paths, check=True, capture_output=True).stdout)[
            "result"
        ]

    return use


def test_the_wheel_holds_one_package_and_every_file_of_the_repository_s_packages(
    wheel: Path, repository: Path
) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert len(names) == len(set(names))
    assert {name.partition("/")[0] for name in names} == {"omniid", f"omniid-{version_of(wheel)}.dist-info"}
    listed = run(["git", "ls-files", "omniid", *PACKAGES], cwd=repository).stdout.splitlines()
    expected = {name if name.startswith("omniid/") else f"omniid/{name}" for name in listed}
    assert {name for name in names if ".dist-info/" not in name} == expected


def test_two_builds_have_the_same_bytes(wheel: Path, repository: Path, tmp_path: Path) -> None:
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=repository)
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (wheel, tmp_path / wheel.name)}
    assert len(digests) == 1


def test_a_source_distribution_gives_the_same_wheel(wheel: Path, repository: Path, tmp_path: Path) -> None:
    run([sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)], cwd=repository)
    (archive,) = tmp_path.glob("*.tar.gz")
    shutil.unpack_archive(archive, tmp_path)
    source = tmp_path / archive.name.removesuffix(".tar.gz")
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=source)
    with zipfile.ZipFile(tmp_path / wheel.name) as one, zipfile.ZipFile(wheel) as other:
        assert {info.filename: info.CRC for info in one.infolist()} == {
            info.filename: info.CRC for info in other.infolist()
        }


def test_alone_it_installs_one_name_reads_datasets_and_names_the_extras(
    environment: Callable[[str], Environment],
    from_source: Callable[..., dict],
    wheel: Path,
    mfhq: Path,
    photo: Path,
) -> None:
    here = environment("")
    (record,) = here.folder.glob("lib/python3.11/site-packages/omniid-*.dist-info/RECORD")
    with record.open() as file:
        files = [row[0] for row in csv.reader(file)]
    assert {name.partition("/")[0] for name in files} == {"..", "omniid", record.parent.name}
    assert {name for name in files if name.startswith("..")} == {"../../../bin/mfhq", "../../../bin/omniid"}

    used = here.uses("dataset", mfhq)
    assert used == {"result": from_source("dataset", mfhq), "others": [], "torch": False}

    for command in ("mfhq", "omniid"):
        assert here.run(command, "--version").stdout == f"{command} {version_of(wheel)}\n"
    assert "Encode photos of one person" in here.run("omniid", "encode", "--help").stdout
    ended = here.run("omniid", "encode", photo, "--encoder", "x", check=False)
    assert ended.returncode == 1
    assert ended.stderr.strip().endswith('Run: pip install "omniid[encoder,faces,embedded]"')
    code = "from omniid import OmniIDEncoder"
    ended = here.run("python", "-I", "-c", code, check=False)
    assert 'needs the Python package torch, which is not installed. Run: pip install "omniid[encoder]"' in (
        ended.stderr
    )


def test_with_encoder_an_exported_encoder_gives_the_tokens_of_the_source_tree(
    environment: Callable[[str], Environment], from_source: Callable[..., dict], encoder: Path
) -> None:
    expected = from_source("tokens", encoder)
    assert expected["shape"] == [1, 16, 128]
    assert expected["crop_scale"] == 1.1
    assert environment("encoder").uses("tokens", encoder) == {"result": expected, "others": [], "torch": True}


def test_with_faces_photos_become_the_portraits_and_the_tokens_of_the_source_tree(
    environment: Callable[[str], Environment],
    from_source: Callable[..., dict],
    encoder: Path,
    photo: Path,
    tmp_path: Path,
) -> None:
    here = environment("encoder,faces,embedded")
    expected = from_source("portraits", photo, encoder)
    assert len(expected["images"]) == 1
    assert here.uses("portraits", photo, encoder) == {"result": expected, "others": [], "torch": True}
    files = [tmp_path / name for name in ("here.safetensors", "source.safetensors")]
    here.run("omniid", "encode", photo, "--encoder", encoder, "--device", "cpu", "-o", files[0])
    code = "from training.cli import main; main()"
    arguments = ["encode", photo, "--encoder", encoder, "--device", "cpu", "-o", files[1]]
    subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], check=True, cwd=Path(__file__).parents[2]
    )
    assert files[0].read_bytes() == files[1].read_bytes()


def test_an_editable_installation_has_the_layout_of_the_repository(
    environment: Callable[[str], Environment], wheel: Path, repository: Path
) -> None:
    """The command of `make setup`."""
    here = environment("")
    here.install("hatchling")
    here.install("--no-deps", "--no-build-isolation", "--editable", str(repository))
    code = "import omniid, pipeline, shards; print(omniid.__file__, pipeline.__file__, shards.__file__)"
    assert here.run("python", "-I", "-c", code).stdout.split() == [
        str(repository / name / "__init__.py") for name in ("omniid", "pipeline", "shards")
    ]
    for command in ("mfhq", "omniid"):
        assert here.run(command, "--version").stdout == f"{command} {version_of(wheel)}\n"


def test_the_commands_of_the_wheel_build_a_dataset_and_train_on_it(
    wheel: Path, repository: Path, tmp_path: Path
) -> None:
    """Sandboxed decoders, Ray's workers and templates find their modules. Other packages are this process's."""
    site, clips, root, output = (tmp_path / name for name in ("site", "clips", "mfhq", "run"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (tmp_path / "commands.py").write_text(
        "import sys\n"
        "from omniid import commands\n"
        "command, sys.argv = sys.argv[1], sys.argv[1:]\n"
        "try:\n"
        "    getattr(commands, command)()\n"
        "finally:\n"
        f"    others = {{*{PACKAGES!r}}} & set(sys.modules)\n"
        "    assert not others, others\n"
    )

    def called(*arguments: object) -> str:
        command = [sys.executable, str(tmp_path / "commands.py"), *map(str, arguments)]
        paths = os.environ | {"PYTHONPATH": str(site)}
        ended = subprocess.run(
            command, cwd=tmp_path, env=paths, capture_output=True, text=True, check=False, timeout=540
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    workflows = repository / "workflows"
    called("mfhq", "demo-clips", clips)
    called("mfhq", "build", workflows / "curate_demo.yaml", f"source.path={clips}", f"output={root}")
    called("mfhq", "verify", root)
    assert "<html" in (root / "report" / "index.html").read_text()
    videos = {video.video_id: video.status.value for video in _dataset(root).videos()}
    assert sum(status == "accepted" for status in videos.values()) == 9
    tiny = workflows / "train_mtd_tiny.yaml"
    called("omniid", "train", tiny, f"data.root={root}", f"output={output}", "steps=2")
    config = json.loads((output / "encoder" / "config.json").read_text())
    assert config["crop_scale"] == 1.6


def _dataset(root: Path):
    from omniid import open_dataset

    return open_dataset(root)
