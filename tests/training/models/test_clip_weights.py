"""Weights of the tower: read from files of every kind, and rejected with the reason."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from small_clip import TINY, whole_clip

from settings.section import ConfigError
from training.errors import TrainingError
from training.models.clip import ClipTower
from training.models.clip_weights import HUB_REPOSITORY, load_clip, read_tower
from training.models.sizes import SIZES


@pytest.fixture
def clip() -> open_clip.CLIP:
    return whole_clip()


def assert_is_tower_of(clip: open_clip.CLIP, weights: dict[str, torch.Tensor]) -> None:
    tower = ClipTower(TINY)
    tower.visual.load_state_dict(weights, strict=True)
    expected = clip.visual.state_dict()
    assert set(weights) == set(expected) - {"proj"}
    assert all(torch.equal(value, expected[key]) for key, value in tower.visual.state_dict().items())


def test_the_tower_is_taken_out_of_a_whole_clip_model(clip: open_clip.CLIP, tmp_path: Path) -> None:
    save_file(clip.state_dict(), tmp_path / "clip.safetensors")
    assert_is_tower_of(clip, read_tower(tmp_path / "clip.safetensors", TINY))


def test_a_file_with_only_the_tower_is_read(clip: open_clip.CLIP, tmp_path: Path) -> None:
    save_file(clip.visual.state_dict(), tmp_path / "tower.safetensors")
    assert_is_tower_of(clip, read_tower(tmp_path / "tower.safetensors", TINY))


def test_torch_s_own_files_are_read(clip: open_clip.CLIP, tmp_path: Path) -> None:
    torch.save(clip.state_dict(), tmp_path / "clip.bin")
    assert_is_tower_of(clip, read_tower(tmp_path / "clip.bin", TINY))


def test_a_checkpoint_of_open_clip_s_trainer_is_read(clip: open_clip.CLIP, tmp_path: Path) -> None:
    state = {f"module.{key}": value for key, value in clip.state_dict().items()}
    torch.save({"epoch": 3, "name": "run", "state_dict": state}, tmp_path / "epoch_3.pt")
    assert_is_tower_of(clip, read_tower(tmp_path / "epoch_3.pt", TINY))


class Intruder:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code from a file of weights was run",)


def test_code_in_a_file_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"visual.conv1.weight": Intruder()}, tmp_path / "clip.pt")
    with pytest.raises(TrainingError, match=r"clip\.pt cannot be read as weights"):
        read_tower(tmp_path / "clip.pt", TINY)
    assert "was run" not in capsys.readouterr().out


def test_a_missing_file_is_named_with_the_other_choices(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=rf"no file {tmp_path}/clip\.bin.*`hub`.*`random`"):
        load_clip(str(tmp_path / "clip.bin"), "tiny")


def test_random_keeps_the_initial_weights() -> None:
    assert load_clip("random", "tiny") is None


def test_the_digest_is_checked_when_it_is_given(clip: open_clip.CLIP, tmp_path: Path) -> None:
    path = tmp_path / "clip.safetensors"
    save_file(clip.state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    loaded = load_clip(str(path), "tiny", digest)
    assert loaded is not None
    assert_is_tower_of(clip, loaded)
    with pytest.raises(TrainingError, match=f"has sha256 {digest}, expected {'0' * 64}"):
        load_clip(str(path), "tiny", "0" * 64)


def test_differences_are_named_key_by_key(clip: open_clip.CLIP, tmp_path: Path) -> None:
    state = dict(clip.state_dict())
    del state["visual.ln_pre.weight"]
    state["visual.extra"] = torch.zeros(1)
    state["visual.conv1.weight"] = torch.zeros(128, 3, 16, 16)
    save_file(state, tmp_path / "clip.safetensors")
    with pytest.raises(TrainingError) as caught:
        read_tower(tmp_path / "clip.safetensors", TINY)
    assert "missing: ln_pre.weight" in str(caught.value)
    assert "unknown: extra" in str(caught.value)
    assert "conv1.weight is (128, 3, 16, 16), expected (128, 3, 8, 8)" in str(caught.value)


def test_weights_of_another_size_are_an_error_that_names_five_keys(
    clip: open_clip.CLIP, tmp_path: Path
) -> None:
    save_file(clip.state_dict(), tmp_path / "clip.safetensors")
    with pytest.raises(TrainingError, match=r"missing: (\S+, ){4}\S+ and \d+ more") as caught:
        read_tower(tmp_path / "clip.safetensors", SIZES["small"])
    assert len(str(caught.value)) < 1500


def test_a_damaged_file_is_named(clip: open_clip.CLIP, tmp_path: Path) -> None:
    for name in ("clip.safetensors", "clip.bin"):
        (tmp_path / name).write_bytes(b"\x20" + bytes(100))
        with pytest.raises(TrainingError, match=f"{name} cannot be read as weights"):
            read_tower(tmp_path / name, TINY)


@pytest.mark.parametrize("quick", [True, False])
def test_weights_of_another_activation_are_an_error_if_the_configuration_names_it(
    quick: bool, clip: open_clip.CLIP, tmp_path: Path
) -> None:
    save_file(clip.state_dict(), tmp_path / "open_clip_model.safetensors")
    about = {"model_cfg": {"embed_dim": 32, "quick_gelu": quick}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(about))
    if quick:
        with pytest.raises(TrainingError, match=r"safetensors was trained with QuickGELU.*computes GELU"):
            read_tower(tmp_path / "open_clip_model.safetensors", TINY)
    else:
        assert_is_tower_of(clip, read_tower(tmp_path / "open_clip_model.safetensors", TINY))


def test_the_hub_s_weights_need_the_paper_s_size() -> None:
    with pytest.raises(ConfigError, match=r"representation\.clip.*ViT-H-14.*tiny"):
        load_clip("hub", "tiny")


def test_an_unreachable_hub_is_an_error_that_names_the_file_and_its_digest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(TrainingError, match=rf"{HUB_REPOSITORY}.*copy the file.*sha256 is 0084e753"):
        load_clip("hub", "paper")
