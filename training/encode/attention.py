"""What `omniid attention` does: where learned queries look in the photographs of a person, as a picture.

Source: Omni-ID, figure 10.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from shards.atomic import write_bytes
from training.encode.command import check_photo_count, encoder_crop_scale, find_encoder
from training.errors import TrainingError
from training.evaluate.attention import attention_maps, attention_rows, chosen_queries
from training.evaluate.sheet import make_sheet, tile_of
from training.evaluate.token_similarity import token_similarity
from training.folders import make_folder
from training.inference import memory_error, pick_device
from training.models.pretrained import read_config
from training.representations.build import load_representation
from training.representations.omniid import OmniIDEncoder
from training.sampling.photographs import find_faces, photo_files


def show_attention(
    photos: Sequence[Path],
    encoder: str,
    output: Path,
    *,
    queries: Sequence[int],
    count: int,
    block: int,
    revision: str | None,
    crop_scale: float | None,
    device: str | None,
    profile: str,
    models_dir: Path | None,
    message: Callable[[str], None],
) -> None:
    """Write the picture; see `omniid attention --help`.

    Raises:
        TrainingError: a photograph or the encoder cannot be used, it has no learned queries, or a number is out of
            range.
        OutOfSpace: the disk or the quota is full.
    """
    if output.suffix.lower() != ".png" or output.is_dir():
        raise TrainingError(f"--output: {output} is not the name of a .png file. Pass one")
    place, files = pick_device(device), photo_files(photos, message)
    folder = find_encoder(encoder, revision)
    config = read_config(folder)
    scale = encoder_crop_scale(folder, config.crop_scale, crop_scale, message)
    check_photo_count(config, folder, len(files))
    network = load_representation(folder, models_dir).to(place).eval()
    if not isinstance(network, OmniIDEncoder):
        raise TrainingError(
            f"{folder} is no Omni-ID encoder, so it has no learned queries. Pass an encoder of "
            "representation.kind=omniid"
        )
    _check_numbers(network, queries, block)
    found = find_faces(files, message, profile=profile, models_dir=models_dir, crop_scale=scale)
    images = [face.portrait.image for face in found]
    with memory_error(f"{place} has too little memory for {len(images)} photographs: pass fewer"):
        stacked_MSSC = torch.from_numpy(np.stack(images)).to(place)
        maps_LMP = attention_maps(network, stacked_MSSC)[block]
        similarity = token_similarity(network.encode_images(stacked_MSSC))
    shown = list(queries) or chosen_queries(maps_LMP, count)
    rows = attention_rows(images, maps_LMP, shown)
    captions = [f"query {number}" for number in shown]
    sheet = make_sheet(
        ["photograph", *captions],
        [[tile_of(image), *(tile_of(row[place]) for row in rows)] for place, image in enumerate(images)],
    )
    make_folder(output.absolute().parent)
    encoded = io.BytesIO()
    Image.fromarray(sheet).save(encoded, "PNG")
    write_bytes(output, encoded.getvalue())
    message(
        f"{output}: {len(shown)} of {network.size.queries} queries, {len(images)} photographs; mean cosine of two "
        f"identity tokens {similarity:.3f}"
    )


def _check_numbers(network: OmniIDEncoder, queries: Sequence[int], block: int) -> None:
    known = network.size.queries
    if wrong := [number for number in queries if not 0 <= number < known]:
        raise TrainingError(f"--query: {wrong[0]} is none of the encoder's queries 0 to {known - 1}")
    blocks = len(network.cross)
    if not -blocks <= block < blocks:
        raise TrainingError(
            f"--block: {block} is none of the encoder's {blocks} cross-attention blocks, 0 to {blocks - 1}"
        )
