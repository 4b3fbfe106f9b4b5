"""A small flow transformer that was trained before, for decoders that freeze it as they freeze FLUX.

It comes from a directory of diffusers (`FluxTransformer2DModel`), or from a run or an export of the flow decoder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from settings.section import ConfigError
from training.errors import TrainingError
from training.models.clip_weights import key_differences
from training.models.digest import weights_digest
from training.models.flux_adapter import name_in_file
from training.models.flux_folder import CODEC, WEIGHTS_FILE, read_weights

if TYPE_CHECKING:
    from training.trained import Trained


def load_frozen(transformer: Any, source: Path, key: str, codec: str) -> None:
    """Load the weights of a transformer that is trained already, and freeze it.

    Args:
        transformer: a `FluxTransformer2DModel` without an adapter, changed in place.
        source: where its weights are (`read_transformer`).
        key: configuration key that names the source, for messages.
        codec: name of the codec whose latents it is to generate.

    Raises:
        TrainingError: there is no transformer, or one of another size or of other latents.
    """
    weights = read_transformer(source, key)
    problems = key_differences(transformer.state_dict(), weights) or _config_differences(transformer, source)
    if problems:
        raise TrainingError(
            f"{key}: the transformer of {source} has another size than the configured one, or other latents: "
            f"{'; '.join(problems)}"
        )
    if (trained_on := _codec(source)) not in {None, codec}:
        raise TrainingError(
            f"{key}: the transformer of {source} generates latents of another autoencoder ({trained_on}) than the "
            f"configured one ({codec})"
        )
    transformer.load_state_dict(weights, strict=True)
    transformer.requires_grad_(False).eval()


def read_transformer(source: Path, key: str) -> Mapping[str, torch.Tensor]:
    """The weights of a small transformer by their names in the model, without an adapter.

    Args:
        source: directory of a `FluxTransformer2DModel` of diffusers, or a run of the flow decoder or its export.
        key: see `load_frozen`.

    Raises:
        TrainingError: there is none, it cannot be read, or a run was trained on other weights than are there now.
    """
    if (folder := _folder(source)) is not None:
        return read_weights(folder / WEIGHTS_FILE, f"{key}: ", "Write it again")
    from training.trained import read_run

    try:
        run = read_run(source)
    except (TrainingError, ConfigError) as error:
        raise TrainingError(
            f"{key}: {source} holds no transformer: neither {WEIGHTS_FILE}, nor a run or an export of the flow "
            f"decoder ({error})"
        ) from error
    return transformer_of(run, key)


def transformer_of(run: Trained, key: str) -> Mapping[str, torch.Tensor]:
    """The weights of the small transformer that a run of the flow decoder trained, or was trained on.

    Args:
        run: as it was read.
        key: see `load_frozen`.

    Raises:
        TrainingError: it has none, or was trained on other weights than are there now.
    """
    weights = {
        name: weight
        for name, weight in run.of("decoders.flow.transformer.").items()
        if name_in_file(name) is None
    }
    if weights:
        return weights
    frozen = run.facts.flow.transformer_source if run.facts.flow else None
    if frozen is None:
        raise TrainingError(
            f"{key}: {run.source} has no flow decoder with a small transformer. Pass a run that has one, its "
            "export, or the directory of a FluxTransformer2DModel"
        )
    found = read_transformer(frozen, key)
    if run.facts.control is None and not run.facts.flow_digest.startswith(weights_digest(dict(found))):
        raise TrainingError(
            f"{key}: the transformer of {frozen} has other weights than when {run.source} was trained on it. Put "
            "the weights of then back"
        )
    return found


def _folder(source: Path) -> Path | None:
    """The directory of diffusers that a source is, or that it holds, as an export does."""
    found = (folder for folder in (source, source / "transformer") if (folder / WEIGHTS_FILE).is_file())
    return next(found, None)


def _codec(source: Path) -> str | None:
    """The codec whose latents a transformer generates, where its file says it."""
    from safetensors import safe_open

    if (folder := _folder(source)) is None:
        return None
    with safe_open(folder / WEIGHTS_FILE, "pt") as file:
        return (file.metadata() or {}).get(CODEC)


def _config_differences(transformer: Any, source: Path) -> list[str]:
    """What shapes do not show, such as the axes of the rotary embeddings; a run is configured as it is read."""
    folder = _folder(source)
    if folder is None:
        return []
    try:
        found = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        return [f"{folder / 'config.json'} cannot be read: {error}"]
    own = {name: value for name, value in dict(transformer.config).items() if name[0] != "_"}
    expected: dict[str, Any] = json.loads(json.dumps(own))
    return [
        f"{name} is {found.get(name)}, expected {value}"
        for name, value in sorted(expected.items())
        if found.get(name) != value
    ]
