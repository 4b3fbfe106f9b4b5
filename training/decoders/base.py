"""What the trainer needs of a decoder. CONTRIBUTING.md shows how to add one.

Letters in names give the shape:
    B  identities    N  targets of an identity    L  identity tokens    D  channels of a token
    S  side of an image in pixels                 C  colour channels (3, RGB)
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import nn

from settings.section import Section
from training.data.batch import Batch
from training.data.needs import Needs
from training.fields import Positive
from training.models.sizes import ModelSize


@dataclass(frozen=True)
class Column:
    """A column of the sample grid: one image of each identity.

    Attributes:
        caption: above it.
        images_BCSS: in [0, 1], on any device.
    """

    caption: str
    images_BCSS: torch.Tensor


class Decoder(Protocol):
    """A trainable `nn.Module`; each parameter with `requires_grad` must get a gradient in every step.

    What is frozen in it has `requires_grad` False, and on the meta device the dtype that it is kept in: the dry
    run counts its bytes. Everything random follows from `batch.seeds_B`, so that a resumed run gives the same
    bits. `self.training` says whether it is a training step.
    """

    needs: Needs
    """What it reads of a batch."""
    frozen_digest: str
    """Of its weights that are not trained, which no checkpoint holds; empty when there are none."""

    def losses(self, batch: Batch, tokens_BLD: torch.Tensor) -> torch.Tensor:
        """Loss of each target, (B, N) float32; 0 for damaged samples.

        The trainer takes the mean over the targets of undamaged samples, over all micro-batches and ranks.

        Args:
            batch: on the device.
            tokens_BLD: identity tokens, those of the batch's inputs or of others.
        """

    def columns(self, batch: Batch, tokens_BLD: torch.Tensor) -> list[Column]:
        """What the sample grid shows of a batch of held-out identities, without gradients."""

    def blocks(self) -> Iterable[nn.Module]:
        """The transformer blocks, which are checkpointed, compiled and sharded one by one."""


@dataclass(frozen=True)
class BuildContext:
    """What a decoder may depend on besides its own configuration.

    Attributes:
        size: of the CLIP tower, and of the masked transformer decoder.
        width: channels of an identity token.
        seed: of the run.
        precision: of activations, `bf16` or `fp32`; what is frozen may keep its weights in it.
        data_root: of the dataset.
        dataset_sha256: of its metadata; None where there is no dataset.
        shapes_only: build without weights, on the meta device.
        clip: reads CLIP's weights for a tower, once for all that ask; gives None where they are random.
    """

    size: ModelSize
    width: int
    seed: int
    precision: str
    data_root: str
    dataset_sha256: str | None = None
    shapes_only: bool = False
    clip: Callable[[], dict[str, torch.Tensor] | None] = lambda: None


class DecoderConfig(Section):
    """Base of the configurations of decoders: what each has, and how it becomes a decoder."""

    not_defining: ClassVar[frozenset[str]] = frozenset()
    """Keys that do not shape what is learned: a resumed run may change them."""

    weight: Positive = 1.0
    """Of its loss in the sum over all decoders of a run."""

    @property
    def memory_hints(self) -> tuple[str, ...]:
        """Config keys that lower its memory, such as `data.targets`; an out-of-memory error names them."""
        return ("data.targets",)

    @property
    def frozen_keys(self) -> tuple[str, ...]:
        """Config keys that name its frozen weights; an error names them when these are others than before."""
        return ()

    @abstractmethod
    def build(self, context: BuildContext) -> Decoder:
        """The decoder with its initial weights; what no file holds comes from torch's generator.

        Raises:
            ConfigError: keys do not fit one another.
            TrainingError: weights are missing or damaged.
        """

    def defining(self) -> dict[str, Any]:
        """What shapes the result, which a resumed run must agree with."""
        return self.model_dump(mode="json", exclude=set(self.not_defining))
