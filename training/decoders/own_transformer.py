"""A small flow transformer that was trained before, for decoders that freeze it as they freeze FLUX.

It comes from a directory of diffusers (`FluxTransformer2DModel`), or from a run or an export of a decoder that
generates images.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from training.errors import TrainingError
from training.models.clip_weights import key_differences
from training.models.digest import weights_digest
from training.models.flux_adapter import name_in_file
from training.models.flux_folder import CODEC, WEIGHTS_FILE, read_weights

if TYPE_CHECKING:
    from training.trained import Trained


@dataclass(frozen=True)
class StoredTransformer:
    """A small transformer as it was read.

    Attributes:
        weights: by their names in the model, without an adapter.
        codec: name of the codec whose latents it generates; None where its file does not say it.
        folder: directory of diffusers that holds it; None in a run that trained it.
    """

    weights: Mapping[str, torch.Tensor]
    codec: str | None
    folder: Path | None


def load_frozen(transformer: Any, source: Path, key: str, codec: str) -> None:
    """Load the weights of a transformer that is trained already, and freeze it.

    Args:
        transformer: a `FluxTransformer2DModel` without an adapter, changed in place.
        source: where its weights are (`read_transformer`).
        key: configuration key that names the source, for messages.
        codec: name of the configured codec.

    Raises:
        TrainingError: there is no transformer, or one of another size or of other latents.
    """
    stored = read_transformer(source, key)
    problems = key_differences(transformer.state_dict(), stored.weights)
    if not problems and stored.folder is not None:
        problems = _config_differences(transformer, stored.folder, key)
    if problems:
        raise TrainingError(
            f"{key}: the transformer of {source} has another size than the configured one, or other latents: "
            f"{'; '.join(problems)}"
        )
    if stored.codec not in {None, codec}:
        raise TrainingError(
            f"{key}: the transformer of {source} generates latents of another autoencoder ({stored.codec}) than "
            f"the configured one ({codec})"
        )
    transformer.load_state_dict(stored.weights, strict=True)
    transformer.requires_grad_(False).eval()


def read_transformer(source: Path, key: str) -> StoredTransformer:
    """Read a small transformer.

    Args:
        source: directory of a `FluxTransformer2DModel` of diffusers; or a run or an export of a decoder that
            generates images.
        key: see `load_frozen`.

    Raises:
        TrainingError: there is none, it cannot be read, or it has other weights than in the training of the run.
    """
    from training.engine.output import RUN_FILE
    from training.trained import EXPORT_FILE, read_run

    if (source / WEIGHTS_FILE).is_file():
        return _of_directory(source, key)
    if (source / RUN_FILE).is_file():
        try:
            run = read_run(source)
        except (TrainingError, ValueError) as error:
            raise TrainingError(f"{key}: {error}") from error
        return _of_run(run, key)
    if (source / EXPORT_FILE).is_file():
        return _of_export(source, key)
    raise TrainingError(
        f"{key}: {source} holds no transformer: neither {WEIGHTS_FILE}, nor {RUN_FILE} of a run, nor "
        f"{EXPORT_FILE} of an export"
    )


def _of_run(run: Trained, key: str) -> StoredTransformer:
    """The small transformer that a run trained, or was trained on.

    Args:
        run: as it was read, not an export.
        key: see `load_frozen`.

    Raises:
        TrainingError: it has none, or it has other weights than in the training of the run.
    """
    generator = run.facts.flow or run.facts.control
    if generator is None or generator.scratch is None:
        raise TrainingError(
            f"{key}: {run.source} has no decoder with a small transformer. Pass a run that has one, its export, "
            "or the directory of a FluxTransformer2DModel"
        )
    digest = run.frozen_digests.get(generator.name, "")
    if generator.transformer_source is not None:
        return _unchanged(read_transformer(generator.transformer_source, key), digest, run.source, key)
    weights = {
        name: weight
        for name, weight in run.of(f"decoders.{generator.name}.transformer.").items()
        if name_in_file(name) is None
    }
    return StoredTransformer(weights, digest or None, None)


def _of_directory(folder: Path, key: str) -> StoredTransformer:
    from safetensors import safe_open

    weights = read_weights(folder / WEIGHTS_FILE, f"{key}: ", "Write it again")
    with safe_open(folder / WEIGHTS_FILE, "pt") as file:
        codec = (file.metadata() or {}).get(CODEC)
    return StoredTransformer(weights, codec, folder)


def _of_export(source: Path, key: str) -> StoredTransformer:
    from training.export import TRANSFORMER_FOLDER
    from training.trained import read_facts

    facts = read_facts(source)
    generator = facts.generator
    if generator is None or generator.scratch is None:
        raise TrainingError(f"{key}: {source} is an export without a small transformer. Pass one that has it")
    stored = _of_directory(source / TRANSFORMER_FOLDER, key)
    if generator.transformer_source is not None:
        return _unchanged(stored, facts.flow_digest, source, key)
    return StoredTransformer(stored.weights, facts.flow_digest or None, stored.folder)


def _unchanged(stored: StoredTransformer, digest: str, source: Path, key: str) -> StoredTransformer:
    """The same, with the codec of a run that froze it, if its weights are those of the run.

    Args:
        stored: the transformer.
        digest: of the run: of the transformer, followed by the name of the codec.
        source: the run or its export.
        key: see `load_frozen`.

    Raises:
        TrainingError: they are others.
    """
    own = weights_digest(dict(stored.weights))
    if not digest.startswith(own):
        raise TrainingError(
            f"{key}: the transformer of {stored.folder or source} has other weights than when {source} was "
            "trained on it. Restore the weights of the training"
        )
    return StoredTransformer(stored.weights, digest.removeprefix(own) or stored.codec, stored.folder)


def _config_differences(transformer: Any, folder: Path, key: str) -> list[str]:
    """What shapes do not show, such as the axes of the rotary embeddings."""
    path = folder / "config.json"
    try:
        found: dict[str, Any] = dict(json.loads(path.read_bytes()))
        with torch.device("meta"):  # completes keys that the file lacks
            other = type(transformer).from_config(found)
    except (OSError, ValueError, TypeError) as error:
        raise TrainingError(f"{key}: {path} cannot be read: {error}. Write it again") from error
    mine, its = _public(transformer), _public(other)
    return [
        f"{name} is {its.get(name)}, expected {value}"
        for name, value in mine.items()
        if its.get(name) != value
    ]


def _public(transformer: Any) -> dict[str, Any]:
    config = {name: value for name, value in dict(transformer.config).items() if name[0] != "_"}
    config["out_channels"] = config.get("out_channels") or config["in_channels"]
    found: dict[str, Any] = json.loads(json.dumps(config))
    return found
