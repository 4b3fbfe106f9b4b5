"""A directory of FLUX: what is missing or does not fit is named before anything is trained on it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from huggingface_hub import errors
from tiny_flux import write_tiny_flux

from training.errors import TrainingError
from training.models.digest import weights_digest
from training.models.flux_folder import open_flux

REVISION = "3de623fc3c33e44ffbe2bad470d0f45bccf2eb21"
DEV = "black-forest-labs/FLUX.1-dev"


@pytest.fixture
def copy(tiny_flux: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_flux, tmp_path / "flux"))


def opened(base: Path | str, revision: str | None = None) -> Any:
    return open_flux(str(base), revision)


def edited(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def transformer(folder: Path) -> Any:
    from diffusers import FluxTransformer2DModel

    return opened(folder).load("transformer", FluxTransformer2DModel, torch.float32)


def test_a_component_is_loaded_frozen_and_in_evaluation_mode(tiny_flux: Path) -> None:
    loaded = transformer(tiny_flux)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    "part", ["transformer", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"]
)
def test_a_missing_component_is_named(copy: Path, part: str) -> None:
    shutil.rmtree(copy / part)
    with pytest.raises(TrainingError, match=rf"decoders\.flow\.base: .* has no {part}\b"):
        opened(copy)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda c: edited(c / "text_encoder_2/config.json", d_model=99),
            "joint_attention_dim is 24, text_encoder_2's d_model is 99",
        ),
        (
            lambda c: edited(c / "text_encoder/config.json", hidden_size=7),
            "pooled_projection_dim is 20, text_encoder's hidden_size is 7",
        ),
        (
            lambda c: edited(c / "vae/config.json", latent_channels=16),
            "in_channels is 16, 4 x vae's latent_channels is 64",
        ),
        (
            lambda c: edited(c / "transformer/config.json", _class_name="SD3Transformer2DModel"),
            "is of class SD3Transformer2DModel, expected FluxTransformer2DModel",
        ),
        (lambda c: (c / "vae/config.json").write_text("{"), r"vae/config\.json is not valid JSON"),
        (lambda c: (c / "vae/config.json").write_text("[]"), r"vae/config\.json does not describe a network"),
        (
            lambda c: edited(c / "transformer/config.json", in_channels=None),
            r"transformer/config\.json has no in_channels",
        ),
        (
            lambda c: edited(c / "transformer/config.json", quantization_config={"load_in_4bit": True}),
            "quantised weights",
        ),
    ],
    ids=["T5", "CLIP", "VAE", "another model", "half a file", "a list", "no size", "four bits"],
)
def test_components_that_do_not_fit_together_are_an_error(
    copy: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(copy)
    with pytest.raises(TrainingError, match=message):
        opened(copy)


def test_missing_weights_are_never_initialised_at_random(copy: Path) -> None:
    """diffusers would fill them in with random numbers and a warning."""
    from safetensors.torch import load_file, save_file

    path = copy / "transformer/diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    del weights["x_embedder.weight"]
    save_file(weights, path)
    with pytest.raises(TrainingError, match=r"transformer .*missing: x_embedder\.weight"):
        transformer(copy)


def test_weights_of_another_shape_are_an_error(copy: Path) -> None:
    edited(copy / "transformer/config.json", num_attention_heads=4)
    with pytest.raises(TrainingError, match=r"/transformer "):
        transformer(copy)


@pytest.mark.parametrize("size", [0, 1000])
def test_a_damaged_file_of_weights_is_an_error_that_names_the_component(copy: Path, size: int) -> None:
    path = copy / "transformer/diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(
        TrainingError, match=r"/transformer cannot be loaded: .*Download this component again"
    ):
        transformer(copy)


def test_a_missing_file_of_weights_is_an_error_that_names_the_component(copy: Path) -> None:
    (copy / "transformer/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(TrainingError, match=r"/transformer cannot be loaded"):
        transformer(copy)


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[dict[str, object]]:
    """The hub, as it answers those who may not, or cannot, fetch."""
    asked: list[dict[str, object]] = []

    def snapshot_download(name: str, **options: object) -> str:
        asked.append({"name": name} | options)
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return asked


def answer(kind: type[errors.HfHubHTTPError], status: int) -> errors.HfHubHTTPError:
    request = httpx2.Request("GET", f"https://huggingface.co/{DEV}")
    return kind("refused", response=httpx2.Response(status, request=request))


def test_the_error_on_a_gated_repository_explains_access(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = failing(monkeypatch, answer(errors.GatedRepoError, 403))
    with pytest.raises(TrainingError) as caught:
        opened(DEV, REVISION)
    for words in (
        "is gated",
        f"https://huggingface.co/{DEV}",
        "accept its license",
        "hf auth login",
        "HF_TOKEN",
    ):
        assert words in str(caught.value)
    assert asked[0]["revision"] == REVISION
    assert "transformer/*.safetensors*" in asked[0]["allow_patterns"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (answer(errors.RepositoryNotFoundError, 404), "the hub has no black-forest-labs/FLUX.1-dev"),
        (answer(errors.RevisionNotFoundError, 404), f"has no commit {REVISION}"),
        (
            errors.LocalEntryNotFoundError("offline"),
            "LocalEntryNotFoundError: offline.*download it elsewhere.*.`hf download",
        ),
        (answer(errors.HfHubHTTPError, 500), "cannot be fetched from the hub .HfHubHTTPError: refused"),
    ],
    ids=["no repository", "no revision", "offline", "server"],
)
def test_a_failed_download_is_a_user_facing_error(
    monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    failing(monkeypatch, error)
    with pytest.raises(TrainingError, match=message):
        opened(DEV, REVISION)


def test_nothing_is_downloaded_without_a_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = failing(monkeypatch, AssertionError())
    with pytest.raises(TrainingError, match=r"set decoders\.flow\.revision to a commit"):
        opened(DEV)
    assert not asked


def test_sizes_need_no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = failing(monkeypatch, errors.LocalEntryNotFoundError("offline"))
    with pytest.raises(TrainingError, match="cannot be fetched"):
        open_flux(DEV, REVISION, weights=())
    assert not any("safetensors" in pattern for pattern in asked[0]["allow_patterns"])


@pytest.mark.parametrize("name", ["/nowhere/flux", "./flux", "flux", "a/b/c"])
def test_a_missing_directory_is_not_searched_on_the_hub(name: str) -> None:
    with pytest.raises(TrainingError, match=r"decoders\.flow\.base: there is no directory"):
        opened(name)


def test_a_digest_depends_on_weights_and_not_on_their_precision(tiny_flux: Path, tmp_path: Path) -> None:
    one, again = transformer(tiny_flux), transformer(tiny_flux)
    assert weights_digest(one) == weights_digest(again.to(torch.bfloat16))
    other = transformer(write_tiny_flux(tmp_path / "other", seed=1))
    assert weights_digest(one) != weights_digest(other)
    with torch.no_grad():
        again.proj_out.bias += 0.1
    assert weights_digest(one) != weights_digest(again)
