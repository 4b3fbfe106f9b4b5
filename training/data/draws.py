"""What a step sees of an identity, few to many: which images go into the encoder, and which are to be drawn.

Source: Omni-ID, section 3.2. Every draw is arithmetic on a hash of (seed, epoch, key), so it does not depend on
which process makes it, or when.
"""

from __future__ import annotations

from dataclasses import dataclass

from shards.schema import IMAGES_PER_IDENTITY
from training.config import Data
from training.data.hashing import hash64, hashes64


@dataclass(frozen=True)
class Draw:
    """The parts that the images of an identity play, as numbers 0 … 7."""

    inputs: tuple[int, ...]
    """Images that the encoder sees, in drawn order."""
    targets: tuple[int, ...]
    """Images that the decoder is to draw, ascending; the inputs may be among them."""
    seed: int
    """Everything else that is random about the sample is derived from it; fits int64, may be negative."""

    @property
    def images(self) -> tuple[int, ...]:
        """All images that play a part, ascending."""
        return tuple(sorted({*self.inputs, *self.targets}))


def draw(data: Data, seed: int, epoch: int, key: str) -> Draw:
    """What the step that meets an identity in an epoch sees of it."""
    sample_seed = hash64("sample", seed, epoch, key)
    return Draw(
        inputs=_permutation(sample_seed, "inputs")[: _count(sample_seed, data)],
        targets=tuple(sorted(_permutation(sample_seed, "targets")[: data.targets])),
        seed=_signed(sample_seed),
    )


def draw_held_out(data: Data, key: str) -> Draw:
    """What validation sees of an identity: the same in every run, and no target is an input.

    As many inputs as training has at most, but at least one image is left to be a target.
    """
    sample_seed = hash64("held out", key)
    inputs = min(data.most_inputs, IMAGES_PER_IDENTITY - 1)
    images = _permutation(sample_seed, "inputs")
    targets = images[inputs:][: data.targets]
    return Draw(inputs=images[:inputs], targets=tuple(sorted(targets)), seed=_signed(sample_seed))


def _count(sample_seed: int, data: Data) -> int:
    """Number of inputs, evenly spread over the range; the bias of a remainder of 64 bits is below 1e-17."""
    choices = data.most_inputs - data.least_inputs + 1
    return data.least_inputs + hash64("number of inputs", sample_seed) % choices


def _permutation(sample_seed: int, use: str) -> tuple[int, ...]:
    """The numbers of the images in an order that depends on the sample and the use."""
    ranks = hashes64(IMAGES_PER_IDENTITY, use, sample_seed)
    return tuple(sorted(range(IMAGES_PER_IDENTITY), key=ranks.__getitem__))


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
