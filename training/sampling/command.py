"""What `omniid sample` does: photographs to portraits, portraits to images, images to files."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from shards.atomic import write_bytes
from training.crop_scale import crop_scale_of
from training.errors import TrainingError
from training.export import read_trained
from training.folders import make_folder
from training.inference import memory_error, pick_device
from training.representations.module import check_number
from training.sampling.photographs import find_faces, photo_files
from training.sampling.sampler import Sampler, check_identity_guidance, check_pose


def generate_samples(
    source: Path,
    photographs: Sequence[Path],
    output: Path,
    *,
    count: int,
    seed: int,
    steps: int | None,
    guidance: float | None,
    scale: float,
    identity_guidance: float | None,
    side: int | None,
    pose_from: Path | None,
    base: str | None,
    device: str | None,
    profile: str,
    models_dir: Path | None,
    say: Callable[[str], None],
) -> None:
    """Generate `count` images into `<output>/sample-<seed>.png`; see `omniid sample --help`.

    Raises:
        ConfigError: the file of the representation's recognition network is missing or another one.
        TrainingError: a photograph, what was learned, or FLUX cannot be used, or memory does not suffice.
        OutOfSpace: the disk or the quota is full.
    """
    # Photographs first, so that an error in them does not show after minutes of loading FLUX.
    trained, place = read_trained(source, models_dir), pick_device(device)
    if trained.facts.generator is not None:
        check_identity_guidance(trained.facts.generator, identity_guidance)
    check_pose(trained, pose_from)
    files = photo_files(photographs, say)
    try:
        check_number(trained.facts.fixed_inputs, len(files))
    except ValueError as error:
        raise TrainingError(f"{source}: {error}") from error
    crop_scale = crop_scale_of(trained.facts.crop_scale, source, say)
    found = find_faces(files, say, profile=profile, models_dir=models_dir, crop_scale=crop_scale)
    portraits = [face.portrait for face in found]
    landmarks = None
    if pose_from is not None:
        (pose,) = find_faces([pose_from], say, profile=profile, models_dir=models_dir, crop_scale=crop_scale)
        landmarks = pose.portrait.landmarks_px
    make_folder(output)
    with memory_error(f"{place} has too little memory for FLUX: use a GPU with more, or --device cpu"):
        precision = "bf16" if place.type == "cuda" else "fp32"
        sampler = Sampler.load(trained, place, base=base, precision=precision, say=say)
    with memory_error(f"{place} has too little memory for {len(portraits)} photographs: pass fewer"):
        tokens_1LD = sampler.encode(
            [portrait.image for portrait in portraits], [portrait.keypoints for portrait in portraits]
        )
    generated = side or sampler.decoder.config.side
    too_large = f"{place} has too little memory for images of {generated} pixels. Lower --size"
    for number in range(seed, seed + count):
        with memory_error(too_large):
            (image,) = sampler.generate(
                tokens_1LD,
                [number],
                side=side,
                steps=steps,
                guidance=guidance,
                scale=scale,
                identity_guidance=identity_guidance,
                landmarks=landmarks,
            )
        path = output / f"sample-{number}.png"
        encoded = io.BytesIO()
        Image.fromarray(image).save(encoded, "PNG")
        write_bytes(path, encoded.getvalue())
        say(str(path))
