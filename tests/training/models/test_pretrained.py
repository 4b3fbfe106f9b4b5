"""An encoder as files: what was saved comes back, and what is wrong is named."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from shards.atomic import OutOfSpace
from training.errors import TrainingError
from training.models.sizes import SIZES
from training.representations.omniid import OmniIDEncoder

TINY = SIZES["tiny"]


@pytest.fixture
def encoder() -> OmniIDEncoder:
    torch.manual_seed(0)
    return OmniIDEncoder(TINY)


@pytest.fixture
def folder(encoder: OmniIDEncoder, tmp_path: Path) -> Path:
    encoder.save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def test_what_was_saved_gives_the_same_tokens(encoder: OmniIDEncoder, folder: Path) -> None:
    pixels = torch.rand(2, 3, 3, TINY.side, TINY.side)
    loaded = OmniIDEncoder.from_pretrained(folder)
    assert loaded.size == TINY
    assert torch.equal(loaded(pixels), encoder(pixels))
    assert all(weight.requires_grad for weight in loaded.parameters())


def test_the_folder_holds_two_files_and_the_size_in_full(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    config = json.loads((folder / "config.json").read_text())
    assert config == {
        "format_version": "1.3",
        "kind": "omniid-encoder",
        "size": TINY.model_dump(),
        "crop_scale": None,
    }


def test_the_crop_scale_of_the_training_comes_back(encoder: OmniIDEncoder, tmp_path: Path) -> None:
    OmniIDEncoder(TINY, crop_scale=1.1).save_pretrained(tmp_path / "own")
    assert OmniIDEncoder.from_pretrained(tmp_path / "own").crop_scale == 1.1
    encoder.crop_scale = 1.3
    encoder.save_pretrained(tmp_path / "given")
    assert OmniIDEncoder.from_pretrained(tmp_path / "given").crop_scale == 1.3


def test_an_encoder_of_format_1_0_has_no_crop_scale_and_a_newer_field_is_ignored(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["crop_scale"]
    (folder / "config.json").write_text(json.dumps(config | {"format_version": "1.9", "trained_on": "mfhq"}))
    assert OmniIDEncoder.from_pretrained(folder).crop_scale is None
    (folder / "config.json").write_text(json.dumps(config | {"crop_scale": -1}))
    with pytest.raises(TrainingError, match=r"config\.json: crop_scale: .* greater than 0"):
        OmniIDEncoder.from_pretrained(folder)


def test_other_weights_can_be_saved_in_its_place(encoder: OmniIDEncoder, tmp_path: Path) -> None:
    ema = {key: value * 0.5 for key, value in encoder.state_dict().items()}
    encoder.save_pretrained(tmp_path, ema)
    loaded = OmniIDEncoder.from_pretrained(str(tmp_path)).state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in ema.items())


def test_weights_of_another_network_are_not_saved(encoder: OmniIDEncoder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="missing: query_LD"):
        encoder.save_pretrained(tmp_path / "new", {"other": torch.zeros(1)})
    assert not (tmp_path / "new").exists()


def test_a_full_disk_leaves_no_half_encoder(
    encoder: OmniIDEncoder, small_disk: Callable[[int], Path]
) -> None:
    folder = small_disk(1_000_000)
    with pytest.raises(OutOfSpace):
        encoder.save_pretrained(folder)
    with pytest.raises(TrainingError, match=r"no finished encoder"):
        OmniIDEncoder.from_pretrained(folder)


def test_a_folder_without_config_holds_no_finished_encoder(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(TrainingError, match=r"no finished encoder: it has no config\.json"):
        OmniIDEncoder.from_pretrained(folder)


def test_missing_weights_are_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(TrainingError, match=r"it has no model\.safetensors"):
        OmniIDEncoder.from_pretrained(folder)


def test_weights_cut_short_are_named(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(TrainingError, match=r"model\.safetensors cannot be read"):
        OmniIDEncoder.from_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": "3.0"}, r"format 3\.0, this code reads 2\.0"),
        ({"kind": "other"}, "not that of a representation: its kind is none of omniid-encoder"),
        ({"size": {**TINY.model_dump(), "queries": 17}}, r"query_LD is \(16, 128\), expected \(17, 128\)"),
        ({"size": {**TINY.model_dump(), "colour": 1}}, r"size\.colour: Extra inputs"),
        ({"size": {**TINY.model_dump(), "patch": 7}}, "patch 7 does not divide side 64"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_in_words(
    folder: Path, change: dict[str, object], message: str
) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(TrainingError, match=message):
        OmniIDEncoder.from_pretrained(folder)


def test_a_newer_minor_version_may_say_more(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"format_version": "1.4", "trained_on": "x"}))
    assert OmniIDEncoder.from_pretrained(folder).size == TINY


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=f"no directory {tmp_path}/none"):
        OmniIDEncoder.from_pretrained(tmp_path / "none")


def test_a_name_that_the_hub_does_not_give_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrainingError, match="no directory somebody/encoder, and the hub gives no encoder"):
        OmniIDEncoder.from_pretrained("somebody/encoder")


@pytest.mark.slow
def test_it_needs_neither_the_pipeline_nor_the_stream(folder: Path) -> None:
    code = f"""
import sys
from training.representations.omniid import OmniIDEncoder
OmniIDEncoder.from_pretrained({str(folder)!r})
heavy = ("ray", "mediapipe", "pipeline", "obstore", "training.engine")
heavy += ("training.data.dataset", "training.data.stream")
print([name for name in heavy if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
