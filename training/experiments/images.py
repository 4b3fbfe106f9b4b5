"""All images of a split in memory, for small networks that are trained on a CPU.

Letters in names give the shape:
    I  images    C  colour channels (3, RGB)    S  side in pixels
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from shards.reader import Dataset
from shards.schema import IMAGE_SIDE, IMAGES_PER_IDENTITY, Split
from training.errors import TrainingError
from training.experiments.options import message
from training.models.pixels import pixels
from training.progress import Progress


def split_images(dataset: Dataset, split: Split, side: int) -> torch.Tensor:
    """All images of a split, reduced as the trainer reduces them.

    Returns:
        (I, 3, side, side) float32 in [0, 1].

    Raises:
        TrainingError: the split is empty, or an image does not decode.
    """
    keys = dataset.keys(split)
    if not keys:
        raise TrainingError(
            f"{dataset.root} has no images in its {split} split. Use a dataset with both splits"
        )
    # Into one tensor: small ones among the large ones of decoding would keep the heap from shrinking.
    images_ICSS = torch.empty(len(keys) * IMAGES_PER_IDENTITY, 3, side, side)
    progress, count = Progress("read", f"images of the {split} split", len(images_ICSS), message), 0
    for sample in dataset.samples(split):
        for jpeg in sample.images:
            images_ICSS[count] = _reduced(jpeg, side)
            count += 1
        progress.advance(len(sample.images))
    return images_ICSS[:count]


def _reduced(jpeg: bytes, side: int) -> torch.Tensor:
    bgr_HWC = cv2.imdecode(np.frombuffer(jpeg, np.uint8), _decoding(side))
    if bgr_HWC is None:
        raise TrainingError("an image of the dataset does not decode. Check the dataset with `mfhq verify`")
    return pixels(torch.from_numpy(np.ascontiguousarray(bgr_HWC[None, ..., ::-1])), side)


def _decoding(side: int) -> int:
    """How OpenCV decodes: libjpeg leaves out what is not needed, as in the trainer's stream."""
    factors = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
    return next((flag for factor, flag in factors.items() if side * factor <= IMAGE_SIDE), cv2.IMREAD_COLOR)


def sheet_png(images_ICSS: torch.Tensor, columns: int) -> bytes:
    """A PNG of images side by side, three times as large; a last row that is not full is left out if others are.

    Args:
        images_ICSS: in [0, 1]; their widths may differ from their heights.
        columns: images of a row.
    """
    rows = [torch.cat(list(row), dim=2) for row in images_ICSS.split(columns)]
    full = [row for row in rows if row.shape[2] == rows[0].shape[2]]
    sheet: NDArray[np.uint8] = (torch.cat(full, dim=1).clamp(0, 1) * 255).round().byte().numpy()
    bgr_HWC = np.ascontiguousarray(sheet.transpose(1, 2, 0)[..., ::-1])
    large = cv2.resize(bgr_HWC, None, fx=3, fy=3, interpolation=cv2.INTER_NEAREST)
    return bytes(cv2.imencode(".png", large)[1])
