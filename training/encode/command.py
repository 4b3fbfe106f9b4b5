"""What `omniid encode` does: photographs to portraits, portraits to identity tokens, tokens to a file.

    tokens.safetensors
        tensor "tokens"     (L, D) float32: the identity tokens of the person
        metadata "omniid"   JSON:
            format_version  "1.1"
            kind            "omniid-tokens"
            representation  kind of the encoder: omniid, clip, arcface or arcface_clip
            encoder_sha256  of the encoder's model.safetensors: tokens of two encoders cannot be compared
            recogniser_sha256  of the file of its recognition network; only where it has one
            crop_scale      how the head crops were cut (faces/crop.py)
            profile         networks that found the faces
            photos          [{"file": name, "sha256": of the file, "face_px": size of the face in pixels}, …]

The same photographs, encoder and device give the same bytes. Hence one key of metadata: safetensors writes several
in an order that changes from process to process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from faces.registry import sha256_of
from shards.atomic import write_bytes
from training.crop_scale import check_crop_scale, crop_scale_of
from training.errors import TrainingError
from training.folders import make_folder
from training.inference import memory_error, pick_device
from training.models.pretrained import CONFIG, WEIGHTS, EncoderConfig, encoder_folder, read_config
from training.representations.build import check_recogniser, kind_of, load_representation
from training.representations.module import check_number
from training.sampling.photographs import PhotoFace, find_faces, photo_files

KIND = "omniid-tokens"
FORMAT_VERSION = "1.1"
METADATA = "omniid"
SUFFIX = ".safetensors"
WITHIN = "encoder"
"""Where a finished run, or an export, has its encoder."""
Progress = Callable[[int], AbstractContextManager[Callable[[], None]]]
"""Shows the progress of so many files: what the block gets is called after each."""


def encode_photos(
    photos: Sequence[Path],
    encoder: str,
    output: Path,
    *,
    revision: str | None,
    crop_scale: float | None,
    device: str | None,
    profile: str,
    models_dir: Path | None,
    skip_unusable: bool,
    message: Callable[[str], None],
    progress: Progress,
) -> None:
    """Write the identity tokens of one person to `output`; see `omniid encode --help`.

    Raises:
        ConfigError: the file of the encoder's recognition network is missing or another one.
        TrainingError: a photograph or the encoder cannot be used, the output cannot be written, the crop scale or
            the number of photographs is another one than in training, or the memory does not suffice.
        OutOfSpace: the disk or the quota is full.
    """
    from safetensors.torch import save

    if output.suffix != SUFFIX or output.is_dir():
        raise TrainingError(f"--output: {output} is not the name of a {SUFFIX} file. Pass one")
    # What is cheap to check comes before the work on photographs, and that before loading weights.
    place, files = pick_device(device), photo_files(photos, message)
    folder = find_encoder(encoder, revision)
    config = read_config(folder)
    scale = encoder_crop_scale(folder, config.crop_scale, crop_scale, message)
    check_photo_count(config, folder, len(files))
    check_recogniser(folder, config, models_dir)
    make_folder(output.absolute().parent)
    # Messages come after the progress bar, which they would tear apart.
    messages: list[str] = []
    try:
        with progress(len(files)) as done:
            found = find_faces(
                files,
                messages.append,
                profile=profile,
                models_dir=models_dir,
                crop_scale=scale,
                skip_unusable=skip_unusable,
                done=done,
            )
    finally:
        for line in messages:
            message(line)
    check_photo_count(config, folder, len(found))
    with memory_error(f"{place} has too little memory for this encoder: pass --device cpu"):
        network = load_representation(folder, models_dir).to(place).eval()
    with memory_error(
        f"{place} has too little memory for {len(found)} photographs: pass fewer, or --device cpu"
    ):
        tokens_LD = network.encode_portraits([face.portrait for face in found])
    metadata = _metadata(folder, config, scale, profile, found)
    write_bytes(output, save({"tokens": tokens_LD.float().cpu().contiguous()}, metadata))
    count, width = tokens_LD.shape
    message(f"{output}: {count} identity tokens of {width} channels, from {len(found)} photographs")


def find_encoder(name: str, revision: str | None = None) -> Path:
    """The directory of an encoder: itself, that in an export or in the output of a finished run, or on the hub.

    Raises:
        TrainingError: there is none, or the hub does not give it.
    """
    within = Path(name) / WITHIN
    if not (Path(name) / CONFIG).is_file() and (within / CONFIG).is_file():
        return encoder_folder(within, revision)
    return encoder_folder(name, revision)


def encoder_crop_scale(
    folder: Path, trained: float | None, given: float | None, message: Callable[[str], None]
) -> float:
    """The crop scale of photographs: that of the encoder's training, or the given one where it is not known.

    Raises:
        TrainingError: the given one is another.
    """
    if given is not None:
        try:
            check_crop_scale(trained, [given])
        except ValueError as error:
            raise TrainingError(f"--crop-scale: {error}") from error
        return given
    return crop_scale_of(trained, folder, message)


def check_photo_count(config: EncoderConfig, folder: Path, photos: int) -> None:
    """Check that an encoder takes so many photographs.

    Raises:
        TrainingError: it was trained on another number and takes no other.
    """
    try:
        check_number(config.fixed_inputs, photos)
    except ValueError as error:
        raise TrainingError(f"{folder}: {error}") from error


def _metadata(
    folder: Path, config: EncoderConfig, crop_scale: float, profile: str, found: Sequence[PhotoFace]
) -> dict[str, str]:
    photos = [
        {"file": face.path.name, "sha256": sha256_of(face.path), "face_px": round(face.portrait.face_px)}
        for face in found
    ]
    facts = {
        "format_version": FORMAT_VERSION,
        "kind": KIND,
        "representation": kind_of(config),
        "encoder_sha256": sha256_of(folder / WEIGHTS),
        **({"recogniser_sha256": config.recogniser_sha256} if config.recogniser_sha256 else {}),
        "crop_scale": crop_scale,
        "profile": profile,
        "photos": photos,
    }
    return {METADATA: json.dumps(facts)}
