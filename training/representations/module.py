"""What all representations share: they encode any number of photos in bounded memory, and are written as files.

Letters in names give the shape:
    M  images of a person    S  side in pixels    C  colour channels (3, RGB)    K  keypoints (5)
    L  identity tokens    D  channels of a token
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from training.crop_scale import check_crop_scale
from training.data.needs import Needs
from training.models.pretrained import EncoderConfig, write_representation
from training.representations.base import Inputs

if TYPE_CHECKING:
    from faces.portraits import Portrait

IMAGES_AT_ONCE = 16
"""Images that the networks see at once in `encode_images`: activations take most of the memory, tokens little."""


class RepresentationModule(nn.Module, ABC):
    """Base of the representations.

    A subclass says what it computes of each image by itself (`features`), and how the features of all images of a
    person become identity tokens (`tokens`).

    Args:
        width: D.
        needs: what it reads of a batch.
        fixed_inputs: number of images of a person that it was trained on, when it takes no other; None when any.
    """

    def __init__(self, width: int, needs: Needs, fixed_inputs: int | None = None) -> None:
        super().__init__()
        self.width = width
        self.needs = needs
        self.fixed_inputs = fixed_inputs
        self.crop_scale: float | None = None

    @abstractmethod
    def features(self, inputs: Inputs) -> tuple[torch.Tensor, ...]:
        """What is computed of each image by itself, (B, M, …) each."""

    @abstractmethod
    def tokens(self, features: tuple[torch.Tensor, ...], valid_BM: torch.Tensor | None) -> torch.Tensor:
        """Identity tokens (B, L, D) from the features of all images; `valid_BM` as in `Inputs`."""

    @abstractmethod
    def file_config(self) -> EncoderConfig:
        """What `config.json` says of it."""

    def encode(self, inputs: Inputs) -> torch.Tensor:
        """See `Representation.encode`."""
        return self.tokens(self.features(inputs), inputs.valid_BM)

    @torch.no_grad()
    def encode_images(
        self, images_MSSC: torch.Tensor, keypoints_MK2: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Identity tokens of one person, in memory that grows with the tokens of the images alone.

        Args:
            images_MSSC: uint8, RGB, of this person, on any device.
            keypoints_MK2: as in `Inputs`; needed where `needs.keypoints`.

        Returns:
            (L, D), on the representation's device.

        Raises:
            ValueError: there is no image, or another number than `fixed_inputs`.
        """
        check_number(self.fixed_inputs, len(images_MSSC))
        device = next(self.parameters()).device
        parts = []
        for start in range(0, len(images_MSSC), IMAGES_AT_ONCE):
            rows = slice(start, start + IMAGES_AT_ONCE)
            keypoints = None if keypoints_MK2 is None else keypoints_MK2[rows].to(device)[None]
            parts.append(self.features(Inputs(images_MSSC[rows].to(device)[None], None, keypoints)))
        features = tuple(torch.cat(found, dim=1) for found in zip(*parts, strict=True))
        return self.tokens(features, None)[0]

    def encode_portraits(self, portraits: Sequence[Portrait]) -> torch.Tensor:
        """Identity tokens of one person.

        Args:
            portraits: of this person, from `omniid.find_portraits`.

        Returns:
            (L, D), on the representation's device.

        Raises:
            ValueError: there is no portrait, another number than `fixed_inputs`, or one was cut with another crop
                scale than the training images.
        """
        check_number(self.fixed_inputs, len(portraits))
        check_crop_scale(self.crop_scale, {portrait.crop_scale for portrait in portraits})
        images_MSSC = torch.from_numpy(np.stack([portrait.image for portrait in portraits]))
        if not self.needs.keypoints:
            return self.encode_images(images_MSSC)
        keypoints_MK2 = torch.from_numpy(np.stack([portrait.keypoints for portrait in portraits]))
        return self.encode_images(images_MSSC, keypoints_MK2)

    def save_pretrained(self, folder: Path | str, weights: Mapping[str, torch.Tensor] | None = None) -> None:
        """Write it to a directory that `load_representation` reads, in place of one that is there.

        Args:
            folder: made when missing.
            weights: what to write instead of its own weights, such as their EMA.

        Raises:
            ValueError: `weights` are not those of such a representation.
            OutOfSpace: the disk or the quota is full.
        """
        expected = self.state_dict()
        config = self.file_config().model_copy(
            update={"crop_scale": self.crop_scale, "fixed_inputs": self.fixed_inputs}
        )
        write_representation(Path(folder), config, expected, expected if weights is None else weights)


def check_number(fixed_inputs: int | None, given: int) -> None:
    """Check the number of images of a person.

    Raises:
        ValueError: it is 0, or not the number that the representation takes.
    """
    if not given:
        raise ValueError("no image is given: a representation needs at least one")
    if fixed_inputs not in {None, given}:
        raise ValueError(
            f"this representation takes exactly {fixed_inputs} images of a person, the number that it was trained "
            f"on (combine=concat); given: {given}"
        )
