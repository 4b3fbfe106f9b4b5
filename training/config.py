"""The configuration of a training run: typed, complete before work starts, refused when a key is not known.

What the paper leaves open (resolution, batch, optimiser) is a key here, and the reason for its default stands with
it. What shapes the result is kept apart from how the machines run it (`run`): a run may be resumed under another
`run`, on another number of processes, never under another rest.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from settings.section import Section
from shards.schema import IMAGE_SIDE, IMAGES_PER_IDENTITY

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Folder = Annotated[Path, AfterValidator(Path.expanduser)]
"""A path in which `~` is the home folder: shells leave it alone behind an equals sign."""
Weights = Annotated[str, AfterValidator(os.path.expanduser)]
"""Such a path as well, or owner/name of a repository of the Hugging Face hub."""
Images = Annotated[int, Field(ge=1, le=IMAGES_PER_IDENTITY)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="64 hexadecimal digits")]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$", description="40 hexadecimal digits")]


class Data(Section):
    """Which data set, and what of an identity a step sees (few to many)."""

    root: str
    """A folder, or the address of one, such as s3://bucket/mfhq."""
    inputs: Images | tuple[Images, Images] = 3
    """Images that the encoder sees: a number, or the least and the most; the paper's 3."""
    targets: Images = IMAGES_PER_IDENTITY
    """Images that the decoder draws, inputs among them; the paper's 8."""

    @model_validator(mode="after")
    def _a_range_goes_upwards(self) -> Data:
        if self.least_inputs > self.most_inputs:
            given = f"[{self.least_inputs}, {self.most_inputs}]"
            raise ValueError(f"inputs: {given} goes downwards; expected the least first, as [1,5]")
        return self

    @property
    def least_inputs(self) -> int:
        """Least number of inputs of an identity."""
        return self.inputs if isinstance(self.inputs, int) else self.inputs[0]

    @property
    def most_inputs(self) -> int:
        """Most inputs of an identity."""
        return self.inputs if isinstance(self.inputs, int) else self.inputs[1]


class Model(Section):
    """The encoder; its decoder is of the same size."""

    size: Literal["paper", "small", "tiny"]
    """`paper` is built on CLIP ViT-H-14; `small` is for experiments, `tiny` for tests and the demo."""
    clip: str
    """Where the CLIP weights come from: `hub`, a file of open_clip weights, or `random`; `encoder` where
    `flow.encoder` holds them. A file must be of a model with GELU: weights of the same shape that were trained
    with QuickGELU (DFN's, MetaCLIP's) would load and mean something else. They are refused where the repository's
    `open_clip_config.json` lies beside the file, which alone tells them apart."""
    clip_sha256: (
        Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="64 hexadecimal digits")] | None
    ) = None
    """Checked before a file of weights is loaded, when set."""


class Mtd(Section):
    """Decoder 1, the masked transformer decoder (Omni-ID section 3.3)."""

    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Share of a target's patches that the decoder does not see; the paper's 0.95."""


class Scratch(Section):
    """A small flow transformer that is trained from nothing, for experiments without FLUX."""

    layers: Count = 4
    """Double blocks, which hold the identity adapter."""
    single_layers: Count = 4
    heads: Count = 6
    head_width: Annotated[int, Field(ge=8, multiple_of=8)] = 64
    patch: Annotated[int, Field(ge=2, multiple_of=2)] | None = None
    """To draw plain pixels: how many along a side of a patch; each patch is a token."""
    vae: Annotated[str, AfterValidator(os.path.expanduser), AfterValidator(os.path.abspath)] | None = None
    """To draw latents: the folder of an `AutoencoderKL` of diffusers, which is not trained; as in FLUX, two by two
    latents are a token."""

    @model_validator(mode="after")
    def _pixels_or_latents(self) -> Scratch:
        if self.patch is None and self.vae is None:
            raise ValueError("flow.scratch: expected patch, to draw pixels, or vae, to draw latents")
        if self.patch is not None and self.vae is not None:
            raise ValueError(
                f"flow.scratch: expected either patch (given: {self.patch}), to draw pixels, or vae (given: "
                f"{self.vae}), to draw latents; set the other to null, as flow.scratch.patch=null"
            )
        return self


class Flow(Section):
    """Decoder 2, flow matching on a frozen FLUX with an identity adapter."""

    base: Weights | None = None
    """A folder of FLUX as diffusers keeps it, or owner/name of one on the Hugging Face hub; never trained."""
    revision: Commit | None = None
    """The commit of the hub's repository, without which its files may change from one run to the next."""
    scratch: Scratch | None = None
    """Instead of `base`: a transformer of this size, trained from random weights together with the encoder."""
    encoder: Weights | None = None
    """The encoder to go on from: what an MTD run left in `<output>/encoder`, or owner/name on the hub."""
    encoder_revision: Commit | None = None
    """The commit of the hub's repository that the encoder lies in; none for a folder."""
    side: Annotated[int, Field(ge=16, le=IMAGE_SIDE, multiple_of=16)] = IMAGE_SIDE
    """Pixels along a side of what is drawn. That of the stored images; the paper does not give it."""
    prompt: str = "photo of a person."
    """The only prompt, and the paper's."""
    text_tokens: Annotated[int, Field(ge=1, le=512)] = 512
    """Length that the prompt is padded to, FLUX.1-dev's own by default. 64 save 31 % of the work at 512 pixels,
    in training as in sampling, which must agree."""
    identity_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of people of whom nothing is told in a step: their tokens are zeros. With a tenth or so, samples can
    be guided by identity (`sample_identity_guidance`; Ho and Salimans, 2022). The paper speaks of none."""
    timesteps: Literal["uniform", "logit_normal"] = "uniform"
    """How t is drawn: evenly, as the paper's equation reads, or more often in the middle (Esser et al., 2024)."""
    guidance: NotNegative = 1.0
    """What FLUX.1-dev is told in training. It was distilled to answer a number with the velocity of that much
    guidance; at 1, it answers with the plain velocity, which is what the loss compares with. More would have the
    adapter learn to take the guidance back."""
    latents: str = "on_the_fly"
    """Latents of the targets: `on_the_fly`, or `beside_shards` or another folder to keep them in. Encoding takes
    a few percent of a step; kept, they take 0.13 MB an image."""
    prompt_cache: Folder | None = None
    """Folder of encoded prompts, so that the text encoders are loaded once; by default in ~/.cache/omniid."""
    sample_steps: Count = 28
    """Steps of a sample in validation; FLUX.1-dev's own."""
    sample_guidance: NotNegative = 3.5
    """What FLUX.1-dev is told in sampling; its own."""
    sample_identity_guidance: NotNegative = 1.0
    """How far samples go from nobody to the person: 1 is what was learned, more exaggerates who it is and takes
    two passes a step. Other values than 1 need `identity_dropout`."""

    @property
    def own_vae(self) -> str | None:
        """Folder of the autoencoder whose latents a transformer of its own draws, where there is one."""
        return self.scratch.vae if self.scratch else None

    def with_own_vae(self, folder: str) -> Flow:
        """The same, with that autoencoder in another folder."""
        if self.scratch is None or self.scratch.vae is None:
            raise ValueError("this configuration draws no latents of an autoencoder of its own")
        return self.model_copy(update={"scratch": self.scratch.model_copy(update={"vae": folder})})

    @model_validator(mode="after")
    def _there_is_one_base(self) -> Flow:
        if (self.base is None) == (self.scratch is None):
            raise ValueError("flow: expected either base, such as black-forest-labs/FLUX.1-dev, or scratch")
        if self.scratch and self.scratch.patch and self.side % self.scratch.patch:
            raise ValueError(
                f"flow.scratch.patch: {self.scratch.patch} does not divide flow.side {self.side}"
            )
        if self.encoder_revision and self.encoder is None:
            raise ValueError("flow.encoder_revision: expected with flow.encoder, and only there")
        if self.sample_identity_guidance != 1 and not self.identity_dropout:
            raise ValueError(
                "flow.sample_identity_guidance: other values than 1 need flow.identity_dropout, such as 0.1: "
                "without it, nothing is learned of how nobody in particular looks"
            )
        return self


class Optimiser(Section):
    """AdamW with warm-up and cosine decay.

    The paper gives none of these numbers. They are habits of training transformers, not the outcome of a search;
    no run of the paper's size has compared them.
    """

    learning_rate: Positive = 1e-4
    """The highest. Careful for layers that start from random weights, as queries and cross-attention always do;
    much for CLIP's own, which are mostly fine-tuned with 1e-5 to 5e-5, as higher rates wash out what they know. So
    the paper's workflow, which starts from CLIP, takes 5e-5. Lower it further when the loss jumps after the
    warm-up, or when there are few identities to learn new features from; raise it for small networks."""
    encoder_share: Fraction = 1.0
    """The encoder's learning rate as a share of that, 0 to leave it as it is. A decoder that starts from random
    weights, as every adapter does, has no use for identity at first, and what it sends back then can wear away
    what the encoder knows: in trials on small networks, its tokens became the same for everybody. So the workflows
    of the flow stage take 0.1."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    """0.95 instead of 0.999, as masked autoencoders are trained: it follows a noisy gradient more quickly."""
    weight_decay: NotNegative = 0.05
    """Also that of masked autoencoders. Not applied to biases, norms and learned tokens."""
    warmup_steps: Annotated[int, Field(ge=0)] = 2000
    """In which new layers learn to draw anything before what they send back moves CLIP's far. Under a hundredth of
    the paper's run; shorter runs need fewer, a twentieth of their steps or less."""
    final_fraction: Fraction = 0.01
    """The learning rate at the last step, as a share of the highest: the weights have come to rest by then, and
    the last steps are not lost."""
    clip_norm: Positive = 1.0
    """Most norm of the gradient, over all parameters and processes. It is meant for single bad batches; where the
    metrics show that most steps exceed it, it sets the learning rate instead, and should be raised."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.9999
    """Of the average of the weights that is validated and exported; 0 keeps none. It looks back 1 / (1 - decay)
    steps, here 10,000, a 25th of the paper's run; never more than a ninth of those taken, so that a short run is
    not held back by its initial weights."""


class Validation(Section):
    """What is measured on held-out identities while training."""

    every: Count = 5000
    """Steps between two validations; one more after the last step."""
    identities: Annotated[int, Field(ge=2)] = 256
    """At most so many held-out identities, the first of the test split."""
    grid_identities: Count = 6
    """Rows of the sample grid."""


class Checkpoints(Section):
    """When the state of the run is saved."""

    every: Count = 1000
    """Steps between two checkpoints."""
    keep: Count = 3
    """The newest so many stay."""


class Cache(Section):
    """Copies of samples on the disk of each node, for data sets far away."""

    folder: Folder
    max_gb: Positive = 100.0
    """Of all samples in the folder; those unused for longest go first."""


class Run(Section):
    """How the machines run it. None of this is part of what a checkpoint must agree with."""

    per_process: Count = 8
    """Identities of a micro-batch: what one process holds at once. Gradients of several micro-batches are
    accumulated until the whole batch is reached, so the batch stays the same on any number of processes."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """`ddp` keeps a copy of the model in each process; `fsdp` (FSDP2) a share of it."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Of activations and gradients; weights and optimiser are kept in fp32."""
    activation_checkpointing: bool | Fraction = False
    """Compute activations twice to hold them for a shorter time: those of all blocks of the networks, of none, or
    of a share of them, evenly spread. The least share that fits into memory is the fastest."""
    compile: bool = False
    """Compile the blocks of the networks with torch.compile."""
    deterministic: bool = True
    """Use only algorithms that give the same bits each time, where torch has them."""
    decode_threads: Count = 4
    """Threads of each process that decode: its share of the machine's cores."""
    prefetch: Count = 4
    """Micro-batches that are read ahead."""
    cache: Cache | None = None
    retry_s: Annotated[float, Field(gt=0, le=900)] = 300.0
    """A read that keeps failing for so long ends the run. At most 15 minutes: the other processes wait for 30."""
    max_damaged: Annotated[int, Field(ge=0)] = 10
    """Damaged identities that are skipped, over all processes, before the run ends."""
    max_nonfinite_steps: Annotated[int, Field(ge=0)] = 10
    """Steps with a loss or gradient that is not finite, which are skipped, before the run ends."""
    log_every: Count = 10
    """Steps between two lines of figures, in metrics.jsonl as in a log. Each costs a wait for the device."""


class Config(Section):
    """A whole training run."""

    example = "run.per_process=4"
    shipped = "workflows/train_*.yaml"

    stage: Literal["mtd", "flow"]
    """The decoder: the masked transformer first, flow matching from its encoder then."""
    output: Folder
    """Folder of checkpoints, metrics and sample grids; every node must see it."""
    data: Data
    model: Model
    mtd: Mtd = Mtd()
    flow: Flow | None = None
    steps: Count = 250_000
    """Optimiser steps; the paper's 250K of the first stage. Its second stage takes 10K."""
    batch: Count = 256
    """Identities of one optimiser step, over all processes. The paper does not give it. 256 are 768 inputs and
    2,048 targets; usual numbers of GPUs divide it, and eight can hold their 32 at once. With another batch, change
    the learning rate about as its square root."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    optimiser: Optimiser = Optimiser()
    validation: Validation = Validation()
    checkpoints: Checkpoints = Checkpoints()
    run: Run = Run()

    @model_validator(mode="after")
    def _the_stage_has_what_it_needs(self) -> Config:
        if (self.stage == "flow") != (self.flow is not None):
            raise ValueError(
                "flow: stage flow needs this section; start from a workflow of that stage, train_flow_*.yaml"
                if self.flow is None
                else f"flow: only stage flow has this section, and stage is {self.stage}"
            )
        from_encoder = self.flow is not None and self.flow.encoder is not None
        if (self.model.clip == "encoder") != from_encoder:
            raise ValueError("model.clip: expected to be encoder where flow.encoder is set, and only there")
        return self

    def defining(self) -> dict[str, Any]:
        """What shapes the result, which a run that is resumed must agree with.

        Files and folders of weights may move from one start to the next: of their paths, the name counts.
        """
        no_part_of_it: dict[str, Any] = {
            "run": True,
            "output": True,
            "data": {"root"},
            "flow": {
                "latents",
                "prompt_cache",
                "sample_steps",
                "sample_guidance",
                "sample_identity_guidance",
            },
            "validation": True,
            "checkpoints": True,
        }
        others = {"mtd", "flow"} - {self.stage}
        found = self.model_dump(mode="json", exclude=no_part_of_it | dict.fromkeys(others, True))
        for section, key in (("model", "clip"), ("flow", "base"), ("flow", "encoder")):
            if found.get(section, {}).get(key):
                found[section][key] = Path(found[section][key]).name
        if flow := found.get("flow"):
            if flow["scratch"] and flow["scratch"]["vae"]:
                flow["scratch"]["vae"] = Path(flow["scratch"]["vae"]).name
            if not flow["identity_dropout"]:
                del flow["identity_dropout"]  # runs that began before there was any go on
        return found
