"""Reads and checks FLUX in diffusers' layout, one directory for each component, local or from the hub.

    model_index.json    transformer/    vae/    scheduler/    text_encoder/  tokenizer/  (CLIP)
                                                              text_encoder_2/  tokenizer_2/  (T5)

diffusers initialises missing weights at random, with a warning; here they are an error. Components that do not fit
together are an error before any weights are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.errors import TrainingError, out_of_memory
from training.models.clip_weights import first_names
from training.models.hub import hub_errors
from training.models.pretrained import HUB_NAME

COMPONENTS = {
    "transformer": "FluxTransformer2DModel",
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModel",
    "text_encoder_2": "T5EncoderModel",
}
"""Components with weights, and their classes."""
SIZES_OF = {
    "transformer": ("joint_attention_dim", "pooled_projection_dim", "in_channels"),
    "vae": ("latent_channels",),
    "text_encoder": ("hidden_size",),
    "text_encoder_2": ("d_model",),
}
"""Keys of `config.json` that give the sizes by which components must fit together."""
DESCRIPTION = ["*.json", "*.txt", "*.model"]
WEIGHTS = "{component}/*.safetensors*"
"""Files to download; a repository may hold the same weights in other formats too."""
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
"""Of a component of diffusers that is one file."""
CODEC = "codec"
"""Key of that file's metadata, in a small transformer: name of the codec whose latents it generates."""


@dataclass(frozen=True)
class FluxFolder:
    """A complete directory of FLUX whose components fit together."""

    path: Path
    configs: dict[str, dict[str, Any]]
    """`config.json` of each component with weights."""

    def load(self, component: str, kind: Any, dtype: torch.dtype) -> Any:
        """Load a component: frozen, and in evaluation mode.

        Args:
            component: its name, such as `transformer`.
            kind: a class of diffusers or transformers with `from_pretrained`.
            dtype: dtype of the weights in memory.

        Raises:
            TrainingError: its weights are missing, damaged, or do not match its configuration.
        """
        return load_component(self.path / component, kind, dtype)

    def load_tokenizer(self, component: str, kind: Any) -> Any:
        """Load a tokenizer.

        Raises:
            TrainingError: its files are missing or damaged.
        """
        with load_errors(self.path / component):
            return kind.from_pretrained(self.path, subfolder=component, local_files_only=True)


def load_component(path: Path, kind: Any, dtype: torch.dtype) -> Any:
    """As `FluxFolder.load`, from the directory of the component."""
    _disable_progress_bars()
    with load_errors(path):
        model, report = kind.from_pretrained(
            path, dtype=dtype, output_loading_info=True, local_files_only=True, use_safetensors=True
        )
    differences = [
        f"{what}: {first_names(sorted(map(str, report[name])))}"
        for name, what in (
            ("missing_keys", "missing"),
            ("mismatched_keys", "of another shape"),
            ("error_msgs", "unreadable"),
        )
        if report.get(name)
    ]
    if differences:
        raise TrainingError(
            f"{path} does not hold the weights that its config.json describes: {'; '.join(differences)}. "
            "Download this component again"
        )
    return model.requires_grad_(False).eval()


def read_weights(path: Path, where: str, remedy: str) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file.

    Args:
        path: of the file.
        where: what a message begins with.
        remedy: what it ends with.

    Raises:
        TrainingError: it cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"{where}{path} cannot be read: {error}. {remedy}") from error
    return tensors


def open_flux(base: str, revision: str | None, *, weights: Iterable[str] = tuple(COMPONENTS)) -> FluxFolder:
    """A directory of FLUX; downloaded first when it is a repository on the hub.

    Args:
        base: the directory, or owner/name on the hub (`decoders.flow.base`).
        revision: commit of the hub's repository (`decoders.flow.revision`); None for a directory.
        weights: components whose weights are downloaded too; of the others, only the configuration files.

    Raises:
        TrainingError: the directory or a component is missing, or components do not fit together.
    """
    path = Path(base)
    if not path.is_dir():
        path = _fetch(base, revision, DESCRIPTION + [WEIGHTS.format(component=name) for name in weights])
    folder = FluxFolder(path, {component: _component_config(path, component) for component in COMPONENTS})
    for component in ("scheduler/scheduler_config.json", "tokenizer", "tokenizer_2"):
        if not (path / component).exists():
            raise TrainingError(
                f"decoders.flow.base: {path} has no {component}. Download the whole repository again"
            )
    _check_components_fit(folder)
    return folder


def read_vae_config(path: Path) -> dict[str, Any]:
    """The `config.json` of the autoencoder that `decoders.flow.scratch.vae` names.

    Raises:
        TrainingError: it is not the directory of an `AutoencoderKL`.
    """
    key = "decoders.flow.scratch.vae"
    if not (path / "config.json").is_file():
        hint = f". Did you mean {path / 'vae'}?" if (path / "vae" / "config.json").is_file() else ""
        raise TrainingError(
            f"{key}: {path} has no config.json. Expected the directory of an AutoencoderKL in diffusers' "
            f"layout{hint}"
        )
    return _config(path / "config.json", "vae", key)


def _component_config(path: Path, component: str) -> dict[str, Any]:
    file = path / component / "config.json"
    if not file.is_file():
        raise TrainingError(
            f"decoders.flow.base: {path} has no {component}/config.json. Expected a directory of FLUX in "
            f"diffusers' layout, with the components {', '.join(COMPONENTS)}, scheduler, tokenizer and tokenizer_2"
        )
    return _config(file, component, "decoders.flow.base")


def _config(file: Path, component: str, key: str) -> dict[str, Any]:
    try:
        config: Any = json.loads(file.read_bytes())
    except ValueError as error:
        raise TrainingError(f"{key}: {file} is not valid JSON: {error}. Download it again") from error
    if not isinstance(config, dict):
        raise TrainingError(f"{key}: {file} does not describe a network. Download it again")
    found = config.get("_class_name") or "".join(config.get("architectures") or ["unknown"])
    if found != COMPONENTS[component]:
        raise TrainingError(
            f"{key}: {file} is of class {found}, expected {COMPONENTS[component]}. Check the path"
        )
    if "quantization_config" in config:
        raise TrainingError(
            f"{key}: {file} describes quantised weights (quantization_config). Use weights that are "
            "not quantised, such as FLUX in bfloat16"
        )
    if missing := [name for name in SIZES_OF[component] if not isinstance(config.get(name), int)]:
        raise TrainingError(f"{key}: {file} has no {', '.join(missing)}. Download it again")
    return config


def _check_components_fit(folder: FluxFolder) -> None:
    transformer, vae = folder.configs["transformer"], folder.configs["vae"]
    clip, t5 = folder.configs["text_encoder"], folder.configs["text_encoder_2"]
    for what, expected, source, found in (
        (
            "joint_attention_dim",
            transformer["joint_attention_dim"],
            "text_encoder_2's d_model",
            t5["d_model"],
        ),
        (
            "pooled_projection_dim",
            transformer["pooled_projection_dim"],
            "text_encoder's hidden_size",
            clip["hidden_size"],
        ),
        ("in_channels", transformer["in_channels"], "4 x vae's latent_channels", 4 * vae["latent_channels"]),
    ):
        if expected != found:
            raise TrainingError(
                f"decoders.flow.base: the components of {folder.path} do not fit together: transformer's "
                f"{what} is {expected}, {source} is {found}. Download the whole repository again"
            )


def _fetch(name: str, revision: str | None, files: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if not HUB_NAME.fullmatch(name):
        raise TrainingError(
            f"decoders.flow.base: there is no directory {name}. Give the directory of FLUX, or owner/name on "
            "the hub"
        )
    if revision is None:
        raise TrainingError(
            f"decoders.flow.base: there is no directory {name}. To download it from the hub, set "
            "decoders.flow.revision to a commit of the repository (40 hexadecimal digits)"
        )
    with hub_errors(
        lambda reason: (
            f"decoders.flow.base: {name} cannot be fetched from the hub ({reason}). Run the command again. "
            "On a machine without internet, download it elsewhere, after accepting its license on "
            f"https://huggingface.co/{name} (`hf download {name} --revision {revision} --local-dir DIR`), and "
            "give the directory"
        )
    ):
        try:
            return Path(snapshot_download(name, revision=revision, allow_patterns=files))
        except GatedRepoError as error:
            raise TrainingError(
                f"decoders.flow.base: {name} is gated. Log in on https://huggingface.co/{name}, accept its "
                "license there, and then run `hf auth login` on this machine or set HF_TOKEN to a token that may "
                "read gated repositories"
            ) from error
        except RevisionNotFoundError as error:
            raise TrainingError(f"decoders.flow.revision: {name} has no commit {revision}") from error
        except RepositoryNotFoundError as error:
            raise TrainingError(
                f"decoders.flow.base: the hub has no {name}, or it is private. Check the name, or log in "
                "(`hf auth login`)"
            ) from error


def _disable_progress_bars() -> None:
    """Disable progress bars, which every rank would print."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


class load_errors:  # noqa: N801 - reads as a statement
    """Turn errors of a library on damaged or missing files into a `TrainingError` that names the component."""

    def __init__(self, component: Path) -> None:
        self._component = component

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception) or out_of_memory(error):
            return
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise TrainingError(
            f"{self._component} cannot be loaded: {lines[0]}. Download this component again"
        ) from error
