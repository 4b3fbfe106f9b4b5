"""Generate images of a person with stock diffusers, from what `omniid export` wrote of any representation.

    pip install "omniid[encoder,faces,embedded]" diffusers transformers sentencepiece protobuf
    python examples/flux_pipeline.py EXPORT PHOTO [PHOTO ...] [--flux black-forest-labs/FLUX.1-dev]
    python examples/flux_pipeline.py EXPORT PHOTO [PHOTO ...] --pose-from PHOTO      # export of a control decoder

One call is for one person.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxControlNetModel, FluxControlNetPipeline, FluxPipeline
from PIL import Image

from omniid import find_portraits, image_embeds, load_representation
from omniid.portraits import Portrait


def main() -> None:
    """Encode, load, generate."""
    parser = option_parser()
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    export, trained, guidance = checked_export(parser, options)

    # Photos of one person become identity tokens.
    encoder = load_representation(options.export / "encoder", options.models_dir).eval().to(device)
    portraits = [largest_face(parser, path, encoder.crop_scale) for path in options.photos]
    tokens = encoder.encode_portraits(portraits)  # (256, 1280) of the paper's encoder
    identity = image_embeds(tokens).to(dtype)

    if export.get("control") is None:
        pipeline = FluxPipeline.from_pretrained(options.flux, torch_dtype=dtype)
        pose = {}
    else:
        controlnet = FluxControlNetModel.from_pretrained(options.export / "controlnet", torch_dtype=dtype)
        pipeline = FluxControlNetPipeline.from_pretrained(
            options.flux, controlnet=controlnet, torch_dtype=dtype
        )
        posed = largest_face(parser, options.pose_from, encoder.crop_scale)
        # A PIL image, which the pipeline normalises as in training; it does not normalise a tensor.
        pose = {"control_image": Image.fromarray(posed.landmark_image(options.size))}
    pipeline.load_ip_adapter(
        options.export, weight_name="ip_adapter.safetensors", image_encoder_pretrained_model_name_or_path=None
    )
    pipeline.set_ip_adapter_scale(options.scale)
    prompt = options.prompt or trained["prompt"]
    image = pipeline.to(device)(
        prompt,
        **pose,
        max_sequence_length=trained["text_tokens"],
        ip_adapter_image_embeds=[identity],
        # The unconditional identity, which guidance leads away from.
        negative_ip_adapter_image_embeds=[torch.zeros_like(identity)],
        negative_prompt=prompt,
        true_cfg_scale=guidance,
        num_inference_steps=options.steps,
        height=options.size,
        width=options.size,
        generator=torch.Generator(device).manual_seed(options.seed),
    ).images[0]
    image.save(options.output)


def option_parser() -> argparse.ArgumentParser:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("export", type=Path, help="directory that `omniid export` wrote")
    parser.add_argument("photos", type=Path, nargs="+", help="photos of one person, one or more")
    parser.add_argument("--pose-from", type=Path, help="photo with the head pose, for a control decoder")
    parser.add_argument("--flux", default="black-forest-labs/FLUX.1-dev", help="hub name or directory")
    parser.add_argument("--prompt", help="what to generate (what the adapter was trained with)")
    parser.add_argument("--scale", type=float, default=1.0, help="how much of the identity is added")
    parser.add_argument(
        "--identity-guidance",
        type=float,
        help="above 1: exaggerate the identity, for a decoder trained with identity_dropout",
    )
    parser.add_argument(
        "--models-dir",
        type=Path,
        help="directory with the representation's face recognition network, if it has one",
    )
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("person.png"))
    return parser


def checked_export(
    parser: argparse.ArgumentParser, options: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, Any], float]:
    """What the export says, the configuration of its decoder, and the identity guidance to sample with."""
    facts = options.export / "omniid.json"
    if not facts.is_file():
        parser.error(f"{options.export} is no export: it has no {facts.name}")
    export = json.loads(facts.read_bytes())
    # How the decoder was trained: its prompt, and the length that FLUX read it in.
    control = export.get("control")
    trained = control or export["flow"]
    if trained is None or trained["scratch"]:
        parser.error(
            f"{options.export} holds no adapter for FLUX: its run trained none, or beside another network"
        )
    if (control is None) != (options.pose_from is None):
        parser.error("--pose-from: pass it for the export of a control decoder, and only for that")
    guidance = trained.get("sample_identity_guidance", 1.0)
    if options.identity_guidance is not None:
        guidance = options.identity_guidance
        if not trained.get("identity_dropout"):
            parser.error(
                "--identity-guidance: this adapter was trained without identity_dropout of its decoder; leave "
                "it out"
            )
    if guidance < 1:
        parser.error("--identity-guidance: diffusers guides from 1 upwards")
    fixed_inputs = export.get("fixed_inputs")
    if fixed_inputs not in {None, len(options.photos)}:
        parser.error(f"this representation takes exactly {fixed_inputs} photos of a person")
    return export, trained, guidance


def largest_face(parser: argparse.ArgumentParser, photo: Path, crop_scale: float | None) -> Portrait:
    """The largest face of a photo, cut as in the encoder's training."""
    found = find_portraits(photo, crop_scale=crop_scale)
    if not found:
        parser.error(f"{photo} shows no face")
    return found[0]


if __name__ == "__main__":
    main()
