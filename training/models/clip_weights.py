"""CLIP's pretrained weights, from where the configuration says: the hub, a file, or none at all.

A file holds an open_clip model or its vision tower alone, as safetensors or as what `torch.save` writes. It is
refused as a whole, and the first keys named, if it does not hold exactly the tower. Which activation function the
tower was trained with stands in no weight: it must be GELU.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from settings.section import ConfigError
from training.config import Model
from training.errors import TrainingError
from training.models.clip import ClipTower
from training.models.hub import asking_the_hub
from training.models.sizes import SIZES, ModelSize

HUB_SIZE = SIZES["paper"]
"""What the hub's weights fit."""
HUB_REPOSITORY = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
HUB_FILE = "open_clip_model.safetensors"
HUB_REVISION = "1c2b8495b28150b8a4922ee1c8edee224c284c0c"
HUB_SHA256 = "0084e75319a50ad85ef45377bad5bc38f2f58824459eb690048d51c9f8863be5"
"""Revision and digest are those that several independent public projects pin for this file."""

TOWER_PREFIX = "visual."
NOT_USED = ("proj",)
"""What the tower's file has and `ClipTower` does not: the projection of the class token."""
NAMED_KEYS = 5
OPEN_CLIP_CONFIG = "open_clip_config.json"
"""What open_clip's repositories hold beside the weights."""


def load_clip(model: Model) -> dict[str, torch.Tensor] | None:
    """The weights of the tower that a configuration names; None when it asks for random ones.

    Raises:
        ConfigError: the hub's weights do not fit the size.
        TrainingError: there is no such file, it is another one than expected, or the hub cannot be reached.
        OutOfSpace: the hub's file does not fit on the disk.
    """
    size = SIZES[model.size]
    if model.clip == "random":
        return None
    if model.clip == "hub":
        if size != HUB_SIZE:
            raise ConfigError(
                f"model.clip: hub holds weights of ViT-H-14, which size {model.size} is not; "
                "set model.clip to random or to a file, or model.size to paper"
            )
        return read_tower(_download(), size, model.clip_sha256 or HUB_SHA256)
    return read_tower(Path(model.clip), size, model.clip_sha256)


def read_tower(path: Path, size: ModelSize, sha256: str | None = None) -> dict[str, torch.Tensor]:
    """The tower's weights from a file.

    Args:
        path: `.safetensors`, or anything else for what `torch.save` wrote; nothing but tensors is read from it.
        size: what the weights must fit.
        sha256: what the file must hash to, when given.

    Raises:
        TrainingError: missing, of another digest, unreadable, not this tower's weights, or of a model with another
            activation function, where the model's configuration lies beside the file.
    """
    if not path.is_file():
        raise TrainingError(
            f"model.clip: there is no file {path}; give a file of open_clip weights, or `hub` to fetch "
            f"{HUB_REPOSITORY}, or `random` to train without them"
        )
    _refuse_quick_gelu(path)
    if sha256 is not None:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            raise TrainingError(
                f"model.clip: {path} has sha256 {found}, expected {sha256}: it is another file or a damaged one. "
                "Fetch it again, or correct model.clip_sha256"
            )
    try:
        tower = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    except Exception as error:  # both libraries raise nearly anything on damaged files
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TrainingError(f"model.clip: {path} cannot be read as weights: {reason}") from error
    return _checked(tower, size, path)


def _refuse_quick_gelu(path: Path) -> None:
    try:
        config = json.loads(path.with_name(OPEN_CLIP_CONFIG).read_bytes())
        quick = config["model_cfg"].get("quick_gelu", False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return  # nothing is known
    if quick:
        raise TrainingError(
            f"model.clip: {path} was trained with QuickGELU, says {OPEN_CLIP_CONFIG} beside it; this tower "
            f"computes GELU, and would give other tokens than are meant. Take weights such as {HUB_REPOSITORY}'s"
        )


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import safe_open

    # Only what is used: the text tower is a third of the file, and every process on a machine reads it.
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(name) for name, key in _tower_names(file.keys()).items()}


def _read_torch(path: Path) -> dict[str, torch.Tensor]:
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]  # a checkpoint of open_clip's own trainer
    if not isinstance(loaded, dict):
        raise TypeError(f"it holds a {type(loaded).__name__}, expected a table of tensors")
    tensors = {name: value for name, value in loaded.items() if isinstance(value, torch.Tensor)}
    return {key: tensors[name] for name, key in _tower_names(tensors).items()}


def _tower_names(names: Iterable[str]) -> dict[str, str]:
    """The names in a file that belong to the tower, and what the tower calls them."""
    # DDP puts `module.` in front of every name, and open_clip's checkpoints keep it.
    plain = {name: name.removeprefix("module.") for name in names}
    whole = any(key.startswith(TOWER_PREFIX) for key in plain.values())
    prefix = TOWER_PREFIX if whole else ""
    inner = {name: key.removeprefix(prefix) for name, key in plain.items() if key.startswith(prefix)}
    return {name: key for name, key in inner.items() if key not in NOT_USED}


def _checked(tower: dict[str, torch.Tensor], size: ModelSize, path: Path) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        expected = ClipTower(size).visual.state_dict()
    problems = key_problems(expected, tower)
    if problems:
        raise TrainingError(
            f"model.clip: {path} does not hold the vision tower of this size: {'; '.join(problems)}"
        )
    return tower


def key_problems(expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> list[str]:
    """What keeps `found` from being loaded in place of `expected`: keys and shapes, the first few by name."""
    missing = [key for key in expected if key not in found]
    unknown = [key for key in found if key not in expected]
    misfits = [
        f"{key} is {tuple(found[key].shape)}, expected {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in found and found[key].shape != tensor.shape
    ]
    kinds = (("missing", missing), ("unknown", unknown), ("of another shape", misfits))
    return [f"{what}: {_first(keys)}" for what, keys in kinds if keys]


def _first(keys: list[str]) -> str:
    more = f" and {len(keys) - NAMED_KEYS} more" if len(keys) > NAMED_KEYS else ""
    return ", ".join(keys[:NAMED_KEYS]) + more


def _download() -> Path:
    from huggingface_hub import hf_hub_download

    with asking_the_hub(
        lambda reason: (
            f"model.clip: {HUB_FILE} of {HUB_REPOSITORY} cannot be fetched from the hub ({reason}). Run it "
            "again; on a machine without internet, copy the file there and set model.clip=/path/to/file (its "
            f"sha256 is {HUB_SHA256}). For a dry run, model.clip=random does as well"
        )
    ):
        return Path(hf_hub_download(HUB_REPOSITORY, HUB_FILE, revision=HUB_REVISION))
