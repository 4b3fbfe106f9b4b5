"""The recognition network of a representation: how faces reach it, and where its file is found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from exports import PHOTOS, WITH_RECOGNISER, Exported, called

from faces.portraits import Portrait
from faces.registry import sha256_of
from omniid import load_representation
from settings.section import ConfigError
from training.errors import TrainingError
from training.export import read_trained
from training.representations.recogniser import find_recogniser, load_recogniser
from training.trained import read_run


@pytest.fixture(scope="module")
def other_models_dir(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with another file: the same network, with a note of who made it."""
    import onnx

    folder = Path(shutil.copytree(models_dir, tmp_path_factory.mktemp("others") / "models"))
    model = onnx.load(str(folder / "own.onnx"))
    model.producer_name = "another"
    onnx.save(model, str(folder / "own.onnx"))
    entries = json.loads((folder / "models.json").read_text())
    entries["own_net"]["sha256"] = sha256_of(folder / "own.onnx")
    (folder / "models.json").write_text(json.dumps(entries))
    return folder


def test_faces_are_aligned_as_the_recognition_network_expects(portraits: list[Portrait]) -> None:
    """The landmarks in the crop give the embedding that the detector's keypoints give in the photograph."""
    recogniser = load_recogniser(find_recogniser("sface", None))
    for portrait in portraits:
        (found_E,) = recogniser(
            torch.from_numpy(portrait.image)[None], torch.from_numpy(portrait.keypoints)[None]
        ).numpy()
        assert portrait.embedding is not None
        assert found_E @ portrait.embedding > 0.9


@pytest.mark.parametrize("exported", WITH_RECOGNISER, indirect=True)
def test_a_recognition_network_that_is_not_found_is_named_with_its_file_and_the_remedy(
    exported: Exported, models_dir: Path, tmp_path: Path
) -> None:
    config = exported.folder / "encoder" / "config.json"
    for command in (
        ("encode", *PHOTOS, "--encoder", exported.folder, "-o", tmp_path / "x.safetensors"),
        ("sample", exported.folder, *PHOTOS, "-o", tmp_path / "x"),
    ):
        result = called(*command)
        assert result.exit_code == 1
        assert f"error: {config}: recogniser: " in result.output
        assert "own_net" in result.output
        assert "--models-dir DIR" in result.output
    with pytest.raises(ConfigError, match="own_net"):
        load_representation(exported.folder / "encoder")
    # A run knows where the file was in training; the same option says where it is now.
    moved = Path(shutil.copytree(models_dir, tmp_path / "moved"))
    run = Path(shutil.copytree(exported.run, tmp_path / "run"))
    facts = json.loads((run / "run.json").read_text())
    facts["config"]["representation"]["models_dir"] = str(tmp_path / "gone")
    (run / "run.json").write_text(json.dumps(facts))
    result = called("export", run, tmp_path / "out")
    assert result.exit_code == 1
    assert f"error: {run / 'run.json'}: representation.recogniser: " in result.output
    assert "--models-dir DIR" in result.output
    result = called("export", run, tmp_path / "out", "--models-dir", moved)
    assert result.exit_code == 0, result.output
    assert f"omniid.load_representation('{tmp_path}/out/encoder')" in result.output
    again = load_representation(tmp_path / "out" / "encoder", moved).state_dict()
    first = load_representation(exported.folder / "encoder", models_dir).state_dict()
    assert all(torch.equal(again[name], value) for name, value in first.items())


@pytest.mark.parametrize("exported", WITH_RECOGNISER, indirect=True)
def test_a_recognition_network_that_is_another_one_now_is_an_error(
    exported: Exported, other_models_dir: Path
) -> None:
    with pytest.raises(
        TrainingError, match=r"other weights now than in training \(.*representation\.recogniser\)"
    ):
        read_run(exported.run, models_dir=other_models_dir)
    with pytest.raises(ConfigError, match=r"config\.json: trained on own_net with sha256 fb143eea"):
        load_representation(exported.folder / "encoder", other_models_dir)


def test_an_export_whose_parts_are_of_two_kinds_is_an_error_before_tensors_are_read(
    exported: Exported, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(exported.folder, tmp_path / "copy"))
    (copy / "encoder" / "model.safetensors").write_bytes(b"not read")
    facts = json.loads((copy / "omniid.json").read_text())
    kind = facts["representation"]
    other = "clip" if kind == "omniid" else "omniid"
    (copy / "omniid.json").write_text(json.dumps(facts | {"representation": other}))
    with pytest.raises(TrainingError, match=rf"kind {kind}, but .*omniid\.json says {other}: .* Export"):
        read_trained(copy)
