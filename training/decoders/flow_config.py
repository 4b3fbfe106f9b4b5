"""Configuration of the flow decoder; what the paper leaves open has its reason beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from settings.section import Section
from shards.schema import IMAGE_SIDE
from training.decoders.base import BuildContext, Decoder, DecoderConfig
from training.fields import AbsoluteFolder, Commit, Count, Folder, NotNegative, Weights


class Scratch(Section):
    """A small flow transformer of this size in place of FLUX, for experiments."""

    layers: Count = 4
    """Double blocks, which hold the identity adapter."""
    single_layers: Count = 4
    heads: Count = 6
    head_width: Annotated[int, Field(ge=8, multiple_of=8)] = 64
    patch: Annotated[int, Field(ge=2, multiple_of=2)] | None = None
    """To generate plain pixels: pixels along a side of a patch; each patch is a token."""
    vae: Annotated[str, AfterValidator(os.path.expanduser), AfterValidator(os.path.abspath)] | None = None
    """To generate latents: the directory of an `AutoencoderKL` of diffusers, which is not trained; as in FLUX, two
    by two latents are a token."""
    transformer: AbsoluteFolder | None = None
    """A transformer of this size that is trained already and frozen, as FLUX is: the directory of a
    `FluxTransformer2DModel` of diffusers (`training.experiments.transformer`), or a run of the flow decoder or its
    export. Null: it is trained from random weights together with the encoder."""

    @model_validator(mode="after")
    def _pixels_or_latents(self) -> Scratch:
        if self.patch is None and self.vae is None:
            raise ValueError("scratch: expected patch, to generate pixels, or vae, to generate latents")
        if self.patch is not None and self.vae is not None:
            raise ValueError(
                f"scratch: expected either patch (given: {self.patch}), to generate pixels, or vae (given: "
                f"{self.vae}), to generate latents; set the other to null, as decoders.flow.scratch.patch=null"
            )
        return self


class FlowConfig(DecoderConfig):
    """Flow matching on a frozen FLUX with an identity adapter."""

    name: ClassVar[str] = "flow"
    """That of its section, for messages."""

    not_defining = frozenset(
        {"latents", "prompt_cache", "sample_steps", "sample_guidance", "sample_identity_guidance"}
    )

    base: Weights | None = None
    """A directory of FLUX as diffusers keeps it, or owner/name of one on the Hugging Face hub; never trained."""
    revision: Commit | None = None
    """The commit of the hub's repository, without which its files may change from one run to the next."""
    scratch: Scratch | None = None
    """Instead of `base`: a small transformer, trained together with the encoder, or before and frozen."""
    side: Annotated[int, Field(ge=16, le=IMAGE_SIDE, multiple_of=16)] = IMAGE_SIDE
    """Pixels along a side of a generated image. That of the stored images; the paper does not give it."""
    prompt: str = "photo of a person."
    """The only prompt, and the paper's."""
    text_tokens: Annotated[int, Field(ge=1, le=512)] = 512
    """Length that the prompt is padded to, FLUX.1-dev's own by default. 64 save 31 % of the work at 512 pixels,
    in training as in sampling, which must agree."""
    identity_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of identities whose tokens are replaced by zeros in a step. With 0.1 or so, samples can use
    classifier-free guidance (`sample_identity_guidance`; Ho and Salimans, 2022). The paper mentions none."""
    timesteps: Literal["uniform", "logit_normal"] = "uniform"
    """Distribution of t: uniform, as in the paper's equation, or more often in the middle (Esser et al., 2024)."""
    guidance: NotNegative = 1.0
    """FLUX.1-dev's guidance input in training. It was distilled to predict the velocity with that much guidance;
    at 1 it predicts the plain velocity, which is what the loss compares with. With more, the adapter would learn
    to undo the guidance."""
    latents: str = "on_the_fly"
    """Latents of the targets: `on_the_fly` computes them in each step; a directory or a URL has those that
    `omniid latents` computed once, and `beside_shards` is the directory `latents` in `data.root`. Then target
    images are not decoded, and inputs at the encoder's side only: tokens differ slightly from those of inputs that
    were decoded at 512 pixels. FLUX's latents take 0.13 MB an image."""
    prompt_cache: Folder | None = None
    """Directory of encoded prompts, so that the text encoders are loaded once; by default in ~/.cache/omniid."""
    adapter_init: Literal["zeros", "small"] | None = None
    """What the values of a new adapter start from: `zeros`, so that the adapted transformer gives what it gave
    before; or `small` numbers, as torch's linear layers do. Null is `zeros` beside a frozen transformer, and
    `small` beside one that is trained too, which has nothing to lose."""
    sample_steps: Count = 28
    """Steps of a sample in validation; FLUX.1-dev's own."""
    sample_guidance: NotNegative = 3.5
    """FLUX.1-dev's guidance input in sampling; its own."""
    sample_identity_guidance: NotNegative = 1.0
    """Scale of classifier-free guidance by identity: 1 is the conditional velocity alone, more takes two passes a
    step. Other values than 1 need `identity_dropout`."""

    @property
    def memory_hints(self) -> tuple[str, ...]:
        """See `DecoderConfig.memory_hints`; a transformer of its own reads no text."""
        return ("data.targets",) if self.scratch else ("data.targets", f"decoders.{self.name}.text_tokens")

    @property
    def frozen_keys(self) -> tuple[str, ...]:
        """See `DecoderConfig.frozen_keys`."""
        if not self.scratch:
            return (f"decoders.{self.name}.base",)
        transformer = [self.transformer_key] if self.transformer_source else []
        return (*transformer, *([f"decoders.{self.name}.scratch.vae"] if self.own_vae else []))

    @property
    def transformer_source(self) -> Path | None:
        """Where the weights of a small transformer are read that is frozen; None where it is trained, or FLUX."""
        return self.scratch.transformer if self.scratch else None

    @property
    def transformer_key(self) -> str:
        """The configuration key that names `transformer_source`."""
        return f"decoders.{self.name}.scratch.transformer"

    @property
    def own_vae(self) -> str | None:
        """Directory of the autoencoder whose latents a transformer of its own generates, where there is one."""
        return self.scratch.vae if self.scratch else None

    def with_own_networks(self, vae: Path, transformer: Path) -> Self:
        """The same, with its own networks in other directories, of those that it has."""
        if self.scratch is None:
            return self
        found: dict[str, Any] = {"vae": str(vae)} if self.scratch.vae else {}
        if self.transformer_source:
            found["transformer"] = transformer
        return self.model_copy(update={"scratch": self.scratch.model_copy(update=found)})

    def of_trained(self) -> Self:
        """The same for a decoder that gets trained weights: without the weights that training began with."""
        return self

    @model_validator(mode="after")
    def _there_is_one_base(self) -> FlowConfig:
        if (self.base is None) == (self.scratch is None):
            raise ValueError("base: expected either base, such as black-forest-labs/FLUX.1-dev, or scratch")
        if self.scratch and self.scratch.patch and self.side % self.scratch.patch:
            raise ValueError(f"scratch.patch: {self.scratch.patch} does not divide side {self.side}")
        if self.sample_identity_guidance != 1 and not self.identity_dropout:
            raise ValueError(
                "sample_identity_guidance: other values than 1 need decoders.flow.identity_dropout, such as 0.1: "
                "without it, the unconditional velocity is not learned"
            )
        return self

    def build(self, context: BuildContext) -> Decoder:
        """See `DecoderConfig.build`."""
        from training.decoders.flow_networks import build_flow_decoder  # diffusers takes seconds to import

        return build_flow_decoder(self, context)

    def defining(self) -> dict[str, Any]:
        """Files of weights may move: of their paths, the names count."""
        found = super().defining()
        if found["base"]:
            found["base"] = Path(found["base"]).name
        for key in ("vae", "transformer"):
            if found["scratch"] and found["scratch"][key]:
                found["scratch"][key] = Path(found["scratch"][key]).name
        return found
