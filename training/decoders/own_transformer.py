"""A small flow transformer that was trained before, for decoders that freeze it as they freeze FLUX.

It comes from a directory of diffusers (`FluxTransformer2DModel`), or from a run or an export of the flow decoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from training.errors import TrainingError
from training.models.clip_weights import key_differences
from training.models.flux_adapter import name_in_file
from training.models.flux_folder import WEIGHTS_FILE


def load_frozen(transformer: Any, source: Path, key: str) -> None:
    """Load the weights of a transformer that is trained already, and freeze it.

    Args:
        transformer: a `FluxTransformer2DModel` without an adapter, changed in place.
        source: where its weights are (`read_transformer`).
        key: configuration key that names the source, for messages.

    Raises:
        TrainingError: there is no transformer, or one of another size.
    """
    weights = read_transformer(source, key)
    if problems := key_differences(transformer.state_dict(), weights):
        raise TrainingError(
            f"{key}: the transformer of {source} has another size than decoders.flow.scratch, or other latents: "
            f"{'; '.join(problems)}"
        )
    transformer.load_state_dict(weights, strict=True)
    transformer.requires_grad_(False).eval()


def read_transformer(source: Path, key: str) -> Mapping[str, torch.Tensor]:
    """The weights of a small transformer by their names in the model, without an adapter.

    Args:
        source: directory of a `FluxTransformer2DModel` of diffusers, or a run of the flow decoder or its export.
        key: see `load_frozen`.

    Raises:
        TrainingError: there is none, or it cannot be read.
    """
    if (source / WEIGHTS_FILE).is_file():
        return _read(source / WEIGHTS_FILE, key)
    from training.export import read_trained

    try:
        trained = read_trained(source)
    except TrainingError as error:
        raise TrainingError(
            f"{key}: {source} holds no transformer: neither {WEIGHTS_FILE}, nor a run or an export of the flow "
            f"decoder ({error})"
        ) from error
    weights = {
        name: weight
        for name, weight in trained.of("decoders.flow.transformer.").items()
        if name_in_file(name) is None
    }
    if weights:
        return weights
    flow = trained.facts.flow
    if flow is None or flow.scratch is None:
        raise TrainingError(
            f"{key}: {source} has no flow decoder with a transformer of its own. Pass the output of a run with "
            "decoders.flow.scratch, its export, or the directory of a FluxTransformer2DModel"
        )
    return read_transformer(Path(str(flow.scratch.transformer)), key)


def _read(path: Path, key: str) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights: dict[str, torch.Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"{key}: {path} cannot be read: {error}. Write it again") from error
    return weights
