"""What was learned, read back: from a run's newest checkpoint, or from what `omniid export` wrote.

    <run>/      run.json  checkpoints/step-000010000/        what a run leaves; whole runs and stopped ones alike
    <export>/   omniid.json  encoder/  ip_adapter.safetensors  [transformer/]

Of the weights of a run it is their average that counts, where one was kept: what was validated.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from settings.section import Section
from training.config import Config, Flow
from training.engine.checkpoint import FOLDER, STATE_FILE
from training.engine.dcp import StoredTensors, UnreadableTensors
from training.engine.output import RUN_FILE
from training.errors import TrainingError
from training.models.sizes import SIZES, ModelSize

EXPORT_FILE = "omniid.json"
EXPORT_VERSION = "1.0"
ENCODER = "encoder."
_OF_THAT_MACHINE = {"encoder": None, "encoder_revision": None, "latents": "on_the_fly", "prompt_cache": None}
"""Of the configuration: what says nothing about what was learned."""


class ExportFacts(Section):
    """`omniid.json`: what an export is made of, and how it was trained."""

    format_version: str = EXPORT_VERSION
    kind: str = "omniid-export"
    step: int
    """Optimiser steps that it was trained for."""
    size: ModelSize
    """Of the encoder."""
    flow: Flow | None = None
    """Of the second stage; the first has no decoder that is of use without its encoder."""
    crop_scale: float | None = None
    """Side of the images that it was trained on in sizes of their faces, where their data set says it."""
    frozen_digest: str = ""
    """Of the weights that were not trained: of FLUX, or of an autoencoder (`Flux.digest`)."""


@dataclass(frozen=True)
class Trained:
    """Weights by their names in the stage, on the CPU, and what they are of."""

    facts: ExportFacts
    weights: Mapping[str, torch.Tensor]
    source: Path
    """The run or export that they were read from."""

    def of(self, prefix: str) -> dict[str, torch.Tensor]:
        """The weights whose names begin so, by what follows."""
        return {
            name.removeprefix(prefix): value
            for name, value in self.weights.items()
            if name.startswith(prefix)
        }


def read_run(run: Path) -> Trained:
    """The newest checkpoint of a run; the networks it was built around are not loaded.

    Raises:
        TrainingError: there is no run, it has no checkpoint yet, or what is there cannot be read.
    """
    try:
        found = json.loads((run / RUN_FILE).read_bytes())
        config, crop_scale = Config.model_validate(found["config"]), found.get("crop_scale")
    except FileNotFoundError as error:
        raise TrainingError(
            f"{run} is no run: it has no {RUN_FILE}; give the output folder of one"
        ) from error
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{run / RUN_FILE} cannot be read: {error}. Another version of omniid wrote it, or it is damaged"
        ) from error
    checkpoints = sorted((run / FOLDER).glob("step-?????????"))
    if not checkpoints:
        raise TrainingError(
            f"{run} has no checkpoint yet; train for checkpoints.every={config.checkpoints.every} steps at least"
        )
    newest = checkpoints[-1]
    try:
        state = json.loads((newest / STATE_FILE).read_bytes())
        step = state["step"]
        weights = _judged(StoredTensors(newest))
    except (UnreadableTensors, OSError, ValueError, KeyError) as error:
        raise TrainingError(
            f"the checkpoint {newest} cannot be read: {error}. Without that folder, the one before is used"
        ) from error
    flow = config.flow.model_copy(update=_OF_THAT_MACHINE) if config.flow else None
    facts = ExportFacts(
        step=step,
        size=SIZES[config.model.size],
        flow=flow,
        crop_scale=crop_scale,
        frozen_digest=state.get("frozen_digest", ""),
    )
    return Trained(facts, weights, run)


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
        return ExportFacts.model_validate(found)
    except FileNotFoundError as error:
        raise TrainingError(
            f"{export} is neither the output of a run ({RUN_FILE}) nor an export ({EXPORT_FILE})"
        ) from error
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{path} cannot be read: {error}; export the run again") from error


def _judged(stored: StoredTensors) -> dict[str, torch.Tensor]:
    listed = stored.read_metadata().state_dict_metadata
    prefix = "average." if any(name.startswith("average.") for name in listed) else "weights."
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
