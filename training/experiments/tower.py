"""A small image encoder trained by contrast, in place of CLIP's tower, for experiments without CLIP's weights.

    python -m training.experiments.tower /data/mfhq /data/tower --size tiny --steps 2000

It is trained on the images of the training split without their identities: two views of an image (another section,
mirrored, other brightness, contrast and colour) are a positive pair, all other images of the batch are negatives.
So it tells images apart, as CLIP does, and has not learned which images show one person. OUTPUT gets
tower.safetensors, which a run takes as `representation.clip=OUTPUT/tower.safetensors`. It is not CLIP, and results
with it are reported under its own name.

Source: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", 2020, equation 1.

Letters in names give the shape:
    I  images    V  views, 2 x I    C  colour channels (3, RGB)    S  side in pixels    D  channels
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn
from torch.nn import functional

from shards.atomic import write_bytes
from shards.metadata import DatasetError
from shards.reader import Dataset
from shards.schema import Split
from training.errors import TrainingError
from training.experiments.images import split_images
from training.experiments.options import add_training_options, begin_output, message
from training.experiments.training_loop import fit
from training.models.clip import ClipTower
from training.models.precision import bfloat16, with_plain_attention
from training.models.sizes import SIZES

TOWER_FILE = "tower.safetensors"
LEARNING_RATE = 1e-3
BETAS = (0.9, 0.999)
WEIGHT_DECAY = 0.05
WARMUP_STEPS = 100
TEMPERATURE = 0.2
LEAST_SECTION = 0.5
"""Least side of a view, as a share of the image's."""
JITTER = 0.4
"""Most change of brightness, contrast and saturation, as a share."""


def main() -> None:
    """Train it, write it, and report how often a held-out image finds its other view."""
    options = parse()
    size = SIZES[options.size]
    try:
        if not begin_output(options.output, [TOWER_FILE], continues=options.continues):
            return
        dataset = Dataset.open(options.dataset)
        train_ICSS, held_out_ICSS = (
            split_images(dataset, split, size.side) for split in (Split.TRAIN, Split.TEST)
        )
    except (DatasetError, TrainingError) as error:
        sys.exit(f"error: {error}")
    torch.manual_seed(options.seed)
    tower = ClipTower(size)
    head = nn.Sequential(nn.Linear(size.width, size.width), nn.GELU(), nn.Linear(size.width, 128))
    train(tower, head, train_ICSS, options.steps, options.batch)
    write_bytes(options.output / TOWER_FILE, save(tower.visual.state_dict(), {"format": "pt"}))
    with torch.no_grad():
        similarity_II = view_similarity(tower, head, held_out_ICSS[: options.batch])
    found = (similarity_II.argmax(dim=1) == torch.arange(len(similarity_II))).float().mean()
    message(
        f"{float(found):.0%} of {len(similarity_II)} held-out images find their other view among all\n"
        f"use it with: representation.clip={options.output / TOWER_FILE} representation.size={options.size}"
    )


def train(tower: ClipTower, head: nn.Module, images_ICSS: torch.Tensor, steps: int, batch: int) -> None:
    """On the symmetric contrastive loss."""
    for block in tower.visual.transformer.resblocks:
        block.forward = with_plain_attention(block.forward)

    def loss_at(_step: int) -> tuple[torch.Tensor, float]:
        # Without repetition: the same image twice would be a negative of itself.
        chosen = torch.randperm(len(images_ICSS))[:batch]
        with bfloat16(images_ICSS.device):
            logits_II = view_similarity(tower, head, images_ICSS[chosen]).float() / TEMPERATURE
        labels_I = torch.arange(len(logits_II))
        loss = (
            functional.cross_entropy(logits_II, labels_I) + functional.cross_entropy(logits_II.T, labels_I)
        ) / 2
        return loss, float(loss.detach())

    fit(
        [*tower.parameters(), *head.parameters()],
        loss_at,
        steps,
        peak=LEARNING_RATE,
        warmup_steps=WARMUP_STEPS,
        betas=BETAS,
        weight_decay=WEIGHT_DECAY,
    )
    tower.requires_grad_(False).eval()


def view_similarity(tower: ClipTower, head: nn.Module, images_ICSS: torch.Tensor) -> torch.Tensor:
    """Cosine of the first view of each image and the second view of each, (I, I)."""
    views_VCSS = torch.cat([view(images_ICSS), view(images_ICSS)])
    class_VD = tower(views_VCSS, class_token=True)[:, 0]
    first_ID, second_ID = functional.normalize(head(class_VD), dim=1).chunk(2)
    return first_ID @ second_ID.T


def view(images_ICSS: torch.Tensor) -> torch.Tensor:
    """A random view of each image, (I, 3, S, S) in [0, 1]."""
    count = len(images_ICSS)
    scale_I = torch.empty(count).uniform_(LEAST_SECTION, 1)
    shift_I2 = torch.empty(count, 2).uniform_(-1, 1) * (1 - scale_I)[:, None]
    mirrored_I = torch.randint(2, (count,)) * 2.0 - 1
    affine_I23 = torch.zeros(count, 2, 3)
    affine_I23[:, 0, 0], affine_I23[:, 1, 1], affine_I23[:, :, 2] = scale_I * mirrored_I, scale_I, shift_I2
    grid = functional.affine_grid(affine_I23, list(images_ICSS.shape), align_corners=False)
    cut_ICSS = functional.grid_sample(images_ICSS, grid, padding_mode="reflection", align_corners=False)
    brightness, contrast, saturation = (
        torch.empty(count, 1, 1, 1).uniform_(1 - JITTER, 1 + JITTER) for _ in range(3)
    )
    grey_I1SS = cut_ICSS.mean(dim=1, keepdim=True)
    coloured_ICSS = torch.lerp(grey_I1SS, cut_ICSS, saturation)
    mean_I111 = coloured_ICSS.mean(dim=(1, 2, 3), keepdim=True)
    return (torch.lerp(mean_I111, coloured_ICSS, contrast) * brightness).clamp(0, 1)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path, help="directory of the dataset")
    parser.add_argument("output", type=Path, help="directory for the tower; a new or empty one")
    parser.add_argument("--size", choices=sorted(SIZES), default="tiny", help="of training/models/sizes.yaml")
    add_training_options(parser, steps=2000, batch=128)
    return parser.parse_args()


if __name__ == "__main__":
    main()
