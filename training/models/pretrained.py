"""An encoder as files: `model.safetensors` with its weights and `config.json` with the numbers of its size.

    {"format_version": "1.0", "kind": "omniid-encoder", "size": {"side": 224, "patch": 14, …}}

The size stands there in full, so an encoder can be read whatever the names of sizes come to mean. `config.json` is
written last and removed first: a folder without it holds no encoder. A reader refuses a newer major version.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from shards.atomic import remove_file, write_bytes
from training.errors import TrainingError
from training.models.clip_weights import key_problems
from training.models.hub import asking_the_hub
from training.models.sizes import ModelSize

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
KIND = "omniid-encoder"
FORMAT_VERSION = "1.0"
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def write_encoder(
    folder: Path,
    size: ModelSize,
    expected: Mapping[str, torch.Tensor],
    weights: Mapping[str, torch.Tensor],
) -> None:
    """Write an encoder.

    Args:
        folder: made when missing.
        size: of the encoder.
        expected: its state, to compare names and shapes with.
        weights: what to write, from any device.

    Raises:
        ValueError: the weights are not those of such an encoder.
        OutOfSpace: the disk or the quota is full.
    """
    from safetensors.torch import save

    if problems := key_problems(expected, weights):
        raise ValueError(f"these are not the weights of such an encoder: {'; '.join(problems)}")
    remove_file(folder / CONFIG)
    tensors = {key: weights[key].detach().cpu().contiguous() for key in expected}
    write_bytes(folder / WEIGHTS, save(tensors, {"format": "pt"}))
    config = {"format_version": FORMAT_VERSION, "kind": KIND, "size": size.model_dump(mode="json")}
    write_bytes(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())


def encoder_folder(name: Path | str, revision: str | None = None) -> Path:
    """The folder that holds an encoder; fetched first when it lies on the hub.

    Args:
        name: a folder, or owner/name of a repository of the hub.
        revision: commit, tag or branch of the repository; the newest commit of its main branch when None.

    Raises:
        TrainingError: there is no such folder, the hub has no such encoder or cannot be reached, or a folder is to
            have a revision.
        OutOfSpace: the hub's files do not fit on the disk.
    """
    folder = Path(name)
    if folder.is_dir():
        if revision is not None:
            raise TrainingError(
                f"{name} is a folder, which has no revision {revision}: leave one of the two out"
            )
        return folder
    if isinstance(name, Path) or not HUB_NAME.fullmatch(name):
        raise TrainingError(
            f"there is no folder {name}: give one that save_pretrained wrote, or owner/name of the hub"
        )
    from huggingface_hub import snapshot_download

    at = f" at revision {revision}" if revision else ""
    with asking_the_hub(
        lambda reason: (
            f"there is no folder {name}, and the hub gives no encoder of that name{at} ({reason}): check the "
            "name and, for a private repository, that you are logged in"
        )
    ):
        return Path(snapshot_download(name, revision=revision, allow_patterns=[CONFIG, WEIGHTS]))


def read_size(folder: Path) -> ModelSize:
    """The size of the encoder in a folder.

    Raises:
        TrainingError: there is none, or one that this code cannot read.
    """
    path = folder / CONFIG
    try:
        config: Any = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise TrainingError(f"{folder} holds no finished encoder: it has no {CONFIG}") from error
    except ValueError as error:
        raise TrainingError(f"{path} is no valid JSON: {error}; export the encoder again") from error
    if not isinstance(config, dict) or config.get("kind") != KIND:
        raise TrainingError(f"{path} is not that of an Omni-ID encoder: it does not say kind {KIND!r}")
    version = str(config.get("format_version"))
    if version.partition(".")[0] != FORMAT_VERSION.partition(".")[0]:
        raise TrainingError(
            f"{folder} is an encoder of format {version}, this code reads {FORMAT_VERSION}: use a version of "
            "omniid that is as new as the one that wrote it"
        )
    try:
        return ModelSize.model_validate(config.get("size"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(["size", *map(str, first["loc"])])
        raise TrainingError(f"{path}: {where}: {first['msg']}; export the encoder again") from error


def read_weights(folder: Path, expected: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of the encoder in a folder.

    Args:
        folder: see `encoder_folder`.
        expected: names and shapes; may lie on the meta device.

    Raises:
        TrainingError: missing, damaged, or not these weights.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / WEIGHTS
    try:
        weights: dict[str, torch.Tensor] = load_file(path)
    except FileNotFoundError as error:
        raise TrainingError(f"{folder} holds no finished encoder: it has no {WEIGHTS}") from error
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"{path} cannot be read: {error}; copy or export it again") from error
    if problems := key_problems(expected, weights):
        raise TrainingError(f"{path} does not fit {CONFIG} beside it: {'; '.join(problems)}")
    return weights
