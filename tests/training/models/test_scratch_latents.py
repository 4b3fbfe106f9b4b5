"""A transformer of one's own that draws latents: an autoencoder from a folder of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from flow_runs import SCRATCH, SIDE, as_trained, flow_config, flow_stage, write_run
from tiny_flux import LATENT_CHANNELS, write_tiny_flux

from training.config import Config
from training.errors import TrainingError
from training.export import export, exported_files, read_trained
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


def test_a_run_and_its_export_draw_alike_wherever_the_autoencoder_has_gone(
    tiny_flux: Path, tmp_path: Path
) -> None:
    vae = Path(shutil.copytree(tiny_flux / "vae", tmp_path / "vae"))
    config = on_latents(vae)
    run = write_run(tmp_path / "run", config, as_trained(flow_stage(config)))
    facts = export(run, tmp_path / "out")
    assert {path.name for path in exported_files(tmp_path / "out", facts) if path.parent.name == "vae"} == {
        "config.json",
        "diffusion_pytorch_model.safetensors",
    }
    assert str(tmp_path) not in (tmp_path / "out" / "omniid.json").read_text()
    portrait = torch.randint(0, 256, (512, 512, 3), dtype=torch.uint8).numpy()
    said: list[str] = []

    def drawn(source: Path, base: Path | None = None) -> np.ndarray:
        sampler = Sampler.load(read_trained(source), CPU, base=str(base) if base else None, say=said.append)
        return sampler.draw([portrait], [0], steps=2)[0]

    image = drawn(run)
    assert image.shape == (SIDE, SIDE, 3)
    moved = vae.rename(tmp_path / "moved")
    assert np.array_equal(image, drawn(tmp_path / "out"))
    assert np.array_equal(image, drawn(run, moved))
    with pytest.raises(
        TrainingError, match=rf"latents of the autoencoder in {vae}, which is not there; .*--base"
    ):
        drawn(run)
    with pytest.raises(TrainingError, match=r"config\.json is missing; put it back"):
        export(run, tmp_path / "again")
    assert not said
    other = write_tiny_flux(tmp_path / "other", seed=1) / "vae"
    drawn(run, other)
    assert said == [f"warning: this autoencoder ({other}) has other weights than in the training of {run}"]


def test_latents_of_another_width_are_another_autoencoder_s(tiny_flux: Path, tmp_path: Path) -> None:
    """The same weights: latents that were kept, and runs that go on, would not notice."""
    wider = Path(shutil.copytree(tiny_flux / "vae", tmp_path / "vae"))
    config = json.loads((wider / "config.json").read_text())
    (wider / "config.json").write_text(json.dumps(config | {"scaling_factor": 2.0}))
    ours, theirs = (flow_stage(on_latents(vae)) for vae in (tiny_flux / "vae", wider))
    assert ours.codec.name != theirs.codec.name
    assert ours.frozen_digest != theirs.frozen_digest


def test_where_it_lies_may_change_and_runs_from_before_dropout_go_on(tiny_flux: Path) -> None:
    config = on_latents(tiny_flux / "vae", sample_identity_guidance=1.0)
    defining = config.defining()["flow"]
    assert defining["scratch"]["vae"] == "vae"
    assert not {"identity_dropout", "sample_identity_guidance"} & set(defining)
    assert on_latents(tiny_flux / "vae", identity_dropout=0.1).defining()["flow"]["identity_dropout"] == 0.1


def test_what_does_not_fit_is_said(tiny_flux: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=rf"Did you mean {tiny_flux}/vae\?"):
        flow_stage(on_latents(tiny_flux))
    with pytest.raises(TrainingError, match=r"is of class FluxTransformer2DModel, expected AutoencoderKL"):
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
    (deep / "diffusion_pytorch_model.safetensors").rename(deep / "diffusion_pytorch_model.bin")
    with pytest.raises(TrainingError, match=r"cannot be loaded"):
        flow_stage(on_latents(deep))
    (deep / "config.json").write_text(json.dumps(config | {"down_block_types": ["Nope"] * 5}))
    with pytest.raises(TrainingError, match=r"deep cannot be loaded"):
        meta_flow_stage(on_latents(deep))
    for scratch, message in (
        ({"patch": None}, "expected patch, to draw pixels, or vae, to draw latents"),
        ({"vae": str(deep)}, r"expected either patch \(given: 4\), .* as flow\.scratch\.patch=null"),
    ):
        with pytest.raises(ValueError, match=message):
            flow_config(None, None, {"scratch": SCRATCH | scratch})
