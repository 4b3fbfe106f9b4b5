"""The images: what they copy exists and is let through, their packages are those of the project's lock."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
DOCKERFILES = [REPOSITORY / "workflows" / kind / "Dockerfile" for kind in ("curate", "train")]
LOCKS = [
    *(REPOSITORY / "workflows/curate" / name for name in ("requirements.lock", "requirements-gpu.lock")),
    REPOSITORY / "workflows/train/requirements.lock",
]
OTHERS = {"onnxruntime-gpu", "nvidia-curand"}
"""Packages that the project's own lock does not have: onnxruntime for GPUs, and what it needs beside torch's."""


def pins(lock: Path) -> dict[str, set[str]]:
    """The versions of each package."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([a-z0-9._-]+)==([^\s;]+)", lock.read_text(), re.M):
        found.setdefault(name, set()).add(version)
    return found


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Each instruction with its arguments, on one line."""
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.M).replace("\\\n", " ")
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line.strip()]


def copied(dockerfile: Path) -> set[str]:
    """What is copied from the repository, by its top-level name."""
    found = set[str]()
    for name, arguments in instructions(dockerfile):
        assert name != "ADD"  # it fetches and unpacks
        if name == "COPY" and not arguments.startswith("--from"):
            *sources, _ = arguments.split()
            for source in sources:
                assert list(REPOSITORY.glob(source)), source
                found.add(source.partition("/")[0])
    return found


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: f"{lock.parent.name}-{lock.stem}")
def test_every_package_of_an_image_has_the_version_of_the_projects_lock_and_hashes(lock: Path) -> None:
    ours, projects = pins(lock), pins(REPOSITORY / "requirements.lock")
    assert len(ours) > 50
    different = {name for name, versions in ours.items() if not versions <= projects.get(name, set())}
    assert different <= OTHERS
    requirements = re.split(r"^(?=\S)", lock.read_text(), flags=re.M)[1:]
    assert all("--hash=sha256:" in requirement for requirement in requirements)


def test_the_gpu_lock_differs_in_onnxruntime_alone() -> None:
    cpu, gpu = pins(LOCKS[0]), pins(LOCKS[1])
    changed = {name for name in cpu | gpu if cpu.get(name) != gpu.get(name)}
    assert changed == {"onnxruntime"} | OTHERS
    assert "onnxruntime" not in gpu  # both would overwrite each other's files


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_an_image_holds_all_packages_of_the_code_and_what_it_copies_is_let_through(dockerfile: Path) -> None:
    allowed = set(re.findall(r"^!(\S+)", (REPOSITORY / ".dockerignore").read_text(), re.M))
    assert copied(dockerfile) <= allowed
    own = {"curate": "pipeline", "train": "training"}[dockerfile.parent.name]
    assert copied(dockerfile) == {
        "faces",
        own,
        "settings",
        "shards",
        "storage",
        "workflows",
        "pyproject.toml",
    }


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_an_image_runs_as_an_ordinary_user_and_has_the_projects_versions(dockerfile: Path) -> None:
    final = dockerfile.read_text().rpartition("\nFROM ")[2]
    assert re.search(r"^USER 1000$", final, re.M)
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert f'image.version="{project["version"]}"' in final
    (uv,) = [text for text in project["optional-dependencies"]["dev"] if text.startswith("uv==")]
    assert f"install --no-cache-dir {uv}\n" in dockerfile.read_text()


def test_the_image_that_trains_is_that_of_the_job_on_kubernetes() -> None:
    (tag,) = re.findall(r" -t (\S+)", DOCKERFILES[1].read_text())
    assert f"image: {tag}\n" in (REPOSITORY / "workflows/launch/kubernetes.yaml").read_text()


def test_the_runtime_environment_installs_with_the_uv_of_the_project() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    (uv,) = [text for text in project["optional-dependencies"]["dev"] if text.startswith("uv==")]
    text = (REPOSITORY / "workflows/curate/runtime_env.yaml").read_text()
    assert f'uv_version: "{uv.removeprefix("uv")}"' in text


def test_the_runtime_environment_is_one_that_ray_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml
    from ray.runtime_env import RuntimeEnv

    monkeypatch.chdir(REPOSITORY)
    given = yaml.safe_load((REPOSITORY / "workflows/curate/runtime_env.yaml").read_text())
    (packages,) = RuntimeEnv(**given)["uv"]["packages"]
    directory = "-r ${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}/"
    assert packages.startswith(directory)
    assert (REPOSITORY / packages.removeprefix(directory)).is_file()


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    checked = subprocess.run([hadolint, str(dockerfile)], check=False, capture_output=True, text=True)
    assert checked.stdout == ""


def test_the_script_that_submits_is_sound() -> None:
    script = str(REPOSITORY / "workflows/curate/submit.sh")
    shellcheck = str(Path(sys.executable).parent / "shellcheck")
    assert subprocess.run([shellcheck, script], check=False).returncode == 0
    asked = subprocess.run([script], check=False, capture_output=True, text=True)
    assert asked.returncode == 2
    assert "WORKFLOW" in asked.stderr
