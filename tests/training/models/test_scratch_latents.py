"""A transformer of one's own that draws latents: an autoencoder from a folder of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from flow_runs import SCRATCH, SIDE, as_trained, flow_config, flow_stage, write_run
from tiny_flux import LATENT_CHANNELS, write_tiny_flux

from training.config import Config
from training.errors import TrainingError
from training.export import export, read_trained
from training.models.flow_build import meta_flow_stage
from training.models.flux_latents import VaeCodec
from training.sampling.sampler import Sampler

CPU = torch.device("cpu")


def on_latents(vae: Path, **flow: object) -> Config:
    """A configuration of a transformer on the latents of an autoencoder."""
    return flow_config(None, None, {"scratch": SCRATCH | {"patch": None, "vae": str(vae)}} | flow)


def test_it_learns_in_latents_and_the_autoencoder_does_not(tiny_flux: Path, make_batch) -> None:
    stage = flow_stage(on_latents(tiny_flux / "vae"))
    assert isinstance(stage.codec, VaeCodec)
    assert stage.transformer.config.in_channels == 4 * LATENT_CHANNELS
    stage(make_batch(people=2)).backward()
    assert stage.transformer.x_embedder.weight.grad is not None
    assert not any("vae" in name or "codec" in name for name, _ in stage.named_parameters())
    assert all(not weight.requires_grad for weight in stage.codec.network.parameters())


def test_shapes_without_weights_are_the_same(tiny_flux: Path) -> None:
    config = on_latents(tiny_flux / "vae")
    real, meta = flow_stage(config), meta_flow_stage(config)
    assert {name: weight.shape for name, weight in real.named_parameters()} == {
        name: weight.shape for name, weight in meta.named_parameters()
    }


def test_a_run_and_its_export_draw_alike_and_another_autoencoder_is_said(
    tiny_flux: Path, tmp_path: Path
) -> None:
    vae = Path(shutil.copytree(tiny_flux / "vae", tmp_path / "vae"))
    config = on_latents(vae)
    stage = as_trained(flow_stage(config))
    run = write_run(tmp_path / "run", config, stage)
    state = run / "checkpoints" / "step-000000003" / "state.json"
    facts = json.loads(state.read_text()) | {"frozen_digest": stage.frozen_digest}
    state.write_text(json.dumps(facts))
    export(run, tmp_path / "out")
    portrait = torch.randint(0, 256, (512, 512, 3), dtype=torch.uint8).numpy()
    said: list[str] = []
    images = [
        Sampler.load(read_trained(source), CPU, say=said.append).draw([portrait], [0], steps=2)[0]
        for source in (run, tmp_path / "out")
    ]
    assert images[0].shape == (SIDE, SIDE, 3)
    assert (images[0] == images[1]).all()
    assert not said

    shutil.rmtree(vae)
    shutil.copytree(write_tiny_flux(tmp_path / "other", seed=1) / "vae", vae)
    Sampler.load(read_trained(run), CPU, say=said.append)
    assert said == [f"warning: {vae} has other weights than in the training of {run}"]
    shutil.rmtree(vae)
    with pytest.raises(TrainingError, match=r"flow\.scratch\.vae: .* has no config\.json"):
        Sampler.load(read_trained(run), CPU)


def test_what_does_not_fit_is_said(tiny_flux: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=rf"Did you mean {tiny_flux}/vae\?"):
        flow_stage(on_latents(tiny_flux))
    with pytest.raises(TrainingError, match=r"describes a FluxTransformer2DModel, expected a AutoencoderKL"):
        flow_stage(on_latents(tiny_flux / "transformer"))
    deep = Path(shutil.copytree(tiny_flux / "vae", tmp_path / "deep"))
    config = json.loads((deep / "config.json").read_text())
    config["block_out_channels"] = [4, 4, 4, 8, 8]
    config["down_block_types"] += ["DownEncoderBlock2D"]
    config["up_block_types"] += ["UpDecoderBlock2D"]
    (deep / "config.json").write_text(json.dumps(config))
    with pytest.raises(TrainingError, match=r"flow\.side: 48 pixels .* give a multiple of 32"):
        meta_flow_stage(on_latents(deep, side=48))
    with pytest.raises(TrainingError, match=r"cannot be loaded: .* expected shape"):
        flow_stage(on_latents(deep))
    for scratch in ({"patch": None}, {"vae": str(deep)}):
        with pytest.raises(
            ValueError, match="expected either patch, to draw pixels, or vae, to draw latents"
        ):
            flow_config(None, None, {"scratch": SCRATCH | scratch})
