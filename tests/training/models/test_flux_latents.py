"""Latents, tokens, position ids and timesteps equal those of diffusers' pipeline."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training.models.flux_latents import PixelCodec, VaeCodec, pack, positions, unpack
from training.models.flux_schedule import Schedule

SIDE = 64


@pytest.fixture(scope="module")
def codec(tiny_flux: Path) -> VaeCodec:
    return VaeCodec.load(tiny_flux / "vae", torch.float32)


def images(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def test_latents_are_shifted_and_scaled_as_flux_takes_them(codec: VaeCodec, tiny_flux: Path) -> None:
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(tiny_flux, subfolder="vae").eval()
    with torch.no_grad():
        expected = (vae.encode(images() * 2 - 1).latent_dist.mean - 0.1159) * 0.3611
    found = codec.encode(images())
    assert found.shape == (2, codec.channels, SIDE // codec.factor, SIDE // codec.factor)
    assert torch.allclose(found, expected, atol=1e-5)


def test_decoding_equals_that_of_the_pipeline(codec: VaeCodec, tiny_flux: Path) -> None:
    from diffusers import FluxPipeline

    pipeline = FluxPipeline.from_pretrained(tiny_flux)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        decoded = pipeline.vae.decode(latents / 0.3611 + 0.1159, return_dict=False)[0]
    expected = pipeline.image_processor.postprocess(decoded, output_type="pt")
    assert torch.allclose(codec.decode(latents), expected, atol=1e-5)


def test_the_name_of_a_codec_changes_with_its_weights_and_precision(codec: VaeCodec, tiny_flux: Path) -> None:
    folder = tiny_flux / "vae"
    assert VaeCodec.load(folder, torch.float32).name == codec.name
    assert VaeCodec.load(folder, torch.bfloat16).name != codec.name


def test_tokens_and_position_ids_equal_the_pipeline_s() -> None:
    from diffusers import FluxPipeline

    latents = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    tokens = pack(latents)
    assert torch.equal(tokens, FluxPipeline._pack_latents(latents, 2, 4, 6, 6))
    assert torch.equal(unpack(tokens), latents)
    theirs = FluxPipeline._prepare_latent_image_ids(1, 3, 3, "cpu", torch.float32)
    assert torch.equal(positions(3, torch.device("cpu")), theirs)


@pytest.mark.parametrize("patch", [2, 4, 8])
def test_the_pixel_codec_is_invertible(patch: int) -> None:
    codec = PixelCodec(patch)
    latents = codec.encode(images())
    assert latents.shape == (2, codec.channels, SIDE // codec.factor, SIDE // codec.factor)
    assert torch.allclose(codec.decode(latents), images(), atol=1e-6)
    assert pack(latents).shape == (2, (SIDE // patch) ** 2, 3 * patch**2)


def test_a_token_of_pixels_is_a_square_of_the_image() -> None:
    image = torch.zeros(1, 3, 16, 16)
    image[:, :, 4:8, 8:12] = 1
    tokens = pack(PixelCodec(4).encode(image))
    white = tokens[0].mean(dim=1) > 0
    assert white.nonzero().flatten().tolist() == [1 * 4 + 2]


@pytest.mark.parametrize(("steps", "tokens"), [(1, 16), (4, 256), (28, 1024), (50, 4096)])
def test_timesteps_equal_those_of_the_pipeline_s_scheduler(tiny_flux: Path, steps: int, tokens: int) -> None:
    import numpy as np
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(tiny_flux, subfolder="scheduler")
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=calculate_shift(tokens))
    found = Schedule(tiny_flux).times(steps, tokens)
    assert found == pytest.approx(scheduler.sigmas.tolist())
    assert (len(found), found[0], found[-1]) == (steps + 1, 1.0, 0.0)


def test_timesteps_without_flux_are_evenly_spaced() -> None:
    assert Schedule().times(4, 64) == pytest.approx((1.0, 0.75, 0.5, 0.25, 0.0))
