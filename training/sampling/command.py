"""What `omniid sample` does: photographs to portraits, portraits to images, images to files."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image

from faces.crop import CROP_SCALE
from shards.atomic import write_bytes
from training.errors import TrainingError, out_of_memory
from training.export import read_trained
from training.folders import make_folder
from training.sampling.photographs import read_portraits
from training.sampling.sampler import Sampler, check_identity_guidance


def draw_samples(
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
    base: str | None,
    device: str | None,
    profile: str,
    models_dir: Path | None,
    say: Callable[[str], None],
) -> None:
    """Draw `count` images into `<output>/sample-<seed>.png`; see `omniid sample --help`.

    Raises:
        TrainingError: a photograph, what was learned, or FLUX cannot be used, or memory does not suffice.
    """
    # Photographs first: what is wrong with them shall not show after minutes of loading FLUX.
    trained, place = read_trained(source), _device(device)
    if trained.facts.flow is not None:
        check_identity_guidance(trained.facts.flow, identity_guidance)
    portraits = read_portraits(photographs, say, profile, models_dir, trained.facts.crop_scale or CROP_SCALE)
    make_folder(output)
    with _memory_in_words(f"{place} has too little memory for FLUX: use a GPU with more, or --device cpu"):
        precision = "bf16" if place.type == "cuda" else "fp32"
        sampler = Sampler.load(trained, place, base=base, precision=precision, say=say)
    drawn = side or sampler.stage.flow.side
    too_large = (
        f"{place} has too little memory for images of {drawn} pixels: lower --size, or use a GPU with more"
    )
    for number in range(seed, seed + count):
        with _memory_in_words(too_large):
            (image,) = sampler.draw(
                portraits,
                [number],
                side=side,
                steps=steps,
                guidance=guidance,
                scale=scale,
                identity_guidance=identity_guidance,
            )
        path = output / f"sample-{number}.png"
        encoded = io.BytesIO()
        Image.fromarray(image).save(encoded, "PNG")
        write_bytes(path, encoded.getvalue())
        say(str(path))


@contextmanager
def _memory_in_words(message: str) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise TrainingError(message) from error


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise TrainingError(f"--device: {name} is none; give cuda or cpu") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise TrainingError("--device: this machine has no GPU that torch can use; give cpu, or leave it out")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise TrainingError(f"--device: {name} is none of this machine's {torch.cuda.device_count()} GPUs")
    return device
