"""What was learned, read back: from a run's newest checkpoint, or from what `omniid export` wrote.

    <run>/      run.json  checkpoints/step-000010000/        what a run leaves; whole runs and stopped ones alike
    <export>/   omniid.json  encoder/  ip_adapter.safetensors  [transformer/]

Of the weights of a run, their EMA is read where one is kept: that is what was validated.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from settings.section import ConfigError, Section
from training.config import Config
from training.decoders.control_config import ControlConfig
from training.decoders.flow_config import FlowConfig
from training.engine.checkpoint import FOLDER, STATE_FILE
from training.engine.dcp import StoredTensors, UnreadableTensors
from training.engine.learner import EMA, WEIGHTS
from training.engine.output import ENCODER_FOLDER, RUN_FILE
from training.errors import TrainingError
from training.model import frozen_digest
from training.models.clip_weights import load_clip
from training.models.pretrained import CONFIG
from training.models.sizes import SIZES, ModelSize
from training.representations.build import build_representation, meta_representation
from training.representations.config import RepresentationConfig

EXPORT_FILE = "omniid.json"
EXPORT_VERSION = "2.3"
REPRESENTATION = "representation."
"""Prefix of the names of its weights in the model."""
_OF_THAT_MACHINE = {"latents": "on_the_fly", "prompt_cache": None}
"""Of the configuration: what says nothing about what was learned."""


class ExportFacts(Section):
    """`omniid.json`: what an export is made of, and how it was trained."""

    format_version: str = EXPORT_VERSION
    kind: str = "omniid-export"
    step: int
    """Optimiser steps that it was trained for."""
    representation: str = "omniid"
    """Its kind (`training.representations.config`)."""
    fixed_inputs: int | None = None
    """Images of a person that it takes, where it takes no other number (`combine=concat`)."""
    size: ModelSize
    """Of the encoder."""
    flow: FlowConfig | None = None
    """Of the flow decoder, if there is one; a masked transformer decoder is not exported."""
    control: ControlConfig | None = None
    """Of the control decoder, if there is one."""
    crop_scale: float | None = None
    """Crop scale of the images that it was trained on (`faces.crop`), where their dataset says it."""
    flow_digest: str = ""
    """Of the weights of the generator that were not trained: of FLUX, or of small networks (`Flux.digest`)."""

    @property
    def generator(self) -> FlowConfig | None:
        """Of the decoder that generates images: the control decoder, or the flow decoder; None without either."""
        return self.control or self.flow

    def with_generator(self, config: FlowConfig) -> ExportFacts:
        """The same facts with another configuration of that decoder."""
        return self.model_copy(update={config.name: config})


@dataclass(frozen=True)
class Trained:
    """Weights by their names in the stage, on the CPU, and what they are of."""

    facts: ExportFacts
    weights: Mapping[str, torch.Tensor]
    source: Path
    """The run or export that they were read from."""
    representation: Callable[[], Any]
    """Makes the representation, with any weights."""
    frozen_digests: Mapping[str, str] = field(default_factory=dict)
    """Of a run: digests of what its decoders did not train, by decoder."""

    @property
    def prefix(self) -> str:
        """Of the names of the generator's weights in the model."""
        generator = self.facts.generator
        return f"decoders.{generator.name if generator else FlowConfig.name}."

    def of(self, prefix: str) -> dict[str, torch.Tensor]:
        """The weights whose names begin so, by what follows."""
        return {
            name.removeprefix(prefix): value
            for name, value in self.weights.items()
            if name.startswith(prefix)
        }


def read_run(run: Path, step: int | None = None, models_dir: Path | None = None) -> Trained:
    """A checkpoint of a run; the networks it was built around are not loaded.

    Args:
        run: its output.
        step: of the checkpoint; the newest when None.
        models_dir: directory with the file of its recognition network; that of the run when None.

    Raises:
        TrainingError: there is no run, it has no checkpoint yet, or what is there cannot be read.
    """
    try:
        found = json.loads((run / RUN_FILE).read_bytes())
        config, crop_scale = Config.model_validate(found["config"]), found.get("crop_scale")
    except FileNotFoundError as error:
        raise TrainingError(
            f"{run} is no run: it has no {RUN_FILE}. Pass the output directory of one"
        ) from error
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{run / RUN_FILE} cannot be read: {error}. Another version of omniid wrote it, or it is damaged"
        ) from error
    checkpoints = sorted((run / FOLDER).glob("step-?????????"))
    if not checkpoints:
        raise TrainingError(
            f"{run} has no checkpoint yet. Train for checkpoints.every={config.checkpoints.every} steps at least"
        )
    newest = checkpoints[-1] if step is None else run / FOLDER / f"step-{step:09}"
    if newest not in checkpoints:
        kept = ", ".join(str(int(path.name.removeprefix("step-"))) for path in checkpoints)
        raise TrainingError(f"{run} has no checkpoint of step {step}; it has those of {kept}")
    try:
        state = json.loads((newest / STATE_FILE).read_bytes())
        step = state["step"]
        weights = _validated_weights(StoredTensors(newest))
    except (UnreadableTensors, OSError, ValueError, KeyError) as error:
        raise TrainingError(
            f"the checkpoint {newest} cannot be read: {error}. Without that directory, the one before is used"
        ) from error
    chosen_representation = config.representation
    if models_dir is not None:
        chosen_representation = chosen_representation.model_copy(update={"models_dir": models_dir})
    # Its shapes alone: what it began with may be gone.
    of_itself = chosen_representation.model_copy(update={"weights": None, "revision": None})
    made = partial(_named_representation, run, of_itself, config.data.most_inputs)
    with torch.device("meta"):
        shapes = made()
    names = {f"{REPRESENTATION}{name}" for name in shapes.state_dict()}
    digest = state["frozen_digests"].get("representation", "")
    if names - weights.keys():
        weights = _untrained(chosen_representation, config.data.most_inputs, digest) | weights
    else:
        # What is left is a recognition network, whose digest is that of its file.
        _check_frozen(chosen_representation, shapes, digest)
    of_decoders = {
        name: chosen.model_copy(update=_OF_THAT_MACHINE)
        for name in (FlowConfig.name, ControlConfig.name)
        if (chosen := getattr(config.decoders, name)) is not None
    }
    facts = ExportFacts(
        step=step,
        representation=config.representation.kind,
        fixed_inputs=shapes.fixed_inputs,
        size=SIZES[config.representation.size],
        crop_scale=crop_scale,
        **of_decoders,
    )
    generator = facts.generator
    if generator is not None:
        facts = facts.model_copy(update={"flow_digest": state["frozen_digests"].get(generator.name, "")})
    return Trained(facts, weights, run, made, state["frozen_digests"])


def check_finished(source: Path) -> None:
    """Reject a run that is not finished; an export is.

    Args:
        source: output of a run, or an export.

    Raises:
        TrainingError: the run was stopped, or is still being trained.
    """
    if (source / RUN_FILE).is_file() and not (source / ENCODER_FOLDER / CONFIG).is_file():
        raise TrainingError(
            f"{source} is not finished: it was stopped, or is still being trained. Continue it, or leave out "
            "--finished to evaluate its newest checkpoint"
        )


def read_facts(export: Path) -> ExportFacts:
    """What an export says about itself.

    Raises:
        TrainingError: it is none, or of a newer format, or damaged.
    """
    path = export / EXPORT_FILE
    try:
        found: Any = json.loads(path.read_bytes())
        version = str(found["format_version"])
        if version.partition(".")[0] != EXPORT_VERSION.partition(".")[0]:
            raise TrainingError(
                f"{export} is an export of format {version}, this code reads {EXPORT_VERSION}: use a version of "
                "omniid that is as new as the one that wrote it"
            )
        # A newer minor version may say more.
        return ExportFacts.model_validate(
            {key: found[key] for key in ExportFacts.model_fields if key in found}
        )
    except FileNotFoundError as error:
        raise TrainingError(
            f"{export} is neither the output of a run ({RUN_FILE}) nor an export ({EXPORT_FILE}). Pass one of them"
        ) from error
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{path} cannot be read: {error}. Export the run again") from error


def _named_representation(run: Path, config: RepresentationConfig, inputs: int) -> Any:
    """The representation of a run, without its weights; errors say where it is configured and how to go on."""
    try:
        return meta_representation(config, inputs)
    except ConfigError as error:
        raise ConfigError(
            f"{run / RUN_FILE}: {error}\nPass the directory that holds the file: --models-dir DIR"
        ) from error


def _untrained(config: RepresentationConfig, inputs: int, digest: str) -> dict[str, torch.Tensor]:
    """The representation that a run began with: checkpoints do not hold what was not trained.

    Raises:
        TrainingError: its frozen weights are others now.
    """
    read_clip = partial(load_clip, config.clip, config.size, config.clip_sha256)
    representation = build_representation(config, read_clip, inputs)
    _check_frozen(config, representation, digest)
    return {f"{REPRESENTATION}{name}": value for name, value in representation.state_dict().items()}


def _check_frozen(config: RepresentationConfig, representation: Any, digest: str) -> None:
    if frozen_digest(representation) == digest:
        return
    keys = {
        "weights": config.weights is not None,
        "clip": config.clip != "random",
        "recogniser": config.kind.startswith("arcface"),
    }
    where = " or ".join(f"representation.{key}" for key, used in keys.items() if used)
    raise TrainingError(
        f"what the run did not train has other weights now than in training ({where}). Put the files of the "
        "training back"
    )


def _validated_weights(stored: StoredTensors) -> dict[str, torch.Tensor]:
    listed = stored.read_metadata().state_dict_metadata
    prefix = f"{EMA}." if any(name.startswith(f"{EMA}.") for name in listed) else f"{WEIGHTS}."
    tensors = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in listed.items()
        if name.startswith(prefix)
    }
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="torch.distributed is disabled"
        )  # as is meant: one process reads
        stored.read_into(tensors, None)
    return {name.removeprefix(prefix): value for name, value in tensors.items()}
