"""A scratch transformer that is trained on latents: the autoencoder comes from a directory of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from flow_runs import SCRATCH, SIDE, as_trained, decoder_of, flow_config, flow_decoder, write_run
from tiny_flux import LATENT_CHANNELS, write_tiny_flux

from training.config import Config
from training.errors import TrainingError
from training.export import export, exported_files, read_trained
from training.model import build_model, meta_model
from training.models.flux_latents import VaeCodec
from training.sampling.sampler import Sampler

CPU = torch.device("cpu")


def on_latents(vae: Path, **flow: object) -> Config:
    """A configuration of a transformer on the latents of an autoencoder."""
    return flow_config(None, None, {"scratch": SCRATCH | {"patch": None, "vae": str(vae)}} | flow)


def test_it_learns_in_latents_and_the_autoencoder_does_not(tiny_flux: Path, make_batch) -> None:
    model = build_model(on_latents(tiny_flux / "vae"))
    decoder = decoder_of(model)
    assert isinstance(decoder.codec, VaeCodec)
    assert decoder.transformer.config.in_channels == 4 * LATENT_CHANNELS
    model(make_batch(people=2)).backward()
    assert decoder.transformer.x_embedder.weight.grad is not None
    assert not any("vae" in name or "codec" in name for name, _ in model.named_parameters())
    assert all(not weight.requires_grad for weight in decoder.codec.network.parameters())


def test_shapes_without_weights_are_the_same(tiny_flux: Path) -> None:
    config = on_latents(tiny_flux / "vae")
    real, meta = build_model(config), meta_model(config)
    assert {name: weight.shape for name, weight in real.named_parameters()} == {
        name: weight.shape for name, weight in meta.named_parameters()
    }


def test_a_run_and_its_export_give_the_same_image_wherever_the_autoencoder_has_gone(
    tiny_flux: Path, tmp_path: Path
) -> None:
    vae = Path(shutil.copytree(tiny_flux / "vae", tmp_path / "vae"))
    config = on_latents(vae)
    run = write_run(tmp_path / "run", config, as_trained(build_model(config)))
    facts = export(run, tmp_path / "out")
    assert {path.name for path in exported_files(tmp_path / "out", facts) if path.parent.name == "vae"} == {
        "config.json",
        "diffusion_pytorch_model.safetensors",
    }
    assert str(tmp_path) not in (tmp_path / "out" / "omniid.json").read_text()
    portrait = torch.randint(0, 256, (512, 512, 3), dtype=torch.uint8).numpy()
    warnings: list[str] = []

    def sampled(source: Path, base: Path | None = None) -> np.ndarray:
        where = str(base) if base else None
        sampler = Sampler.load(read_trained(source), CPU, base=where, say=warnings.append)
        return sampler.generate(sampler.encode([portrait]), [0], steps=2)[0]

    image = sampled(run)
    assert image.shape == (SIDE, SIDE, 3)
    moved = vae.rename(tmp_path / "moved")
    assert np.array_equal(image, sampled(tmp_path / "out"))
    assert np.array_equal(image, sampled(run, moved))
    with pytest.raises(TrainingError, match=rf"was trained around {vae}, which is not there.*--base"):
        sampled(run)
    with pytest.raises(TrainingError, match=r"config\.json is missing\. Put it back"):
        export(run, tmp_path / "again")
    assert not warnings
    other = write_tiny_flux(tmp_path / "other", seed=1) / "vae"
    sampled(run, other)
    assert warnings == [
        f"warning: this autoencoder ({other}) has other weights than in the training of {run}"
    ]


def test_latents_of_another_scale_are_another_autoencoder_s(tiny_flux: Path, tmp_path: Path) -> None:
    """The weights are the same: kept latents and resumed runs would not notice."""
    wider = Path(shutil.copytree(tiny_flux / "vae", tmp_path / "vae"))
    config = json.loads((wider / "config.json").read_text())
    (wider / "config.json").write_text(json.dumps(config | {"scaling_factor": 2.0}))
    ours, theirs = (flow_decoder(on_latents(vae)) for vae in (tiny_flux / "vae", wider))
    assert ours.codec.name != theirs.codec.name
    assert ours.frozen_digest != theirs.frozen_digest


def test_its_directory_may_move_and_options_of_sampling_may_change(tiny_flux: Path) -> None:
    def defining(**flow: object) -> dict[str, object]:
        found: dict[str, object] = on_latents(tiny_flux / "vae", **flow).defining()["decoders"]["flow"]
        return found

    plain = defining()
    assert plain["scratch"]["vae"] == "vae"
    guided = defining(sample_identity_guidance=2.0, sample_steps=3, identity_dropout=0.1)
    assert guided == plain | {"identity_dropout": 0.1}


def test_an_autoencoder_that_does_not_fit_is_refused_with_its_reason(tiny_flux: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=rf"Did you mean {tiny_flux}/vae\?"):
        flow_decoder(on_latents(tiny_flux))
    with pytest.raises(TrainingError, match=r"is of class FluxTransformer2DModel, expected AutoencoderKL"):
        flow_decoder(on_latents(tiny_flux / "transformer"))
    deep = Path(shutil.copytree(tiny_flux / "vae", tmp_path / "deep"))
    config = json.loads((deep / "config.json").read_text())
    config["block_out_channels"] = [4, 4, 4, 8, 8]
    config["down_block_types"] += ["DownEncoderBlock2D"]
    config["up_block_types"] += ["UpDecoderBlock2D"]
    (deep / "config.json").write_text(json.dumps(config))
    with pytest.raises(TrainingError, match=r"decoders\.flow\.side: 48 pixels .* give a multiple of 32"):
        meta_model(on_latents(deep, side=48))
    with pytest.raises(TrainingError, match=r"cannot be loaded: .* expected shape"):
        flow_decoder(on_latents(deep))
    (deep / "diffusion_pytorch_model.safetensors").rename(deep / "diffusion_pytorch_model.bin")
    with pytest.raises(TrainingError, match=r"cannot be loaded"):
        flow_decoder(on_latents(deep))
    (deep / "config.json").write_text(json.dumps(config | {"down_block_types": ["Nope"] * 5}))
    with pytest.raises(TrainingError, match=r"deep cannot be loaded"):
        meta_model(on_latents(deep))
    for scratch, message in (
        ({"patch": None}, "expected patch, to generate pixels, or vae, to generate latents"),
        (
            {"vae": str(deep)},
            r"expected either patch \(given: 4\), .* as decoders\.flow\.scratch\.patch=null",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            flow_config(None, None, {"scratch": SCRATCH | scratch})
