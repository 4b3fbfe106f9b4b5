"""What the stream gives to a training step: the images of some identities, and which are inputs and targets.

Letters in names give the shape:
    B  identities          K  stored images of an identity (8)     S  side of the decoded images, in pixels
    P  keypoints (5)
    M  inputs, at most     N  targets                              C  colour channels (3, RGB), or those of latents
    H  side of latents, or of landmark images
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch


@dataclass(frozen=True)
class Batch:
    """B identities of one micro-batch, in the order of the stream.

    Every image is decoded once, although it may be input and target. Images that are neither stay zero.
    A sample that could not be read is still there, with zeros and `valid_B` False, so that shapes, order and the
    number of steps do not depend on what is damaged.
    """

    images_BKSSC: torch.Tensor
    """uint8, RGB."""
    masks_BKSS: torch.Tensor | None
    """uint8: 255 is face, 0 is everything else; None where no decoder needs them."""
    inputs_BM: torch.Tensor
    """int64, 0..7: the images that the encoder sees; padded with 0 where `input_valid_BM` is False."""
    input_valid_BM: torch.Tensor | None
    """bool: which of the inputs are inputs, and which are padding. None where the number of inputs is fixed: all
    are real, attention needs no mask, and flash kernels apply."""
    targets_BN: torch.Tensor
    """int64, 0..7: the images that the decoder reconstructs or generates."""
    valid_B: torch.Tensor
    """bool: False where the sample is damaged; such a row adds nothing to the loss."""
    seeds_B: torch.Tensor
    """int64: hash of (seed, epoch, key). Everything random about a sample is derived from it."""
    keys: tuple[str, ...]
    """The identities."""
    keypoints_BKP2: torch.Tensor | None = None
    """float32: x and y of five keypoints (`faces.align`) as parts of an image's side, 0 at its edge; None where
    they are not needed."""
    latents_BNCHH: torch.Tensor | None = None
    """Kept latents of the targets, in the codec's dtype; None where they are computed from the images."""
    landmark_images_BNHHC: torch.Tensor | None = None
    """uint8, RGB: landmarks of the targets as images (`faces.landmark_image`); None where they are not needed."""

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device; from pinned memory, the host does not wait for the copy."""
        moved = {
            field.name: value.to(device, non_blocking=True)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), torch.Tensor)
        }
        return replace(self, **moved)

    def pinned(self) -> Batch:
        """The same batch in page-locked memory."""
        moved = {
            field.name: value.pin_memory()
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), torch.Tensor)
        }
        return replace(self, **moved)

    @property
    def target_count(self) -> int:
        """Targets of undamaged samples; waits for the device when the batch is not on the CPU."""
        return int(self.valid_B.sum()) * int(self.targets_BN.shape[1])


def pick(images_BKxx: torch.Tensor, numbers_BX: torch.Tensor) -> torch.Tensor:
    """The images of these numbers, (B, X, …)."""
    rows_B1 = torch.arange(len(numbers_BX), device=numbers_BX.device)[:, None]
    return images_BKxx[rows_B1, numbers_BX]
