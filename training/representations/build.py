"""From a configuration, or an exported directory, to a representation with its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from faces.registry import WeightsFile
from settings.section import ConfigError
from training.errors import TrainingError
from training.models.pretrained import (
    CONFIG,
    HUB_NAME,
    KIND,
    EncoderConfig,
    encoder_folder,
    read_config,
    read_weights,
)
from training.models.sizes import SIZES, ModelSize
from training.representations.arcface import ArcFaceClipRepresentation, ArcFaceRepresentation
from training.representations.clip import ClipRepresentation
from training.representations.combine import Combine
from training.representations.config import RepresentationConfig
from training.representations.module import RepresentationModule
from training.representations.omniid import OmniIDEncoder
from training.representations.recogniser import FaceRecogniser, find_recogniser, load_recogniser

ReadClip = Callable[[], Mapping[str, torch.Tensor] | None]


def build_representation(config: RepresentationConfig, read_clip: ReadClip, inputs: int) -> Any:
    """The `Representation` of a configuration; what no file holds comes from torch's generator.

    Args:
        config: names it and its weights.
        read_clip: reads CLIP's weights (`training.models.clip_weights.load_clip`).
        inputs: images of an identity at most (`data.inputs`).

    Raises:
        ConfigError: CLIP's weights do not fit the size, or the recognition network's file is missing.
        TrainingError: weights are missing, damaged or of another size.
    """
    check_weights(config)
    trained = _trained_weights(config) if config.weights else None
    clip = None if trained or config.kind == "arcface" else read_clip()
    representation = _made(config, inputs)
    if trained is not None:
        representation.load_state_dict(trained, strict=True)
        representation.crop_scale = read_config(
            encoder_folder(str(config.weights), config.revision)
        ).crop_scale
    elif clip is not None:
        representation.clip.visual.load_state_dict(clip, strict=True)
    return _frozen_as_configured(representation, config)


def meta_representation(config: RepresentationConfig, inputs: int) -> Any:
    """The same without weights, for use on the meta device.

    Args:
        config: names it.
        inputs: images of an identity at most (`data.inputs`).

    Raises:
        TrainingError: the weights that the configuration names cannot be used.
    """
    check_weights(config)
    return _frozen_as_configured(_made(config, inputs), config)


def load_representation(
    name: Path | str, models_dir: Path | str | None = None, revision: str | None = None
) -> RepresentationModule:
    """The representation that `save_pretrained` wrote, of any kind, with its weights.

    Args:
        name: its directory, or owner/name on the Hugging Face hub.
        models_dir: directory with the file of its recognition network, if it has one; None for wheels alone.
        revision: of the hub's repository; the newest commit when None.

    Raises:
        ConfigError: the recognition network's file is missing or another one.
        TrainingError: there is no representation, or it is damaged.
    """
    folder = encoder_folder(name, revision)
    config = read_config(folder)
    if config.kind == KIND:
        return OmniIDEncoder.from_pretrained(folder)
    found = check_recogniser(folder, config, models_dir)
    recogniser = load_recogniser(found, f"{folder / CONFIG}: recogniser") if found else None
    # On the meta device: initial weights that are replaced at once would take longer than the file.
    with torch.device("meta"):
        representation: RepresentationModule = _of_kind(
            config.kind, config.size, recogniser, config.combine, config.fixed_inputs
        )
    representation.load_state_dict(
        read_weights(folder, representation.state_dict()), strict=True, assign=True
    )
    if config.kind != "arcface":  # the one without a tower
        representation.clip.reset_constants()
    representation.crop_scale = config.crop_scale
    return representation


def kind_of(config: EncoderConfig) -> str:
    """`representation.kind` of a representation as files."""
    return "omniid" if config.kind == KIND else config.kind


def check_recogniser(
    folder: Path, config: EncoderConfig, models_dir: Path | str | None
) -> WeightsFile | None:
    """The file of the recognition network that a representation was trained on; None when it has none.

    Args:
        folder: of the representation.
        config: what its config.json says.
        models_dir: see `load_representation`.

    Raises:
        ConfigError: the file is missing or another one.
    """
    if config.recogniser is None:
        return None
    path, where = folder / CONFIG, None if models_dir is None else Path(models_dir)
    try:
        found = find_recogniser(config.recogniser, where, f"{path}: recogniser")
    except ConfigError as error:
        raise ConfigError(
            f"{error}\nPass the directory that holds the file: --models-dir DIR, or models_dir in Python"
        ) from error
    if found.sha256 != config.recogniser_sha256:
        raise ConfigError(
            f"{path}: trained on {config.recogniser} with sha256 {config.recogniser_sha256}; the file here has "
            f"{found.sha256}. Pass the directory that holds the file of the training: --models-dir DIR, or "
            "models_dir in Python"
        )
    return found


def _made(config: RepresentationConfig, inputs: int) -> Any:
    recogniser = None
    if config.kind.startswith("arcface"):
        with torch.device("cpu"):  # a small network, whose weights are there at once
            recogniser = load_recogniser(find_recogniser(config.recogniser, config.models_dir))
        if torch.get_default_device().type == "meta":
            recogniser = recogniser.to("meta")
    size = SIZES[config.size]
    if config.kind == "omniid":
        return OmniIDEncoder(size, class_token=config.class_token)
    return _of_kind(config.kind, size, recogniser, config.combines, inputs)


def _of_kind(
    kind: str,
    size: ModelSize,
    recogniser: FaceRecogniser | None,
    combine: Combine | None,
    inputs: int | None,
) -> Any:
    if kind == "arcface" and recogniser is not None:
        return ArcFaceRepresentation(size, recogniser, combine or "mean", inputs)
    if kind == "arcface_clip" and recogniser is not None:
        return ArcFaceClipRepresentation(size, recogniser)
    return ClipRepresentation(size, combine or "concat", inputs)


def _frozen_as_configured(representation: Any, config: RepresentationConfig) -> Any:
    if config.frozen:
        representation.requires_grad_(False)
    if config.frozen_tower:
        representation.clip.requires_grad_(False)
    return representation


def check_weights(config: RepresentationConfig) -> None:
    """Check the weights that a configuration names, as far as that needs no download and reads no tensors.

    Raises:
        TrainingError: there are none, or they are of another kind or size.
    """
    if config.weights is None:
        return
    folder = Path(config.weights)
    if folder.is_dir():
        if config.revision is not None:
            raise TrainingError(
                f"representation.revision: {folder} is a directory, which has no revisions. Set it to null"
            )
        with _named(config.weights):
            _check_kind(folder, config)
    elif not HUB_NAME.fullmatch(config.weights):
        raise TrainingError(
            f"representation.weights: there is no directory {folder}. Pass the directory `encoder` of a finished "
            "run, or of the export of an unfinished one (`omniid export RUN DIRECTORY`)"
        )
    elif config.revision is None:
        raise TrainingError(
            f"representation.weights: there is no directory {folder}. To fetch it from the hub, set "
            "representation.revision to a commit of the repository (40 hexadecimal digits)"
        )


def _trained_weights(config: RepresentationConfig) -> dict[str, torch.Tensor]:
    with _named(str(config.weights)):
        folder = encoder_folder(str(config.weights), config.revision)
        _check_kind(folder, config)
        with torch.device("meta"):
            expected = _made(config, inputs=1).state_dict()
        return read_weights(folder, expected)


@contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except TrainingError as error:
        within = Path(name) / "encoder"
        hint = f". Did you mean {within}?" if (within / CONFIG).is_file() else ""
        raise TrainingError(f"representation.weights: {error}{hint}") from error


def _check_kind(folder: Path, config: RepresentationConfig) -> None:
    found = read_config(folder)
    kind = kind_of(found)
    if kind != config.kind:
        raise TrainingError(
            f"{config.weights} is a representation of kind {kind}, and representation.kind is {config.kind}. Pass "
            "other weights, or change the kind"
        )
    if bool(found.class_token) != config.class_token:
        raise TrainingError(
            f"{config.weights} was trained with class_token={bool(found.class_token)}, and "
            f"representation.class_token is {config.class_token}. Set it to "
            f"{bool(found.class_token)}, or pass other weights"
        )
    if found.recogniser and found.recogniser != config.recogniser:
        raise TrainingError(
            f"{config.weights} was trained on the recognition network {found.recogniser}, and "
            f"representation.recogniser is {config.recogniser}"
        )
    if found.combine and found.combine != config.combines:
        raise TrainingError(
            f"{config.weights} was trained with combine={found.combine}, and representation.combine is "
            f"{config.combines}"
        )
    _check_size(found.size, config)


def _check_size(size: ModelSize, config: RepresentationConfig) -> None:
    expected = SIZES[config.size]
    differing = [
        f"{key} {getattr(size, key)} instead of {value}"
        for key, value in expected.model_dump().items()
        if getattr(size, key) != value
    ]
    if differing:
        raise TrainingError(
            f"{config.weights} is of another size than representation.size={config.size}: "
            f"{', '.join(differing)}. Set "
            "representation.size to that of the weights, or pass others"
        )
