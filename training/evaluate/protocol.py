"""Which images of a held-out identity are inputs and targets, and from which noise an image is generated.

All of it is arithmetic on hashes, so it is the same in every evaluation: for all numbers of inputs, all sources
and any number of ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shards.schema import IMAGES_PER_IDENTITY
from training.data.hashing import hash64, hashes64
from training.errors import TrainingError

DEFAULT_INPUTS = (1, 3, 5)
"""As in the paper's tables."""


@dataclass(frozen=True)
class Roles:
    """The roles of the stored images of an identity, as numbers 0 … 7."""

    inputs: tuple[int, ...]
    """As many as the largest number of inputs; the first k are the inputs for k."""
    targets: tuple[int, ...]
    """The ground truth for every k, ascending; none of them is an input."""


def parse_inputs(text: str) -> tuple[int, ...]:
    """The numbers of inputs of `--inputs`, ascending and each once.

    Raises:
        TrainingError: they are no whole numbers from 1 to 7; with 8, no image is left as a target.
    """
    most = IMAGES_PER_IDENTITY - 1
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or numbers[0] < 1:
        raise TrainingError(f"--inputs: expected whole numbers such as 1,3,5, got {text!r}")
    if numbers[-1] > most:
        raise TrainingError(
            f"--inputs: {numbers[-1]} inputs leave no target, because an identity has {IMAGES_PER_IDENTITY} "
            f"images. Give numbers of at most {most}"
        )
    return tuple(numbers)


def roles(key: str, inputs: Sequence[int], images: Sequence[int] = range(IMAGES_PER_IDENTITY)) -> Roles:
    """The roles of the images of an identity.

    Args:
        key: of the identity.
        inputs: numbers of inputs; the largest decides which images are targets.
        images: numbers of the images that may have a role, more than the largest number of inputs.

    Raises:
        ValueError: no image is left as a target.
    """
    most = max(inputs)
    if len(images) <= most:
        raise ValueError(f"{len(images)} images are too few for {most} inputs and a target")
    ranks = hashes64(IMAGES_PER_IDENTITY, "evaluation", key)
    order = sorted(images, key=ranks.__getitem__)
    return Roles(tuple(order[:most]), tuple(sorted(order[most:])))


def noise_seed(person: str, target: int, sample: int) -> int:
    """Seed of the noise of a generated image; fits int64. It depends on neither the inputs nor the source.

    Args:
        person: id of the person.
        target: number of the target image.
        sample: number of the image among those of this target.
    """
    value = hash64("evaluation noise", person, target, sample)
    return value - 2**64 if value >= 2**63 else value
