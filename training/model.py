"""The model of a run: a representation, and the decoders that train it.

     images of a person ──> representation ──> identity tokens (B, L, D) ──> decoders ──> losses

Letters in names give the shape:
    B  identities    M  inputs, at most    N  targets of an identity    R  decoders
    L  identity tokens    D  channels of a token
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import nullcontext
from functools import cache, partial, reduce
from operator import or_
from typing import Any, cast

import torch
from torch import nn

from training.config import Config
from training.data.batch import Batch, pick
from training.data.needs import Needs
from training.decoders.base import BuildContext, Column, Decoder
from training.models.clip_weights import load_clip
from training.models.digest import weights_digest
from training.models.sizes import SIZES
from training.representations.base import Inputs
from training.representations.build import build_representation, meta_representation


class IdentityModel(nn.Module):
    """A representation and its decoders, as one module that DDP or FSDP wraps.

    Args:
        representation: a `Representation`; frozen where none of its parameters need a gradient.
        decoders: by name.
    """

    METHODS = ("encode", "losses", "columns")
    """Methods besides `forward` that run the networks; FSDP must know them."""

    def __init__(self, representation: Any, decoders: dict[str, Decoder]) -> None:
        super().__init__()
        self.representation = representation
        self.frozen = not any(parameter.requires_grad for parameter in representation.parameters())
        """Whether the representation is not trained."""
        self.decoders = nn.ModuleDict(cast("dict[str, nn.Module]", decoders))
        self.names: tuple[str, ...] = tuple(decoders)
        """Of the decoders; order of the losses."""
        self.frozen_digests = {name: found for name, one in decoders.items() if (found := one.frozen_digest)}
        """Of the weights that are not trained, which no checkpoint holds, by the part that has them."""

    def forward(self, batch: Batch) -> torch.Tensor:
        """Each decoder's loss, summed over the targets of undamaged samples, (R,) float32."""
        tokens_BLD = self.encode(batch)
        return torch.stack([self.losses(name, batch, tokens_BLD).sum() for name in self.names])

    def encode(self, batch: Batch, most_inputs: int | None = None) -> torch.Tensor:
        """Identity tokens (B, L, D) of the inputs of a batch, or of the first `most_inputs` of them."""
        inputs_BM = batch.inputs_BM[:, :most_inputs]
        keypoints, valid_BM = batch.keypoints_BKP2, batch.input_valid_BM
        inputs = Inputs(
            pick(batch.images_BKSSC, inputs_BM),
            None if valid_BM is None else valid_BM[:, :most_inputs],
            None if keypoints is None else pick(keypoints, inputs_BM),
        )
        with torch.no_grad() if self.frozen else nullcontext():
            tokens_BLD: torch.Tensor = self.representation.encode(inputs)
        return tokens_BLD

    def losses(self, name: str, batch: Batch, tokens_BLD: torch.Tensor) -> torch.Tensor:
        """A decoder's loss of each target, (B, N) float32; 0 for damaged samples."""
        return self.decoder(name).losses(batch, tokens_BLD)

    def columns(self, name: str, batch: Batch, tokens_BLD: torch.Tensor) -> list[Column]:
        """A decoder's columns of the sample grid."""
        return self.decoder(name).columns(batch, tokens_BLD)

    def decoder(self, name: str) -> Any:
        """The decoder of a name, a `Decoder`."""
        return self.decoders[name]

    def blocks(self) -> Iterator[nn.Module]:
        """The transformer blocks, which are checkpointed, compiled and sharded one by one."""
        yield from self.representation.blocks()
        for name in self.names:
            yield from self.decoder(name).blocks()

    @property
    def needs(self) -> Needs:
        """What the representation and the decoders read of a batch."""
        decoders: list[Needs] = [self.decoder(name).needs for name in self.names]
        found: Needs = self.representation.needs
        return reduce(or_, decoders, found)


def build_model(config: Config, dataset_sha256: str | None = None) -> IdentityModel:
    """The model that a configuration describes, with its initial weights, alike on every rank.

    What no file holds follows from `config.seed`, and the state of torch's generator stays as it was.

    Args:
        config: of the run.
        dataset_sha256: of the dataset's metadata, where there is one.

    Raises:
        ConfigError: keys do not fit one another.
        TrainingError: weights are missing, damaged or of another size.
    """
    named = config.representation
    clip = cache(partial(load_clip, named.clip, named.size, named.clip_sha256))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        representation = build_representation(config.representation, clip, config.data.most_inputs)
        context = build_context(config, representation.width, dataset_sha256=dataset_sha256, clip=clip)
        decoders = {name: decoder.build(context) for name, decoder in config.decoders.chosen()}
    model = IdentityModel(representation, decoders)
    if digest := frozen_digest(representation):
        model.frozen_digests["representation"] = digest
    return model


def frozen_digest(representation: Any) -> str:
    """Digest of the weights of a representation that are not trained; empty when there are none."""
    frozen = {name: weight for name, weight in representation.named_parameters() if not weight.requires_grad}
    recogniser = getattr(representation, "recogniser", None)
    parts = ([weights_digest(frozen)] if frozen else []) + ([recogniser.sha256] if recogniser else [])
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:32] if parts else ""


def meta_model(config: Config) -> IdentityModel:
    """The same model on the meta device: shapes without weights, to count with.

    Raises:
        TrainingError: weights that the configuration names cannot be used, or FLUX's sizes cannot be read.
    """
    with torch.device("meta"):
        representation = meta_representation(config.representation, config.data.most_inputs)
        context = build_context(config, representation.width, shapes_only=True)
        decoders = {name: decoder.build(context) for name, decoder in config.decoders.chosen()}
        return IdentityModel(representation, decoders)


def build_context(config: Config, width: int, **more: Any) -> BuildContext:
    """What the decoders of a configuration may depend on.

    Args:
        config: of the run.
        width: channels of an identity token.
        more: fields of the context that have defaults.
    """
    return BuildContext(
        size=SIZES[config.representation.size],
        width=width,
        seed=config.seed,
        precision=config.run.precision,
        data_root=config.data.root,
        **more,
    )
