"""Stock diffusers generates the images of `omniid sample`, from identity tokens of any kind and number."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from exports import Exported
from flow_runs import SIDE

from faces.portraits import Portrait
from omniid import image_embeds, load_representation
from training.export import read_export
from training.models.flux_latents import unpack
from training.sampling.sampler import Sampler

PROMPT = "photo of a person."
CPU = torch.device("cpu")


@pytest.mark.slow
def test_a_stock_pipeline_generates_what_omniid_sample_does(
    exported: Exported, tiny_flux: Path, portraits: list[Portrait], models_dir: Path
) -> None:
    """Both ways to pass the tokens: repeated to a multiple of four, or projected and passed by their name."""
    from diffusers import FluxPipeline

    sampler = Sampler.load(read_export(exported.folder, models_dir), CPU)
    tokens_1LD = sampler.encode(
        [portrait.image for portrait in portraits], [portrait.keypoints for portrait in portraits]
    )
    noise_1QF = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(3))
    decoder = sampler.decoder
    own, without = (
        decoder.codec.decode(
            unpack(decoder.denoise(noise_1QF, tokens_1LD, decoder.sampling(SIDE, 4, 3.5, scale)))
        )
        for scale in (1.0, 0.0)
    )

    pipeline = FluxPipeline.from_pretrained(tiny_flux)
    pipeline.load_ip_adapter(
        exported.folder,
        weight_name="ip_adapter.safetensors",
        image_encoder_pretrained_model_name_or_path=None,
    )
    pipeline.set_progress_bar_config(disable=True)
    representation = load_representation(exported.folder / "encoder", models_dir).eval()
    tokens_LD = representation.encode_portraits(portraits)
    embeds = image_embeds(tokens_LD)
    spare = -len(tokens_LD) % 4
    padded_LD = torch.cat([tokens_LD, tokens_LD.new_zeros(spare, tokens_LD.shape[1])])
    (projected,) = pipeline.transformer.encoder_hid_proj([image_embeds(padded_LD)])
    hidden_11LT = projected.flatten(1, 2)[:, None, : len(tokens_LD)]
    for arguments in (
        {"ip_adapter_image_embeds": [embeds], "negative_ip_adapter_image_embeds": [embeds]},
        {"joint_attention_kwargs": {"ip_hidden_states": [hidden_11LT]}},
    ):
        stock = pipeline(
            prompt=[PROMPT],
            max_sequence_length=16,
            num_inference_steps=4,
            guidance_scale=3.5,
            height=SIDE,
            width=SIDE,
            latents=noise_1QF,
            output_type="pt",
            **arguments,
        ).images
        assert torch.allclose(own, stock, atol=5e-5)
        assert (own - without).abs().max() > 50 * (own - stock).abs().max()
