"""What the stream hands to a training step: the images of some identities, and which of them play which part.

Letters in names give the shape:
    B  identities          K  stored images of an identity (8)     S  side of the decoded images, in pixels
    M  inputs, at most     N  targets                              C  colour channels (3, RGB)
"""

from __future__ import annotations

from dataclasses import dataclass, fields

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
    masks_BKSS: torch.Tensor
    """uint8: 255 is face, 0 is everything else."""
    inputs_BM: torch.Tensor
    """int64, 0..7: the images that the encoder sees; padded with 0 where `input_valid_BM` is False."""
    input_valid_BM: torch.Tensor
    """bool: which of the inputs are inputs, and which are padding."""
    targets_BN: torch.Tensor
    """int64, 0..7: the images that the decoder is to draw."""
    valid_B: torch.Tensor
    """bool: False where the sample is damaged; such a row counts for nothing in the loss."""
    seeds_B: torch.Tensor
    """int64: hash of (seed, epoch, key). Everything random about a sample is derived from it."""
    keys: tuple[str, ...]
    """The identities."""

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device; from pinned memory, the host does not wait for the copy."""
        moved = {
            field.name: value.to(device, non_blocking=True)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), torch.Tensor)
        }
        return Batch(**moved, keys=self.keys)

    def pinned(self) -> Batch:
        """The same batch in page-locked memory."""
        moved = {
            field.name: value.pin_memory()
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), torch.Tensor)
        }
        return Batch(**moved, keys=self.keys)
