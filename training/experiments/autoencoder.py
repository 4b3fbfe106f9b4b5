"""A small autoencoder of faces, whose latents a small flow transformer learns as FLUX's learns those of its VAE.

    python -m training.experiments.autoencoder /data/mfhq /data/autoencoder --side 64 --channels 4 --steps 2500

It is trained on the images of the training split, reduced to `--side` pixels: by the absolute error of pixels and
of the differences of neighbours, which keeps edges, and a weak KL term. A latent stands for 4 x 4 or 8 x 8 pixels
(`--factor`). OUTPUT becomes the directory of an `AutoencoderKL` of diffusers, which a run takes as
`decoders.flow.scratch.patch=null decoders.flow.scratch.vae=OUTPUT`; a picture in it shows reconstructions of
held-out identities.

Letters in names give the shape:
    I  images    C  colour channels (3, RGB)    S  side in pixels
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import torch

from shards.atomic import write_bytes
from shards.metadata import DatasetError
from shards.reader import Dataset
from shards.schema import Split
from training.errors import TrainingError
from training.experiments.images import sheet_png, split_images
from training.experiments.options import add_side, add_training_options, at_least_one, begin_output, message
from training.experiments.training_loop import fit
from training.models.flux_folder import WEIGHTS_FILE
from training.models.precision import bfloat16

WIDTHS = {4: (16, 32, 64), 8: (16, 32, 64, 64)}
"""Channels at each resolution, by the pixels along a side of a latent."""
LEARNING_RATE = 2e-3
WARMUP_STEPS = 100
KL_WEIGHT = 1e-3
"""Of the divergence from a standard normal distribution, as the mean over latents."""
CHUNK = 64
PICTURE_FILE = "held_out.png"
FILES = (PICTURE_FILE, "config.json", WEIGHTS_FILE)
"""Of the output, in the order in which they are written."""
PICTURE_ROWS, PICTURE_COLUMNS = 4, 6


def main() -> None:
    """Train it, write it, and report the reconstruction error on held-out identities."""
    options = parse()
    try:
        if not begin_output(options.output, FILES, continues=options.continues):
            return
        dataset = Dataset.open(options.dataset)
        train_ICSS, held_out_ICSS = (
            split_images(dataset, split, options.side) * 2 - 1 for split in (Split.TRAIN, Split.TEST)
        )
    except (DatasetError, TrainingError) as error:
        sys.exit(f"error: {error}")
    torch.manual_seed(options.seed)
    vae = autoencoder(options.channels, options.factor)
    latent_side = options.side // options.factor
    message(
        f"{len(train_ICSS)} images to train on, {len(held_out_ICSS)} held out; {options.side} px to "
        f"{options.channels} x {latent_side} x {latent_side} latents"
    )
    train(vae, train_ICSS, options.steps, options.batch)
    latents = torch.cat([vae.encode(chunk).latent_dist.mean for chunk in train_ICSS.split(CHUNK)])
    # Latents about as wide as the noise, as flow matching expects them.
    vae.register_to_config(shift_factor=float(latents.mean()), scaling_factor=float(1 / latents.std()))
    found_ICSS = torch.cat([vae(chunk).sample.clamp(-1, 1) for chunk in held_out_ICSS.split(CHUNK)])
    mse = float(((found_ICSS - held_out_ICSS) / 2).square().mean())
    picture = options.output / PICTURE_FILE
    write_bytes(picture, pairs_png(held_out_ICSS, found_ICSS))
    vae.save_config(options.output)
    write_bytes(options.output / WEIGHTS_FILE, save_bytes(vae))
    message(
        f"held-out faces: {-10 * math.log10(mse):.1f} dB PSNR; examples, each beside its original: {picture}\n"
        f"train on its latents with: decoders.flow.scratch.patch=null decoders.flow.scratch.vae={options.output} "
        f"decoders.flow.side={options.side}"
    )


def save_bytes(module: torch.nn.Module) -> bytes:
    """The weights as a safetensors file."""
    from safetensors.torch import save

    return bytes(save(module.state_dict(), {"format": "pt"}))


def autoencoder(channels: int, factor: int) -> Any:
    """An `AutoencoderKL` with initial weights.

    Args:
        channels: numbers of a latent.
        factor: pixels along a side of a latent.
    """
    from diffusers import AutoencoderKL

    widths = WIDTHS[factor]
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=16,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def train(vae: Any, images_ICSS: torch.Tensor, steps: int, batch: int) -> None:
    """On pixels, their edges and the KL term; every other batch is mirrored."""

    def loss_at(step: int) -> tuple[torch.Tensor, float]:
        target = images_ICSS[torch.randint(len(images_ICSS), (batch,))]
        target = target.flip(3) if step % 2 else target
        with bfloat16(target.device):
            latents = vae.encode(target).latent_dist
            error = vae.decode(latents.sample()).sample.float() - target
        loss = error.abs().mean() + sum(error.diff(dim=dim).abs().mean() for dim in (2, 3))
        loss = loss + KL_WEIGHT * latents.kl().float().mean() / latents.mean[0].numel()
        return loss, float(error.detach().abs().mean()) / 2

    fit(
        vae.parameters(),
        loss_at,
        steps,
        peak=LEARNING_RATE,
        warmup_steps=WARMUP_STEPS,
        reported="mean absolute error",
    )
    vae.requires_grad_(False).eval()


def pairs_png(images_ICSS: torch.Tensor, found_ICSS: torch.Tensor) -> bytes:
    """A PNG of faces, each with its reconstruction to the right."""
    count = min(len(images_ICSS), PICTURE_ROWS * PICTURE_COLUMNS)
    chosen = torch.linspace(0, len(images_ICSS) - 1, count).long()
    pairs = torch.cat([images_ICSS[chosen], found_ICSS[chosen]], dim=3)
    return sheet_png((pairs + 1) / 2, PICTURE_COLUMNS)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path, help="directory of the dataset")
    parser.add_argument("output", type=Path, help="directory for the autoencoder; a new or empty one")
    add_side(parser)
    parser.add_argument(
        "--factor", type=int, choices=sorted(WIDTHS), default=4, help="pixels along a side of a latent (4)"
    )
    parser.add_argument("--channels", type=at_least_one, default=4, help="numbers of a latent (4)")
    add_training_options(parser, steps=2500, batch=32)
    return parser.parse_args()


if __name__ == "__main__":
    main()
