"""What `omniid` gives to other programs, and what it says when packages are missing."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import numpy as np
import pytest

import omniid
from faces.photograph import PhotographError, read_photograph
from faces.portraits import PortraitFinder
from omniid.public import INCLUDED, PACKAGES, MissingPackage, load, missing_packages
from shards.metadata import DatasetError
from shards.reader import Dataset
from shards.schema import Split


def printed(code: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def without(package: str, code: str) -> str:
    """What a fresh interpreter prints that has a package not."""
    return printed(f"import sys; sys.modules[{package!r}] = None\n{code}")


def test_importing_omniid_imports_no_package_but_itself() -> None:
    code = (
        "import sys; before = set(sys.modules)\n"
        "import omniid\n"
        "assert dir(omniid).count('OmniIDEncoder') == 1\n"
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before} - "
        "set(sys.stdlib_module_names)))"
    )
    assert printed(code).strip() == "['omniid']"


def test_the_dataset_needs_neither_torch_nor_mediapipe(mfhq: Path) -> None:
    code = (
        f"import omniid, sys\nlist(omniid.open_dataset({str(mfhq)!r}).samples())\n"
        "print({'torch', 'mediapipe', 'typer', 'ray'} & set(sys.modules))"
    )
    assert printed(code).strip() == "set()"


def test_a_name_is_loaded_once_and_an_unknown_one_is_an_attribute_error() -> None:
    assert omniid.OmniIDEncoder is omniid.OmniIDEncoder
    assert omniid.OmniIDEncoder is load("OmniIDEncoder")
    with pytest.raises(AttributeError, match="module 'omniid' has no attribute 'encoder_of_faces'"):
        omniid.encoder_of_faces  # noqa: B018


@pytest.mark.parametrize(
    ("name", "package", "install"),
    [
        ("OmniIDEncoder", "torch", "omniid[encoder]"),
        ("load_representation", "torch", "omniid[encoder]"),
        ("image_embeds", "torch", "omniid[encoder]"),
        ("find_portraits", "cv2", "omniid[faces,embedded]"),
        ("open_dataset", "pyarrow", "omniid"),
    ],
)
def test_a_missing_package_is_named_with_what_to_install(name: str, package: str, install: str) -> None:
    code = f"try:\n    from omniid import {name}\nexcept ImportError as error:\n    print(error)"
    assert without(package, code).strip() == (
        f"omniid.{name} needs the Python package {package}, which is not installed. "
        f'Run: pip install "{install}"'
    )


def test_a_missing_package_is_an_import_error_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(MissingPackage) as caught, missing_packages("it", "training"):
        import safetensors  # noqa: F401
    assert isinstance(caught.value, ImportError)
    assert caught.value.name == "safetensors"


@pytest.mark.parametrize(
    "module", ["a_package_that_is_nowhere", "torch.a_module_that_is_nowhere", "mediapipe"]
)
def test_a_module_that_the_extra_does_not_bring_keeps_its_own_error(
    monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    """A dependency of a dependency, another version of a package, or a package of another extra."""
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(ModuleNotFoundError, match=module) as caught, missing_packages("it", "encoder"):
        importlib.import_module(module)
    assert not isinstance(caught.value, MissingPackage)


def test_the_modules_of_the_extras_are_those_of_the_packages_in_pyproject(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    modules: dict[str, set[str]] = {}
    for module, names in packages_distributions().items():
        for name in names:
            modules.setdefault(_canonical(name), set()).add(module)
    extras = {"": project["dependencies"], **project["optional-dependencies"]}
    del extras["dev"]
    assert extras.keys() == PACKAGES.keys()
    for extra, requirements in extras.items():
        named = PACKAGES[extra].split()
        wanted = [_canonical(re.split(r"[<>=\[ ;]", line)[0]) for line in requirements]
        others = [f"omniid[{other}]" for other in INCLUDED.get(extra, ())]
        assert [line for line in requirements if line.startswith("omniid[")] == others
        wanted = [name for name in wanted if name != "omniid"]
        assert len(named) == len(wanted)
        for distribution in wanted:
            assert {name.partition(".")[0] for name in named} & modules[distribution], distribution


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize(
    ("command", "arguments", "package", "install"),
    [
        ("mfhq", ["--help"], "typer", "omniid[pipeline,embedded]"),
        ("omniid", ["encode", "a.jpg", "--encoder", "b"], "torch", "omniid[encoder,faces,embedded]"),
        ("omniid", ["export", "a", "b"], "torch", "omniid[training,faces,embedded]"),
    ],
)
def test_a_command_without_its_packages_says_what_to_install(
    command: str, arguments: list[str], package: str, install: str
) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None; sys.argv = {[command, *arguments]!r}\n"
        f"from omniid.commands import {command}; {command}()"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert ran.returncode == 1
    assert ran.stderr.strip() == (
        f"error: {command} needs the Python package {package}, which is not installed. "
        f'Run: pip install "{install}"'
    )


def test_a_dataset_is_opened_by_its_path_and_gives_samples_and_tables(mfhq: Path, tmp_path: Path) -> None:
    dataset = omniid.open_dataset(mfhq)
    assert isinstance(dataset, Dataset)
    assert dataset.keys(Split.TRAIN) == ["clip-a_0", "clip-b_0", "clip-c_0", "clip-d_0"]
    assert dataset.sample("clip-b_1").record.key == "clip-b_1"
    assert omniid.open_dataset(str(mfhq)).images().num_rows == 8 * len(dataset.keys())
    with pytest.raises(DatasetError, match="is no finished dataset"):
        omniid.open_dataset(tmp_path)


def test_a_dataset_in_an_object_store_is_opened_by_its_url(mfhq: Path, s3, credentials) -> None:
    url = s3.upload(mfhq, "public", "mfhq")
    remote, local = omniid.open_dataset(url), omniid.open_dataset(mfhq)
    assert list(remote.samples()) == list(local.samples())


def test_portraits_are_those_of_the_pipeline_s_parts(photo: Path) -> None:
    image = read_photograph(photo)
    (expected,) = PortraitFinder.load("embedded").find(image, 1.1)
    for given in (photo, str(photo), image):
        (portrait,) = omniid.find_portraits(given, crop_scale=1.1)
        assert np.array_equal(portrait.image, expected.image)
        assert portrait.crop_scale == 1.1
    (usual,) = omniid.find_portraits(photo, crop_scale=None)
    assert usual.crop_scale == 1.6
    with pytest.raises(PhotographError, match="does not exist"):
        omniid.find_portraits("nowhere.jpg", crop_scale=1.6)
    with pytest.raises(TypeError, match="crop_scale"):
        omniid.find_portraits(photo)  # type: ignore[call-arg]


def test_the_encoder_takes_these_portraits(photo: Path, encoder: Path) -> None:
    network = omniid.OmniIDEncoder.from_pretrained(encoder).eval()
    portraits = omniid.find_portraits(photo, crop_scale=network.crop_scale)
    assert network.encode_portraits(portraits).shape == (network.size.queries, network.size.width)
