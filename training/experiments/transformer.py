"""A small flow transformer of faces, which rows share frozen, as they share FLUX at the paper's size.

    python -m training.experiments.transformer /data/mfhq /data/transformer --vae /data/autoencoder --side 64

It learns to generate the images of the training split, mirrored ones too, and nothing of who they show: there are
no identity tokens and no text. The loss is that of the flow decoder. OUTPUT becomes the directory of a
`FluxTransformer2DModel` of diffusers, which a run freezes (`decoders.flow.scratch.transformer`; the command prints
the whole section); a picture in it shows generated faces.

Source: Peebles and Xie, "Scalable Diffusion Models with Transformers", 2023; its architecture is FLUX's.

Letters in names give the shape:
    I  images    C  channels of latents    H  side of latents    S  side of an image in pixels
    Q  tokens of an image    F  numbers of a token
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from shards.atomic import write_bytes
from shards.metadata import DatasetError
from shards.reader import Dataset
from shards.schema import Split
from training.decoders.flow_config import Scratch
from training.decoders.flow_networks import scratch_codec, scratch_prompt, scratch_transformer
from training.errors import TrainingError
from training.experiments.images import sheet_png, split_images
from training.experiments.options import add_side, add_training_options, at_least_one, begin_output, message
from training.experiments.training_loop import fit
from training.models.flux_folder import CODEC, WEIGHTS_FILE
from training.models.flux_latents import Codec, pack, positions, unpack
from training.models.flux_schedule import Schedule
from training.models.precision import bfloat16, with_plain_attention
from training.progress import Progress

LEARNING_RATE = 1e-3
WARMUP_STEPS = 200
CHUNK = 64
MEASURED_TIMES = 8
"""Times at which the loss of an image is measured, evenly spaced in (0, 1)."""
PICTURE_FILE = "generated.png"
PICTURE_ROWS, PICTURE_COLUMNS = 4, 12
SAMPLE_STEPS = 28
FILES = (PICTURE_FILE, "config.json", WEIGHTS_FILE)
"""Of the output, in the order in which they are written."""


def main() -> None:
    """Train it, write it, and report the loss on held-out identities."""
    options = parse()
    # Norms are float32 in autocast, as is meant.
    warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
    size = {name: getattr(options, name) for name in ("layers", "single_layers", "heads", "head_width")}
    scratch = Scratch.model_validate(size | {"vae": options.vae})
    try:
        if not begin_output(options.output, FILES, continues=options.continues):
            return
        codec = scratch_codec(scratch, options.side)
        dataset = Dataset.open(options.dataset)
        train_ICSS, held_out_ICSS = (
            split_images(dataset, split, options.side) for split in (Split.TRAIN, Split.TEST)
        )
    except (DatasetError, TrainingError) as error:
        sys.exit(
            f"error: {str(error).replace('decoders.flow.scratch.', '--').replace('decoders.flow.', '--')}"
        )
    train_IQF = torch.cat(
        [
            encoded(train_ICSS, codec, "images to train on"),
            encoded(train_ICSS.flip(3), codec, "mirrored images"),
        ]
    )
    held_out_IQF = encoded(held_out_ICSS, codec, "held-out images")
    torch.manual_seed(options.seed)
    transformer = scratch_transformer(scratch, 4 * codec.channels)
    parameters = sum(parameter.numel() for parameter in transformer.parameters())
    message(
        f"{parameters / 1e6:.1f} million parameters; {len(train_IQF)} images to train on with the mirrored ones, "
        f"{len(held_out_IQF)} held out; {train_IQF.shape[1]} tokens an image"
    )
    train(transformer, train_IQF, options.steps, options.batch)
    held_out_loss = measured_loss(transformer, held_out_IQF)
    train_loss = measured_loss(transformer, train_IQF[: len(held_out_IQF)])
    latents_ICHH = unpack(generated(transformer, PICTURE_ROWS * PICTURE_COLUMNS, train_IQF[0].shape))
    picture = options.output / PICTURE_FILE
    write_bytes(picture, sheet_png(codec.decode(latents_ICHH), PICTURE_COLUMNS))
    transformer.save_config(options.output)
    write_bytes(
        options.output / WEIGHTS_FILE, save(transformer.state_dict(), {"format": "pt", CODEC: codec.name})
    )
    own = size | {"patch": None, "vae": scratch.vae, "transformer": str(options.output)}
    message(
        f"loss {held_out_loss:.4f} on held-out images, {train_loss:.4f} on as many of the training\n"
        f"generated faces: {picture}\n"
        f"use it frozen with: decoders.flow.side={options.side} "
        f"{shlex.quote('decoders.flow.scratch=' + json.dumps(own))}"
    )


@torch.no_grad()
def encoded(images_ICSS: torch.Tensor, codec: Codec, which: str = "images") -> torch.Tensor:
    """Latents of images as tokens, (I, Q, F).

    Args:
        images_ICSS: in [0, 1].
        codec: of the autoencoder.
        which: images they are, for lines of progress.
    """
    progress, found = Progress("encoded", which, len(images_ICSS), message), []
    for chunk in images_ICSS.split(CHUNK):
        found.append(pack(codec.encode(chunk)))
        progress.advance(len(chunk))
    return torch.cat(found)


def train(transformer: Any, latents_IQF: torch.Tensor, steps: int, batch: int) -> None:
    """On the loss of flow matching."""
    for block in (*transformer.transformer_blocks, *transformer.single_transformer_blocks):
        block.forward = with_plain_attention(block.forward)

    def loss_at(_step: int) -> tuple[torch.Tensor, float]:
        clean_IQF = latents_IQF[torch.randint(len(latents_IQF), (batch,))]
        loss = flow_loss(transformer, clean_IQF, torch.rand(batch), torch.randn_like(clean_IQF))
        return loss, float(loss.detach())

    fit(transformer.parameters(), loss_at, steps, peak=LEARNING_RATE, warmup_steps=WARMUP_STEPS)
    transformer.requires_grad_(False).eval()


def flow_loss(
    transformer: Any, clean_IQF: torch.Tensor, time_I: torch.Tensor, noise_IQF: torch.Tensor
) -> torch.Tensor:
    """Mean squared error of the velocity (`training.decoders.flow`)."""
    noisy_IQF = torch.lerp(clean_IQF, noise_IQF, time_I.view(-1, 1, 1))
    return (velocity(transformer, noisy_IQF, time_I) - (noise_IQF - clean_IQF)).square().mean()


def velocity(transformer: Any, noisy_IQF: torch.Tensor, time_I: torch.Tensor) -> torch.Tensor:
    """The predicted velocity, float32."""
    images, tokens, _ = noisy_IQF.shape
    prompt = scratch_prompt()
    with bfloat16(noisy_IQF.device):
        (found_IQF,) = transformer(
            hidden_states=noisy_IQF,
            encoder_hidden_states=prompt.tokens_1TD.expand(images, -1, -1),
            pooled_projections=prompt.pooled_1D.expand(images, -1),
            timestep=time_I,
            img_ids=positions(math.isqrt(tokens), noisy_IQF.device),
            txt_ids=noisy_IQF.new_zeros(prompt.tokens_1TD.shape[1], 3),
            return_dict=False,
        )
    found: torch.Tensor = found_IQF.float()
    return found


@torch.no_grad()
def measured_loss(transformer: Any, latents_IQF: torch.Tensor) -> float:
    """The loss at evenly spaced times, with the same noise in every call."""
    noise = torch.Generator().manual_seed(0)
    found = [
        float(
            flow_loss(
                transformer,
                chunk,
                torch.full((len(chunk),), (number + 0.5) / MEASURED_TIMES),
                torch.randn(chunk.shape, generator=noise),
            )
        )
        * len(chunk)
        for chunk in latents_IQF.split(CHUNK)
        for number in range(MEASURED_TIMES)
    ]
    return sum(found) / (MEASURED_TIMES * len(latents_IQF))


@torch.no_grad()
def generated(transformer: Any, images: int, shape: torch.Size) -> torch.Tensor:
    """Tokens of generated images, (I, Q, F), in Euler steps from noise.

    Args:
        transformer: that was trained.
        images: how many.
        shape: of an image, (Q, F).
    """
    found_IQF = torch.randn(images, *shape, generator=torch.Generator().manual_seed(0))
    for time, following in pairwise(Schedule().times(SAMPLE_STEPS, shape[0])):
        found_IQF = found_IQF + (following - time) * velocity(
            transformer, found_IQF, torch.full((images,), time)
        )
    return found_IQF


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path, help="directory of the dataset")
    parser.add_argument("output", type=Path, help="directory for the transformer; a new or empty one")
    parser.add_argument(
        "--vae", required=True, help="directory of the autoencoder whose latents it generates"
    )
    add_side(parser)
    parser.add_argument("--layers", type=at_least_one, default=4, help="double blocks (4)")
    parser.add_argument("--single-layers", type=at_least_one, default=2, help="single blocks (2)")
    parser.add_argument("--heads", type=at_least_one, default=4, help="of attention (4)")
    parser.add_argument(
        "--head-width",
        type=int,
        choices=range(8, 129, 8),
        default=48,
        metavar="CHANNELS",
        help="8, 16, … 128 (48)",
    )
    add_training_options(parser, steps=5000, batch=128)
    return parser.parse_args()


if __name__ == "__main__":
    main()
