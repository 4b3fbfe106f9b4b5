"""CLIP's pretrained weights, from the hub or a file that the configuration names, or none.

A file holds an open_clip model or only its vision tower, as safetensors or as `torch.save` writes it. A file that
does not hold exactly the tower is an error that names the first keys. The weights do not record the activation
function of the tower; it must be GELU.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from settings.section import ConfigError
from training.errors import TrainingError
from training.models.clip import ClipTower
from training.models.hub import hub_errors
from training.models.sizes import SIZES, ModelSize

HUB_SIZE = SIZES["paper"]
"""The size of the hub's weights."""
HUB_REPOSITORY = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
HUB_FILE = "open_clip_model.safetensors"
HUB_REVISION = "1c2b8495b28150b8a4922ee1c8edee224c284c0c"
HUB_SHA256 = "0084e75319a50ad85ef45377bad5bc38f2f58824459eb690048d51c9f8863be5"
"""Several independent public projects pin this revision and digest."""

TOWER_PREFIX = "visual."
NOT_USED = ("proj",)
"""Keys of the file that `ClipTower` does not have: the projection of the class token."""
NAMED_KEYS = 5
OPEN_CLIP_CONFIG = "open_clip_config.json"
"""The configuration next to the weights in open_clip's repositories."""


def load_clip(clip: str, size_name: str, sha256: str | None = None) -> dict[str, torch.Tensor] | None:
    """The weights of a tower; None for random ones.

    Args:
        clip: `random`, `hub` or a file (`representation.clip`).
        size_name: of the tower (`representation.size`).
        sha256: expected digest of the file (`representation.clip_sha256`); None checks that of the hub only.

    Raises:
        ConfigError: the hub's weights do not fit the size.
        TrainingError: the file is missing or has another digest, or the hub cannot be reached.
        OutOfSpace: the hub's file does not fit on the disk.
    """
    size = SIZES[size_name]
    if clip == "random":
        return None
    if clip == "hub":
        if size != HUB_SIZE:
            raise ConfigError(
                f"representation.clip: the hub's weights are of ViT-H-14, not of size {size_name}. "
                "Set representation.clip to random or to a file, or representation.size to paper"
            )
        return read_tower(_download(), size, sha256 or HUB_SHA256)
    return read_tower(Path(clip), size, sha256)


def read_tower(path: Path, size: ModelSize, sha256: str | None = None) -> dict[str, torch.Tensor]:
    """The tower's weights from a file.

    Args:
        path: a `.safetensors` file; any other name is read as a file of `torch.save`, of which only tensors are
            read.
        size: expected size of the tower.
        sha256: expected digest of the file; not checked when None.

    Raises:
        TrainingError: missing, of another digest, unreadable, not this tower's weights, or of a model with another
            activation function, by the model's configuration in the same directory.
    """
    if not path.is_file():
        raise TrainingError(
            f"representation.clip: there is no file {path}. Give a file of open_clip weights, `hub` to "
            f"download {HUB_REPOSITORY}, or `random` to train without pretrained weights"
        )
    _check_activation(path)
    if sha256 is not None:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            raise TrainingError(
                f"representation.clip: {path} has sha256 {found}, expected {sha256}: it is another file, "
                "or damaged. Download it again, or correct representation.clip_sha256"
            )
    try:
        tower = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    except Exception as error:  # both libraries raise nearly anything on damaged files
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TrainingError(f"representation.clip: {path} cannot be read as weights: {reason}") from error
    return _checked(tower, size, path)


def _check_activation(path: Path) -> None:
    try:
        config = json.loads(path.with_name(OPEN_CLIP_CONFIG).read_bytes())
        quick = config["model_cfg"].get("quick_gelu", False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return  # unknown activation function
    if quick:
        raise TrainingError(
            f"representation.clip: {path} was trained with QuickGELU ({OPEN_CLIP_CONFIG} in the same "
            "directory); this tower computes GELU, so its tokens would differ. Use weights with GELU, such as "
            f"those of {HUB_REPOSITORY}"
        )


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import safe_open

    # Only the vision tower: the text tower is a third of the file, and each rank of a machine reads the file.
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(name) for name, key in _tower_names(file.keys()).items()}


def _read_torch(path: Path) -> dict[str, torch.Tensor]:
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]  # a checkpoint of open_clip's own trainer
    if not isinstance(loaded, dict):
        raise TypeError(f"it holds a {type(loaded).__name__}, expected a dict of tensors")
    tensors = {name: value for name, value in loaded.items() if isinstance(value, torch.Tensor)}
    return {key: tensors[name] for name, key in _tower_names(tensors).items()}


def _tower_names(names: Iterable[str]) -> dict[str, str]:
    """Map the names of the tower's tensors in a file to the tower's keys."""
    # DDP prefixes every name with `module.`, and open_clip's checkpoints keep the prefix.
    plain = {name: name.removeprefix("module.") for name in names}
    whole = any(key.startswith(TOWER_PREFIX) for key in plain.values())
    prefix = TOWER_PREFIX if whole else ""
    inner = {name: key.removeprefix(prefix) for name, key in plain.items() if key.startswith(prefix)}
    return {name: key for name, key in inner.items() if key not in NOT_USED}


def _checked(tower: dict[str, torch.Tensor], size: ModelSize, path: Path) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        expected = ClipTower(size).visual.state_dict()
    differences = key_differences(expected, tower)
    if differences:
        raise TrainingError(
            f"representation.clip: {path} does not hold the vision tower of this size: {'; '.join(differences)}"
        )
    return tower


def key_differences(expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> list[str]:
    """Differences in keys and shapes between two state dicts, of which the first few are named."""
    missing = [key for key in expected if key not in found]
    unknown = [key for key in found if key not in expected]
    misfits = [
        f"{key} is {tuple(found[key].shape)}, expected {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in found and found[key].shape != tensor.shape
    ]
    kinds = (("missing", missing), ("unknown", unknown), ("of another shape", misfits))
    return [f"{what}: {first_names(keys)}" for what, keys in kinds if keys]


def first_names(names: list[str]) -> str:
    """The first few of many names, and how many more there are, for messages."""
    more = f" and {len(names) - NAMED_KEYS} more" if len(names) > NAMED_KEYS else ""
    return ", ".join(names[:NAMED_KEYS]) + more


def _download() -> Path:
    from huggingface_hub import hf_hub_download

    with hub_errors(
        lambda reason: (
            f"representation.clip: {HUB_FILE} of {HUB_REPOSITORY} cannot be fetched from the hub "
            f"({reason}). Run the command again; on a machine without internet, copy the file there and set "
            f"representation.clip=/path/to/file (its sha256 is {HUB_SHA256}). A dry run can use "
            "representation.clip=random"
        )
    ):
        return Path(hf_hub_download(HUB_REPOSITORY, HUB_FILE, revision=HUB_REVISION))
