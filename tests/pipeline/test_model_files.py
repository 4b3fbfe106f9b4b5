"""Networks in an object store are copied to each machine once, and checked there."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from seaweed import S3Server

from faces.registry import MODELS, WeightsUnavailable, locate
from pipeline.errors import MachineFault
from pipeline.model_files import load_models, on_this_machine
from storage.path import path_of

pytestmark = pytest.mark.usefixtures("credentials")


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


@pytest.fixture
def models_dir(s3: S3Server, tmp_path: Path) -> str:
    """One network of one's own, a real file under another name."""
    packaged = locate(MODELS["sface"], None)
    assert packaged is not None
    folder = tmp_path / "models"
    folder.mkdir()
    content = packaged.read_bytes()
    (folder / "mine.onnx").write_bytes(content)
    own = {
        "file": "mine.onnx",
        "sha256": hashlib.sha256(content).hexdigest(),
        "license": "own",
        "kind": "sface",
        "normalisation": "none",
        "same_person_cosine": 0.5,
    }
    (folder / "models.json").write_text(json.dumps({"mine": own}))
    return s3.upload(folder, "networks", tmp_path.name)


def test_models_of_a_bucket_are_found_beside_those_of_wheels(models_dir: str, scratch: Path) -> None:
    weights = load_models(["mine", "yunet"], path_of(models_dir))
    assert weights["mine"].path.is_relative_to(scratch)
    assert not weights["yunet"].path.is_relative_to(scratch)
    assert load_models(["mine"], path_of(models_dir)) == {"mine": weights["mine"]}


def test_another_machine_copies_them_when_it_needs_them(models_dir: str) -> None:
    address = path_of(models_dir)
    weights = load_models(["mine"], address)
    weights["mine"].path.unlink()
    assert on_this_machine(weights, address) == weights
    assert weights["mine"].path.is_file()


def test_a_network_that_was_replaced_in_the_meantime_ends_the_build(models_dir: str) -> None:
    address = path_of(models_dir)
    weights = load_models(["mine"], address)
    # Of the same size, and with the copy of the other still there.
    (address / "mine.onnx").write_bytes(weights["mine"].path.read_bytes()[:-1] + b"!")
    with pytest.raises(MachineFault, match=r"mine\.onnx is not the file that this build has checked"):
        on_this_machine(weights, address)


def test_a_network_that_is_not_there_is_named_with_its_remedy(models_dir: str) -> None:
    with pytest.raises(WeightsUnavailable, match=r"scrfd_10g: .* is missing") as caught:
        load_models(["scrfd_10g"], path_of(models_dir))
    assert "`mfhq models pull --models-dir DIR scrfd_10g`" in str(caught.value)
    assert f"copy the file to {models_dir}/" in str(caught.value)
