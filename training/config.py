"""The configuration of a training run: typed, and validated before work starts; an unknown key is an error.

What the paper leaves open (resolution, batch, optimiser) is a key here, with the reason for its default. The
section `run` has the keys that do not change the result: a run may resume with another `run` and another number of
ranks. All other keys must stay the same.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from settings.section import Section
from shards.schema import IMAGES_PER_IDENTITY
from training.decoders.registry import Decoders
from training.fields import Count, Folder, Fraction, Images, NotNegative, Positive
from training.representations.config import RepresentationConfig


class Data(Section):
    """The dataset, and the images of an identity in a step (few to many)."""

    root: str
    """Directory or URL of the dataset, such as s3://bucket/mfhq."""
    inputs: Images | tuple[Images, Images] = 3
    """Images that the representation encodes: a number, or least and most; the paper's 3."""
    targets: Images = IMAGES_PER_IDENTITY
    """Images that the decoders reconstruct or generate; the paper's 8."""
    flip: Fraction = 0.0
    """Share of identities whose images are mirrored in a step, inputs and targets alike. The paper mentions none;
    no face is symmetric, so mirrored images show a slightly different one."""
    targets_from: Literal["all", "inputs", "others"] = "all"
    """Which images may be targets: `all` of the identity, inputs among them, as in the paper; the `inputs` alone;
    or the `others` alone."""

    @model_validator(mode="after")
    def _inputs_and_targets_fit(self) -> Data:
        if self.least_inputs > self.most_inputs:
            given = f"[{self.least_inputs}, {self.most_inputs}]"
            raise ValueError(f"inputs: {given} is in descending order; expected the least first, as [1,5]")
        left = {"all": IMAGES_PER_IDENTITY, "inputs": self.least_inputs}.get(
            self.targets_from, IMAGES_PER_IDENTITY - self.most_inputs
        )
        if self.targets > left:
            raise ValueError(
                f"targets: targets_from={self.targets_from} leaves {left} images of an identity to choose from, "
                f"given: {self.targets}"
            )
        return self

    @property
    def fixed_inputs(self) -> bool:
        """Whether every identity has the same number of inputs."""
        return self.least_inputs == self.most_inputs

    @property
    def least_inputs(self) -> int:
        """Least number of inputs of an identity."""
        return self.inputs if isinstance(self.inputs, int) else self.inputs[0]

    @property
    def most_inputs(self) -> int:
        """Most inputs of an identity."""
        return self.inputs if isinstance(self.inputs, int) else self.inputs[1]


class Optimiser(Section):
    """AdamW with warm-up and cosine decay.

    The paper gives none of these numbers. They are common values for transformers; no run of the paper's size has
    compared them.
    """

    learning_rate: Positive = 1e-4
    """Peak learning rate. 1e-4 is low for layers with random weights, such as queries and cross-attention, and
    high for CLIP's, which are mostly fine-tuned with 1e-5 to 5e-5: higher rates destroy pretrained features. The
    paper's workflow starts from CLIP and sets 5e-5. Lower it when the loss jumps after the warm-up or the dataset
    has few identities; raise it for small networks."""
    representation_scale: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Learning rate of the representation, as a share of `learning_rate`; `representation.frozen` freezes it. A
    decoder with random weights, as every adapter has, does not use identity at first, and its gradients can
    destroy what the representation has learned: in trials on small networks, the tokens became the same for all
    identities. So the workflows of flow matching set 0.1."""
    tower_scale: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Learning rate of the representation's CLIP tower, as a share of the representation's;
    `representation.frozen_tower` freezes it."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    """0.95 instead of 0.999, as for masked autoencoders: the second moment follows a noisy gradient faster."""
    weight_decay: NotNegative = 0.05
    """The value of masked autoencoders. Not applied to biases, norms and learned tokens."""
    warmup_steps: Annotated[int, Field(ge=0)] = 2000
    """Linear warm-up. New layers learn to reconstruct before their gradients change CLIP's weights much. Under a
    hundredth of the paper's run; shorter runs need fewer, a twentieth of their steps or less."""
    final_fraction: Fraction = 0.01
    """Learning rate of the last step, as a share of the peak. Above 0, so that the last steps still train."""
    clip_norm: Positive = 1.0
    """Maximum norm of the gradient, over all parameters and ranks. It is for single bad batches: raise it when the
    metrics show that most steps exceed it, because it then sets the learning rate."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.9999
    """Decay of the EMA of the weights, which is validated and exported; 0 keeps no EMA. It averages
    about 1 / (1 - decay) steps, here 10,000, a 25th of the paper's run, and at most a ninth of the steps done, so
    that the EMA of a short run leaves the initial weights behind."""


class Validation(Section):
    """What is measured on held-out identities while training."""

    every: Count = 5000
    """Steps between two validations; one more after the last step."""
    identities: Annotated[int, Field(ge=2)] = 256
    """Maximum number of held-out identities, the first of the test split."""
    inputs: Images = 3
    """Images of each that the representation encodes. Independent of `data.inputs`, so that runs can be
    compared."""
    targets: Images = 5
    """Other images of each, on which the losses are computed; no input is a target."""
    grid_persons: Count = 6
    """Rows of the sample grid, one a person."""

    @model_validator(mode="after")
    def _inputs_and_targets_are_apart(self) -> Validation:
        if self.inputs + self.targets > IMAGES_PER_IDENTITY:
            raise ValueError(
                f"targets: {self.inputs} inputs leave {IMAGES_PER_IDENTITY - self.inputs} images of an identity, "
                f"given: {self.targets}"
            )
        return self


class Checkpoints(Section):
    """When the state of the run is saved."""

    every: Count = 1000
    """Steps between two checkpoints."""
    keep: Count = 3
    """Number of newest checkpoints that are kept."""
    keep_every: Count | None = None
    """Milestones: checkpoints at multiples of this number of steps are never removed. A multiple of `every`."""

    @model_validator(mode="after")
    def _milestones_are_checkpoints(self) -> Checkpoints:
        if self.keep_every and self.keep_every % self.every:
            raise ValueError(
                f"keep_every: {self.keep_every} is not a multiple of checkpoints.every={self.every}. No "
                "checkpoint is saved at those steps"
            )
        return self


class Cache(Section):
    """Copies of samples on the disk of each node, for datasets in object stores."""

    folder: Folder
    max_gb: Positive = 100.0
    """Maximum size of the directory, in GB (10^9 bytes); the least recently used samples are removed."""


class Profile(Section):
    """A window of steps that is profiled, into `<output>/profile`."""

    first_step: Annotated[int, Field(ge=0)] = 20
    """Steps before the window, in which blocks are compiled and caches fill."""
    steps: Count = 3
    ranks: Count = 1
    """Number of ranks that are profiled, from rank 0 on."""
    memory: bool = True
    """Also record the memory history of a GPU."""


class Wandb(Section):
    """A run at Weights & Biases (`omniid[tracking]`). The API key is that of `wandb login` or WANDB_API_KEY."""

    project: str
    entity: str | None = None
    """User or team; null for the default of the account."""
    name: str | None = None
    """Of the run; null for a generated one."""
    mode: Literal["online", "offline"] | None = None
    """`offline` writes into `<output>/wandb`, for `wandb sync`; null follows WANDB_MODE, which is online by
    default."""


class Run(Section):
    """How the machines run the training. A run may resume with other values."""

    per_process: Count = 8
    """Identities of a micro-batch of one rank. Gradients of micro-batches are accumulated up to `batch`, so the
    batch is the same on any number of ranks."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """`ddp` keeps a copy of the model on each rank; `fsdp` (FSDP2) a shard of it."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Of activations and gradients; weights and optimiser are in fp32."""
    activation_checkpointing: bool | Fraction = False
    """Recompute activations in the backward pass, to save memory: of all blocks of the networks, of none, or of a
    share of them, evenly spread. The least share that fits into memory is the fastest."""
    compile: bool = False
    """Compile the blocks of the networks with torch.compile."""
    deterministic: bool = True
    """Use deterministic algorithms where torch has them."""
    decode_threads: Count = 4
    """Decoding threads of each rank: its share of the machine's cores."""
    prefetch: Count = 4
    """Micro-batches that are prefetched."""
    cache: Cache | None = None
    retry_s: Annotated[float, Field(gt=0, le=900)] = 300.0
    """Seconds after which a read that keeps failing ends the run. At most 900: other ranks wait for 1,800."""
    max_damaged: Annotated[int, Field(ge=0)] = 10
    """Maximum number of damaged identities, over all ranks. They are skipped; one more ends the run."""
    max_nonfinite_steps: Annotated[int, Field(ge=0)] = 10
    """Maximum number of steps with a loss or gradient that is not finite. They are skipped; one more ends the
    run."""
    profile: Profile | None = None
    """`run.profile={}` uses the defaults. The profiled steps are slower."""
    wandb: Wandb | None = None
    """Also send figures and sample grids to Weights & Biases; `run.wandb.project=NAME` turns it on."""
    compute_latents: bool = False
    """Compute kept latents that are missing before the first step, on all ranks; otherwise they are an error that
    names `omniid latents`. A dry run does not compute them."""
    log_every: Count = 10
    """Steps between two lines of figures, in metrics.jsonl and the log. Each line synchronises with the device."""


class Config(Section):
    """A whole training run: one representation, and one or more decoders that train it."""

    example = "run.per_process=4"
    shipped = "workflows/train_*.yaml"

    output: Folder
    """Directory of checkpoints, metrics and sample grids; every node must see it."""
    data: Data
    representation: RepresentationConfig
    decoders: Decoders
    steps: Count = 250_000
    """Optimiser steps; the paper's 250K of MTD. Its flow run takes 10K."""
    batch: Count = 256
    """Identities of one optimiser step, over all ranks. The paper does not give it. 256 are 768 inputs and
    2,048 targets; usual numbers of GPUs divide it, and 32 fit on each of eight. With another batch, scale the
    learning rate about as the square root of the batch."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    optimiser: Optimiser = Optimiser()
    validation: Validation = Validation()
    checkpoints: Checkpoints = Checkpoints()
    run: Run = Run()

    @model_validator(mode="before")
    @classmethod
    def _not_of_an_earlier_version(cls, values: Any) -> Any:
        if isinstance(values, dict) and (old := {"stage", "model", "mtd", "flow"} & values.keys()):
            raise ValueError(
                f"{min(old)}: this key is from an earlier version. `stage: mtd` is now `decoders: {{mtd: {{}}}}`, "
                "`model` is `representation`, `flow.encoder` is `representation.weights`, and "
                "`optimiser.encoder_share` is `optimiser.representation_scale`"
            )
        return values

    @model_validator(mode="after")
    def _latents_are_of_the_images(self) -> Config:
        for name, decoder in self.decoders.chosen():
            if self.data.flip and getattr(decoder, "latents", "on_the_fly") != "on_the_fly":
                raise ValueError(
                    "data.flip: kept latents are those of the stored images, not of mirrored ones. Set "
                    f"decoders.{name}.latents=on_the_fly, or data.flip=0"
                )
        return self

    @model_validator(mode="after")
    def _the_profile_is_reached(self) -> Config:
        if self.run.profile and self.run.profile.first_step >= self.steps:
            raise ValueError(
                f"run.profile.first_step: {self.run.profile.first_step} is not below steps={self.steps}"
            )
        return self

    @model_validator(mode="after")
    def _inputs_suit_the_representation(self) -> Config:
        if self.representation.needs_fixed_inputs and self.data.least_inputs != self.data.most_inputs:
            raise ValueError(
                f"data.inputs: representation.kind={self.representation.kind} with combine=concat needs a "
                "fixed number of inputs. Set data.inputs to one number, or representation.combine to mean"
            )
        if self.data.flip and self.representation.kind.startswith("arcface"):
            raise ValueError(
                "data.flip: faces are aligned by the landmarks of the images as stored. Set data.flip=0"
            )
        return self

    def defining(self) -> dict[str, Any]:
        """The values that change the result; they must be equal when a run resumes."""
        found = self.model_dump(
            mode="json",
            exclude={
                "run": True,
                "output": True,
                "data": {"root"},
                "validation": True,
                "checkpoints": True,
                "decoders": True,
            },
        )
        found["representation"] = self.representation.defining()
        found["decoders"] = {name: decoder.defining() for name, decoder in self.decoders.chosen()}
        return found
