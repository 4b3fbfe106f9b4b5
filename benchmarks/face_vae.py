"""A small autoencoder of faces, so that a small flow transformer can draw latents as FLUX does.

    python benchmarks/face_vae.py /data/mfhq /data/face_vae [--side 32] [--channels 4] [--steps 2500]

It is trained on the images of the training split, reduced to `--side` pixels: in absolute difference of pixels and
of their neighbours' differences, which keeps edges, and with a slight pull towards normally distributed latents. A
latent stands for 4 x 4 pixels. OUTPUT becomes the folder of an `AutoencoderKL` of diffusers, which a run takes as
`flow.scratch.patch=null flow.scratch.vae=OUTPUT`; a picture in it shows how faces of held-out people come back.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from safetensors.torch import save

from shards.atomic import write_bytes
from shards.metadata import DatasetError
from shards.reader import Dataset
from shards.schema import Split
from training.errors import TrainingError
from training.export import WEIGHTS_FILE
from training.folders import make_folder
from training.models.pixels import pixels

WIDTHS = (32, 64, 64)
FACTOR = 2 ** (len(WIDTHS) - 1)
"""Pixels along a side of a latent."""
LEARNING_RATE = 2e-3
WARMUP_STEPS = 100
PULL = 1e-3
"""Of the divergence from a standard normal distribution, a latent's mean."""
CHUNK = 64
PICTURE_ROWS, PICTURE_COLUMNS = 4, 6


def main() -> None:
    """Train it, write it, and say how much of held-out faces it keeps."""
    options = parse()
    print("reading and reducing the images", flush=True)
    try:
        make_folder(options.output)
        dataset = Dataset.open(options.dataset)
        seen, held_out = (images_of(dataset, split, options.side) for split in (Split.TRAIN, Split.TEST))
    except (DatasetError, TrainingError) as error:
        sys.exit(f"error: {error}")
    torch.manual_seed(options.seed)
    vae = autoencoder(options.channels)
    print(f"{len(seen)} images to train on, {len(held_out)} held out; {options.side} px to {options.channels}"
          f" x {options.side // FACTOR} x {options.side // FACTOR} latents")  # fmt: skip
    train(vae, seen, options.steps, options.batch)
    latents = torch.cat([vae.encode(chunk).latent_dist.mean for chunk in seen.split(CHUNK)])
    # Latents about as wide as the noise, as flow matching expects them.
    vae.register_to_config(shift_factor=float(latents.mean()), scaling_factor=float(1 / latents.std()))
    vae.save_config(options.output)
    write_bytes(options.output / WEIGHTS_FILE, save(vae.state_dict(), {"format": "pt"}))
    kept = torch.cat([vae(chunk).sample.clamp(-1, 1) for chunk in held_out.split(CHUNK)])
    error = float(((kept - held_out) / 2).square().mean())
    picture = options.output / "held_out.png"
    write_bytes(picture, drawn_pairs(held_out, kept))
    print(
        f"held-out faces come back with {-10 * math.log10(error):.1f} dB; some of them, each beside what it was: "
        f"{picture}"
    )
    print(
        f"draw its latents with: flow.scratch.patch=null flow.scratch.vae={options.output} "
        f"flow.side={options.side}"
    )


def images_of(dataset: Dataset, split: Split, side: int) -> torch.Tensor:
    """All images of a split, (_, 3, side, side) in [-1, 1]."""
    found = [reduced(jpeg, side) for sample in dataset.samples(split) for jpeg in sample.images]
    if not found:
        sys.exit(
            f"error: the data set has no images in its {split} split, and both are needed: to learn, and to judge"
        )
    return torch.cat(found) * 2 - 1


def reduced(jpeg: bytes, side: int) -> torch.Tensor:
    """An image as the trainer reduces it, (1, 3, side, side) in [0, 1]."""
    bgr = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        sys.exit("error: OpenCV cannot read an image of the data set; check it with `mfhq verify`")
    return pixels(torch.from_numpy(np.ascontiguousarray(bgr[None, ..., ::-1])), side)


def autoencoder(channels: int) -> Any:
    """With initial weights."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(WIDTHS),
        up_block_types=("UpDecoderBlock2D",) * len(WIDTHS),
        block_out_channels=WIDTHS,
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=16,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def train(vae: Any, images: torch.Tensor, steps: int, batch: int) -> None:
    """AdamW with warm-up and cosine decay; every other batch is mirrored."""
    optimiser = torch.optim.AdamW(vae.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99))
    for step in range(steps):
        share = min(1, (step + 1) / WARMUP_STEPS) * (1 + math.cos(math.pi * step / steps)) / 2
        optimiser.param_groups[0]["lr"] = LEARNING_RATE * share
        wanted = images[torch.randint(len(images), (batch,))]
        wanted = wanted.flip(3) if step % 2 else wanted
        latents = vae.encode(wanted).latent_dist
        wrong = vae.decode(latents.sample()).sample - wanted
        loss = wrong.abs().mean() + sum(wrong.diff(dim=dim).abs().mean() for dim in (2, 3))
        loss = loss + PULL * latents.kl().mean() / latents.mean[0].numel()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        if not (step + 1) % 100 or step + 1 == steps:
            print(
                f"step {step + 1} of {steps}: {float(wrong.detach().abs().mean()) / 2:.4f} a pixel",
                flush=True,
            )
    vae.requires_grad_(False).eval()


def drawn_pairs(images: torch.Tensor, kept: torch.Tensor) -> bytes:
    """A PNG: faces, each with what the autoencoder keeps of it to its right."""
    count = min(len(images), PICTURE_ROWS * PICTURE_COLUMNS)
    chosen = torch.linspace(0, len(images) - 1, count).long()
    pairs = torch.cat([images[chosen], kept[chosen]], dim=3)
    rows = [
        torch.cat(list(row), dim=2) for row in pairs.split(PICTURE_COLUMNS) if len(row) == PICTURE_COLUMNS
    ]
    sheet: NDArray[np.uint8] = ((torch.cat(rows or [pairs[0]], dim=1) + 1) * 127.5).round().byte().numpy()
    large = cv2.resize(sheet.transpose(1, 2, 0)[..., ::-1], None, fx=3, fy=3, interpolation=cv2.INTER_NEAREST)
    return bytes(cv2.imencode(".png", large)[1])


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path, help="folder of the data set")
    parser.add_argument("output", type=Path, help="folder for the autoencoder")
    parser.add_argument(
        "--side",
        type=int,
        choices=range(16, 129, 16),
        default=32,
        metavar="PIXELS",
        help="16, 32, … 128 (32)",
    )
    parser.add_argument("--channels", type=at_least_one, default=4, help="numbers of a latent (4)")
    parser.add_argument("--steps", type=at_least_one, default=2500, help="of training (2500)")
    parser.add_argument("--batch", type=at_least_one, default=32, help="images of a step (32)")
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights (0)")
    options = parser.parse_args()
    if options.output.exists() and (not options.output.is_dir() or any(options.output.iterdir())):
        # Runs know an autoencoder by its folder: another one in the same place would spoil them.
        parser.error(f"{options.output} is there already; give a new folder")
    return options


def at_least_one(text: str) -> int:
    """A whole number above 0."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is too little; give 1 or more")
    return value


if __name__ == "__main__":
    main()
