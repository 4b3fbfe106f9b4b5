"""A representation as files: `model.safetensors` with its weights and `config.json` with what else it needs.

    {"format_version": "1.3", "kind": "omniid-encoder", "size": {"side": 224, "patch": 14, …}, "crop_scale": 1.6}

The size is there in full, so a representation can be read whatever the names of sizes come to mean. `crop_scale`
says how the images of its training were cut (`faces.crop`); it is null where their dataset does not say it, and
missing before version 1.1. `class_token` is there where it is true, and then the version is 2.0. Other kinds
have `combine`, `fixed_inputs` (from version 1.2), `recogniser` and `recogniser_sha256`; `arcface` has a size from
version 1.3 on, and those of earlier versions are not read, nor `arcface_clip` of sizes that have other than 256
queries: train them again. `config.json` is written last and removed first: a directory without it holds no
representation. A reader rejects a newer major version.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, ValidationError, model_validator

from settings.section import Section
from shards.atomic import remove_file, write_bytes
from training.errors import TrainingError
from training.models.clip_weights import key_differences
from training.models.hub import hub_errors
from training.models.sizes import ModelSize

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
KIND = "omniid-encoder"
PARTS = {
    KIND: (),
    "clip": ("combine",),
    "arcface": ("combine", "recogniser", "recogniser_sha256"),
    "arcface_clip": ("recogniser", "recogniser_sha256"),
}
"""The fields of `config.json` that each kind of representation has, beside its size."""
FORMAT_VERSION = "1.3"
VERSION_WITH_CLASS = "2.0"
"""Of an encoder that reads class tokens: older readers would ignore the field, and give other tokens."""
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class EncoderConfig(Section):
    """What `config.json` says of a representation."""

    kind: str = KIND
    size: ModelSize
    """Of its CLIP tower and its blocks, where it has them, and how many tokens it makes of an embedding."""
    class_token: bool | None = None
    """Whether an Omni-ID encoder reads the class token of each image beside its patch tokens."""
    combine: Literal["concat", "mean"] | None = None
    """Several images, for a kind that encodes one at a time."""
    fixed_inputs: Annotated[int, Field(ge=1)] | None = None
    """Images of a person, for `concat`: as many as in its training. Any number when None."""
    recogniser: str | None = None
    """Its face recognition network, by the name in the weights registry; its file is not copied."""
    recogniser_sha256: str | None = None
    crop_scale: Annotated[float, Field(gt=0)] | None = None
    """Side of the head crops of its training as a multiple of the landmarks' longer side; None: not known."""

    @model_validator(mode="after")
    def _its_kind_has_all_parts(self) -> EncoderConfig:
        missing = [name for name in PARTS[self.kind] if getattr(self, name) is None]
        if missing:
            raise ValueError(f"a representation of kind {self.kind} needs {', '.join(missing)}")
        return self


def write_representation(
    folder: Path,
    config: EncoderConfig,
    expected: Mapping[str, torch.Tensor],
    weights: Mapping[str, torch.Tensor],
) -> None:
    """Write a representation.

    Args:
        folder: made when missing.
        config: of the representation.
        expected: its state, to compare names and shapes with.
        weights: what to write, from any device.

    Raises:
        ValueError: the weights are not those of such an encoder.
        OutOfSpace: the disk or the quota is full.
    """
    from safetensors.torch import save

    if problems := key_differences(expected, weights):
        raise ValueError(f"these are not the weights of such an encoder: {'; '.join(problems)}")
    remove_file(folder / CONFIG)
    tensors = {key: weights[key].detach().cpu().contiguous() for key in expected}
    write_bytes(folder / WEIGHTS, save(tensors, {"format": "pt"}))
    facts = config.model_dump(mode="json")
    unset = {name for name, value in facts.items() if value is None and name != "crop_scale"}
    version = VERSION_WITH_CLASS if config.class_token else FORMAT_VERSION
    written = {"format_version": version} | {
        name: value for name, value in facts.items() if name not in unset
    }
    write_bytes(folder / CONFIG, (json.dumps(written, indent=2) + "\n").encode())


def encoder_folder(name: Path | str, revision: str | None = None) -> Path:
    """The directory that holds a representation; fetched first when it is on the hub.

    Args:
        name: a directory, or owner/name of a repository of the hub.
        revision: commit, tag or branch of the repository; the newest commit of its main branch when None.

    Raises:
        TrainingError: there is no such directory, the hub has no such encoder or cannot be reached, or a revision
            is given for a directory.
        OutOfSpace: the hub's files do not fit on the disk.
    """
    folder = Path(name)
    if folder.is_dir():
        if revision is not None:
            raise TrainingError(
                f"{name} is a directory, which has no revision {revision}. Leave one of the two out"
            )
        return folder
    if isinstance(name, Path) or not HUB_NAME.fullmatch(name):
        raise TrainingError(
            f"there is no directory {name}. Pass one that save_pretrained wrote, or owner/name on the hub"
        )
    from huggingface_hub import snapshot_download

    at = f" at revision {revision}" if revision else ""
    with hub_errors(
        lambda reason: (
            f"there is no directory {name}, and the hub gives no encoder of that name{at} ({reason}). Check the "
            "name and, for a private repository, that you are logged in"
        )
    ):
        return Path(snapshot_download(name, revision=revision, allow_patterns=[CONFIG, WEIGHTS]))


def read_size(folder: Path) -> ModelSize:
    """The size of the Omni-ID encoder in a directory.

    Raises:
        TrainingError: there is none, or one that this code cannot read.
    """
    config = read_config(folder)
    if config.kind != KIND:
        raise TrainingError(
            f"{folder / CONFIG} is not that of an Omni-ID encoder, but of a representation of kind {config.kind}. "
            "Load it with omniid.load_representation"
        )
    return config.size


def read_config(folder: Path) -> EncoderConfig:
    """What `config.json` in a directory says; fields that a newer minor version added are ignored.

    Raises:
        TrainingError: there is none, or one that this code cannot read.
    """
    path = folder / CONFIG
    try:
        config: Any = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise TrainingError(
            f"{folder} holds no finished encoder: it has no {CONFIG}. Give one that `omniid export` wrote"
        ) from error
    except ValueError as error:
        raise TrainingError(f"{path} is no valid JSON: {error}; export the encoder again") from error
    if not isinstance(config, dict) or config.get("kind") not in PARTS:
        raise TrainingError(f"{path} is not that of a representation: its kind is none of {', '.join(PARTS)}")
    version = str(config.get("format_version"))
    if version.partition(".")[0] not in {
        known.partition(".")[0] for known in (FORMAT_VERSION, VERSION_WITH_CLASS)
    }:
        raise TrainingError(
            f"{folder} is an encoder of format {version}, this code reads {VERSION_WITH_CLASS}: use a version of "
            "omniid that is as new as the one that wrote it"
        )
    try:
        return EncoderConfig.model_validate(
            {name: config[name] for name in EncoderConfig.model_fields if name in config}
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ": ".join([str(path), *filter(None, [".".join(map(str, first["loc"]))])])
        raise TrainingError(f"{where}: {first['msg']}; export the encoder again") from error


def read_weights(folder: Path, expected: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of the encoder in a directory.

    Args:
        folder: see `encoder_folder`.
        expected: names and shapes; may be on the meta device.

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
    if problems := key_differences(expected, weights):
        raise TrainingError(f"{path} does not fit {CONFIG} beside it: {'; '.join(problems)}")
    # In a file they begin where its header ends. Where memory is not aligned, products are computed in another
    # order, and the same weights would give other last bits.
    return {name: weight.clone() for name, weight in weights.items()}
