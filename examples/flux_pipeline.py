"""Draw a person with stock diffusers and the Omni-ID encoder, from what `omniid export` wrote.

    python examples/flux_pipeline.py EXPORT CROP [CROP ...] [--flux black-forest-labs/FLUX.1-dev]

A CROP is a square photograph of the person, cut out as the data set's images are (shards/README.md, `crop_px`);
`omniid sample` cuts it out itself. For a FluxControlNetPipeline, load the adapter and hand in the identity in the
same way. One call draws one person.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from diffusers import FluxPipeline
from PIL import Image

from training.models.encoder import OmniIDEncoder


def main() -> None:
    """Encode, load, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("export", type=Path, help="folder that `omniid export` wrote")
    parser.add_argument("crops", type=Path, nargs="+", help="square photographs of the face, one or more")
    parser.add_argument("--flux", default="black-forest-labs/FLUX.1-dev", help="hub name or folder")
    parser.add_argument("--prompt", help="what to draw (what the adapter was trained with)")
    parser.add_argument("--scale", type=float, default=1.0, help="how much of the identity is added")
    parser.add_argument(
        "--identity-guidance",
        type=float,
        help="above 1: exaggerate who it is, for an adapter that was trained with flow.identity_dropout",
    )
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("person.png"))
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32

    # How the adapter was trained: its prompt, and the length that FLUX read it in.
    facts = options.export / "omniid.json"
    if not facts.is_file():
        parser.error(f"{options.export} is no export: it has no {facts.name}")
    trained = json.loads(facts.read_bytes())["flow"]
    if trained is None or trained["scratch"]:
        parser.error(
            f"{options.export} holds no adapter for FLUX: its run trained none, or beside another network"
        )
    prompt = options.prompt or trained["prompt"]
    guidance = trained.get("sample_identity_guidance", 1.0)
    if options.identity_guidance is not None:
        guidance = options.identity_guidance
        if not trained.get("identity_dropout"):
            parser.error(
                "--identity-guidance: this adapter was trained without flow.identity_dropout; leave it out"
            )
    if guidance < 1:
        parser.error("--identity-guidance: diffusers guides from 1 upwards")

    # The identity: any number of crops of one person become 256 tokens.
    encoder = OmniIDEncoder.from_pretrained(options.export / "encoder").eval().to(device)
    side = encoder.size.side
    crops = [
        Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        for path in options.crops
    ]
    pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float().to(device) / 255
    with torch.no_grad():
        tokens = encoder(pixels[None])  # (1, 256, 1280)

    # diffusers makes four text tokens of a vector: four identity tokens, end to end, are one.
    identity = tokens.unflatten(1, (-1, 4)).flatten(2).to(dtype)

    pipeline = FluxPipeline.from_pretrained(options.flux, torch_dtype=dtype).to(device)
    pipeline.load_ip_adapter(
        options.export, weight_name="ip_adapter.safetensors", image_encoder_pretrained_model_name_or_path=None
    )
    pipeline.set_ip_adapter_scale(options.scale)
    image = pipeline(
        prompt,
        max_sequence_length=trained["text_tokens"],
        ip_adapter_image_embeds=[identity],
        # Nobody's identity, which guidance leads away from.
        negative_ip_adapter_image_embeds=[torch.zeros_like(identity)],
        negative_prompt=prompt,
        true_cfg_scale=guidance,
        num_inference_steps=options.steps,
        height=options.size,
        width=options.size,
        generator=torch.Generator(device).manual_seed(options.seed),
    ).images[0]
    image.save(options.output)


if __name__ == "__main__":
    main()
