"""FLUX as diffusers keeps it: a folder with one folder a part, local or fetched from the hub, read and checked.

    model_index.json    transformer/    vae/    scheduler/    text_encoder/  tokenizer/  (CLIP)
                                                              text_encoder_2/  tokenizer_2/  (T5)

diffusers fills in what a file does not hold with random numbers and a warning; here it is refused. So are parts
that do not belong together, before any weights are read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.config import Flow
from training.errors import TrainingError, out_of_memory
from training.models.clip_weights import NAMED_KEYS
from training.models.hub import asking_the_hub
from training.models.pretrained import HUB_NAME

PARTS = {
    "transformer": "FluxTransformer2DModel",
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModel",
    "text_encoder_2": "T5EncoderModel",
}
"""Parts with weights, and the classes that they must be of."""
SIZES_OF = {
    "transformer": ("joint_attention_dim", "pooled_projection_dim", "in_channels"),
    "vae": ("latent_channels",),
    "text_encoder": ("hidden_size",),
    "text_encoder_2": ("d_model",),
}
"""What must be the same in several parts."""
DESCRIPTION = ["*.json", "*.txt", "*.model"]
WEIGHTS = [f"{part}/*.safetensors*" for part in PARTS]
"""What is fetched of a repository; the same weights in other formats are left there."""


@dataclass(frozen=True)
class FluxFolder:
    """A folder of FLUX whose parts are there and fit together."""

    path: Path
    configs: dict[str, dict[str, Any]]
    """`config.json` of each part with weights."""

    def load(self, part: str, kind: Any, dtype: torch.dtype) -> Any:
        """A part with its weights, for use without training: frozen, and as it is in evaluation.

        Args:
            part: such as `transformer`.
            kind: a class of diffusers or transformers with `from_pretrained`.
            dtype: of the weights in memory.

        Raises:
            TrainingError: its weights are missing, damaged, or not those that its configuration speaks of.
        """
        return load_part(self.path / part, kind, dtype)

    def load_tokenizer(self, part: str, kind: Any) -> Any:
        """A tokenizer.

        Raises:
            TrainingError: its files are missing or damaged.
        """
        with in_words(self.path / part):
            return kind.from_pretrained(self.path, subfolder=part, local_files_only=True)


def load_part(path: Path, kind: Any, dtype: torch.dtype) -> Any:
    """As `FluxFolder.load`, from the folder of the part itself."""
    _without_progress()
    with in_words(path):
        model, report = kind.from_pretrained(
            path, dtype=dtype, output_loading_info=True, local_files_only=True, use_safetensors=True
        )
    problems = [
        f"{what}: {_first(sorted(map(str, report[name])))}"
        for name, what in (
            ("missing_keys", "missing"),
            ("mismatched_keys", "of another shape"),
            ("error_msgs", "unreadable"),
        )
        if report.get(name)
    ]
    if problems:
        raise TrainingError(
            f"{path} does not hold the weights that its config.json speaks of: {'; '.join(problems)}. Fetch this "
            "part again"
        )
    return model.requires_grad_(False).eval()


def open_flux(flow: Flow, *, weights: bool = True) -> FluxFolder:
    """The folder that a configuration names; fetched first when it lies on the hub.

    Args:
        flow: the configuration.
        weights: fetch them too; without, only what describes FLUX.

    Raises:
        TrainingError: there is none, a part is missing, or parts do not fit together.
    """
    path = Path(str(flow.base))
    if not path.is_dir():
        path = _fetch(str(flow.base), flow.revision, DESCRIPTION + (WEIGHTS if weights else []))
    folder = FluxFolder(path, {part: _part_config(path, part) for part in PARTS})
    for part in ("scheduler/scheduler_config.json", "tokenizer", "tokenizer_2"):
        if not (path / part).exists():
            raise TrainingError(
                f"flow.base: {path} has no {part}, which FLUX is made of; fetch the whole folder"
            )
    _check_that_parts_fit(folder)
    return folder


def read_vae_config(path: Path) -> dict[str, Any]:
    """What `flow.scratch.vae` names.

    Raises:
        TrainingError: it is no folder of an `AutoencoderKL`.
    """
    setting = "flow.scratch.vae"
    if not (path / "config.json").is_file():
        hint = f". Did you mean {path / 'vae'}?" if (path / "vae" / "config.json").is_file() else ""
        raise TrainingError(
            f"{setting}: {path} has no config.json; expected the folder of an AutoencoderKL as diffusers keeps it"
            f"{hint}"
        )
    return _config(path / "config.json", "vae", setting)


def _part_config(path: Path, part: str) -> dict[str, Any]:
    file = path / part / "config.json"
    if not file.is_file():
        raise TrainingError(
            f"flow.base: {path} has no {part}/config.json; expected a folder of FLUX as diffusers keeps it, with "
            f"the parts {', '.join(PARTS)}, scheduler, tokenizer and tokenizer_2"
        )
    return _config(file, part, "flow.base")


def _config(file: Path, part: str, setting: str) -> dict[str, Any]:
    try:
        config: Any = json.loads(file.read_bytes())
    except ValueError as error:
        raise TrainingError(f"{setting}: {file} is no valid JSON: {error}; fetch it again") from error
    if not isinstance(config, dict):
        raise TrainingError(f"{setting}: {file} describes no network; fetch it again")
    found = config.get("_class_name") or "".join(config.get("architectures") or ["unknown"])
    if found != PARTS[part]:
        raise TrainingError(
            f"{setting}: {file} is of class {found}, expected {PARTS[part]}: this is something else, or parts are "
            "mixed up"
        )
    if "quantization_config" in config:
        raise TrainingError(
            f"{setting}: {file} describes quantised weights (quantization_config); give them as they were before, "
            "such as FLUX in bfloat16"
        )
    if missing := [key for key in SIZES_OF[part] if not isinstance(config.get(key), int)]:
        raise TrainingError(f"{setting}: {file} does not say {', '.join(missing)}; fetch it again")
    return config


def _check_that_parts_fit(folder: FluxFolder) -> None:
    transformer, vae = folder.configs["transformer"], folder.configs["vae"]
    clip, t5 = folder.configs["text_encoder"], folder.configs["text_encoder_2"]
    for what, wanted, who, found in (
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
        if wanted != found:
            raise TrainingError(
                f"flow.base: the parts of {folder.path} do not belong together: transformer's {what} is {wanted}, "
                f"{who} is {found}. Fetch the whole folder from one place"
            )


def _fetch(name: str, revision: str | None, files: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if not HUB_NAME.fullmatch(name):
        raise TrainingError(
            f"flow.base: there is no folder {name}; give the folder of FLUX, or owner/name on the hub"
        )
    if revision is None:
        raise TrainingError(
            f"flow.base: there is no folder {name}. To fetch it from the hub, set flow.revision to the commit of "
            "the repository that is meant (40 hexadecimal digits)"
        )
    with asking_the_hub(
        lambda reason: (
            f"flow.base: {name} cannot be fetched from the hub ({reason}). Run it again, or on a machine without "
            f"internet, fetch it elsewhere (`hf download {name} --revision {revision} --local-dir FOLDER`, after "
            f"accepting its license on https://huggingface.co/{name}) and give the folder"
        )
    ):
        try:
            return Path(snapshot_download(name, revision=revision, allow_patterns=files))
        except GatedRepoError as error:
            raise TrainingError(
                f"flow.base: {name} is gated. Log in on https://huggingface.co/{name}, accept its license there, "
                "and then run `hf auth login` on this machine or set HF_TOKEN to a token that may read gated "
                "repositories"
            ) from error
        except RevisionNotFoundError as error:
            raise TrainingError(f"flow.revision: {name} has no commit {revision}") from error
        except RepositoryNotFoundError as error:
            raise TrainingError(
                f"flow.base: the hub has no {name}, or shows it only to those who are logged in (`hf auth login`)"
            ) from error


def _without_progress() -> None:
    """Every process of a run would draw the same bars."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    of_diffusers.disable_progress_bar()
    of_transformers.disable_progress_bar()


class in_words:  # noqa: N801 - reads as a statement
    """Whatever a library raises on damaged or missing files, said of the part it was about."""

    def __init__(self, part: Path) -> None:
        self._part = part

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception) or out_of_memory(error):
            return
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise TrainingError(f"{self._part} cannot be loaded: {lines[0]}. Fetch this part again") from error


def _first(names: list[str]) -> str:
    more = f" and {len(names) - NAMED_KEYS} more" if len(names) > NAMED_KEYS else ""
    return ", ".join(names[:NAMED_KEYS]) + more
