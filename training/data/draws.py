"""What a step uses of an identity, few to many: which images are inputs, and which are targets.

Source: Omni-ID, section 3.2. Every draw is arithmetic on a hash of (seed, epoch, key), so it does not depend on
which process makes it, or when.
"""

from __future__ import annotations

from dataclasses import dataclass

from shards.schema import IMAGES_PER_IDENTITY
from training.config import Data, Validation
from training.data.hashing import hash64, hashes64


@dataclass(frozen=True)
class Draw:
    """Which images of an identity are inputs and targets, as numbers 0 … 7."""

    inputs: tuple[int, ...]
    """Images that the representation encodes, in random order."""
    targets: tuple[int, ...]
    """Images that the decoders reconstruct or generate, ascending."""
    seed: int
    """Everything else that is random about the sample is derived from it; fits int64, may be negative."""
    flip: bool = False
    """Whether all images are mirrored."""


def draw(data: Data, seed: int, epoch: int, key: str) -> Draw:
    """What the step that meets an identity in an epoch sees of it."""
    sample_seed = hash64("sample", seed, epoch, key)
    inputs = _permutation(sample_seed, "inputs")[: _count(sample_seed, data)]
    allowed = {"all": range(IMAGES_PER_IDENTITY), "inputs": inputs}.get(
        data.targets_from, {*range(IMAGES_PER_IDENTITY)} - {*inputs}
    )
    targets = [number for number in _permutation(sample_seed, "targets") if number in allowed]
    flip = hash64("flip", sample_seed) < data.flip * 2**64
    return Draw(inputs, tuple(sorted(targets[: data.targets])), _signed(sample_seed), flip)


def draw_held_out(validation: Validation, key: str) -> Draw:
    """What validation uses of an identity: the same in every run, and no target is an input."""
    sample_seed = hash64("held out", key)
    images = _permutation(sample_seed, "inputs")
    inputs, others = images[: validation.inputs], images[validation.inputs :]
    return Draw(inputs, tuple(sorted(others[: validation.targets])), _signed(sample_seed))


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
