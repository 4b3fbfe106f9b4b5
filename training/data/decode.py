"""Turns the files of samples into the arrays of a batch: the most expensive part of the stream.

JPEG images are decoded at the scale that is just large enough for the model (libjpeg leaves out what would be
thrown away), straight into the memory of the batch. Masks are one-bit PNG files without filters, as our
pipeline writes them, so inflating them is nearly all of the work; OpenCV takes four times as long, and decodes
those that are of another kind.

Letters in names: K images of an identity (8), S side of the decoded images, H and W rows and columns, C channels,
N targets.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from faces.align import LANDMARKS
from faces.landmark_image import landmark_image
from shards.landmarks import decode_landmarks
from shards.sample import FACE
from shards.schema import IMAGE_SIDE, IMAGES_PER_IDENTITY
from training.data.batch import Batch
from training.data.draws import Draw
from training.data.needs import Needs
from training.errors import BadSample

_Bytes = bytes | memoryview
_PNG = b"\x89PNG\r\n\x1a\n"
_ONE_BIT_GREY = struct.pack(">4sIIBBBBB", b"IHDR", IMAGE_SIDE, IMAGE_SIDE, 1, 0, 0, 0, 0)
_ROW = 1 + IMAGE_SIDE // 8
_BITS = {2: torch.int16, 4: torch.int32}
"""Integers of the size of a latent: numpy has no bfloat16."""


class Encoded(Protocol):
    """The files of a sample."""

    @property
    def images(self) -> Sequence[_Bytes]:
        """The 8 JPEG files."""

    @property
    def masks(self) -> Sequence[_Bytes]:
        """The 8 PNG files."""

    @property
    def landmarks(self) -> _Bytes:
        """The NPY file."""


def decoded_side(side: int) -> int:
    """Side at which images are decoded for a model of a given side: the next eighth of the stored 512 pixels."""
    eighth = IMAGE_SIDE // 8
    return min(-(-side // eighth) * eighth, IMAGE_SIDE)


class BatchBuffer:
    """A batch in the making: rows are filled by several threads, in any order.

    Args:
        keys: the identities.
        draws: inputs and targets of each.
        needs: what is decoded of them.
        most_inputs: what inputs are padded to, so that all batches of a run have one shape, which compiled
            networks and figures of their work rely on; when None, the most inputs of these identities.
        fixed_inputs: whether all identities of the run have as many inputs.
        pinned: whether it is in page-locked memory.
    """

    def __init__(
        self,
        keys: Sequence[str],
        draws: Sequence[Draw],
        needs: Needs,
        *,
        most_inputs: int | None = None,
        fixed_inputs: bool = False,
        pinned: bool = False,
    ) -> None:
        self._keys, self._draws = tuple(keys), tuple(draws)
        self._side = decoded_side(needs.side)
        self._needs = needs
        self._fixed_inputs = fixed_inputs
        points = (len(keys), IMAGES_PER_IDENTITY, len(LANDMARKS), 2)
        self._keypoints = torch.zeros(points, pin_memory=pinned) if needs.keypoints else None
        self._most_inputs = most_inputs or max(len(draw.inputs) for draw in self._draws)
        rows, images = len(self._keys), IMAGES_PER_IDENTITY
        pixels = (self._side, self._side)
        # Not zeros: most of it is written over at once.
        self._images = torch.empty((rows, images, *pixels, 3), dtype=torch.uint8, pin_memory=pinned)
        self._masks = (
            torch.empty((rows, images, *pixels), dtype=torch.uint8, pin_memory=pinned)
            if needs.masks
            else None
        )
        self._valid = torch.zeros(rows, dtype=torch.bool)
        self._images_BKSSC = self._images.numpy()
        self._masks_BKSS = None if self._masks is None else self._masks.numpy()
        self._latents: torch.Tensor | None = None
        if kept := needs.latents:
            shape = (rows, len(self._draws[0].targets), *kept.shape)
            self._latents = torch.zeros(shape, dtype=kept.dtype, pin_memory=pinned)
            self._latent_bits_BNCHH = self._latents.view(_BITS[kept.dtype.itemsize]).numpy()
        self._landmark_images: torch.Tensor | None = None
        if side := needs.landmark_images:
            shape = (rows, len(self._draws[0].targets), side, side, 3)
            self._landmark_images = torch.zeros(shape, dtype=torch.uint8, pin_memory=pinned)
        self._pinned = pinned

    def fill(self, row: int, sample: Encoded, latent_bits_KCHH: NDArray[Any] | None = None) -> None:
        """Decode a sample into its row.

        Args:
            row: of the batch.
            sample: its files.
            latent_bits_KCHH: its kept latents, where they are needed, as integers of the same bits.

        Raises:
            BadSample: an image or a mask does not decode; the row is blank then.
        """
        draw = self._draws[row]
        wanted = {*draw.inputs, *(draw.targets if self._needs.targets else ())}
        images_KSSC = self._images_BKSSC[row]
        masks_KSS = None if self._masks_BKSS is None else self._masks_BKSS[row]
        try:
            for number in range(IMAGES_PER_IDENTITY):
                what = f"image {number}"
                if number in wanted:
                    decode_image(sample.images[number], images_KSSC[number])
                    if draw.flip:
                        images_KSSC[number] = images_KSSC[number, :, ::-1].copy()
                else:
                    images_KSSC[number] = 0
                if masks_KSS is None:
                    continue
                if number in draw.targets:
                    decode_mask(sample.masks[number], masks_KSS[number])
                    if draw.flip:
                        masks_KSS[number] = masks_KSS[number, :, ::-1].copy()
                else:
                    masks_KSS[number] = 0
            what = "landmarks"
            if self._keypoints is not None or self._landmark_images is not None:
                self._fill_landmarks(row, decode_landmarks(sample.landmarks))
        except ValueError as error:
            self.blank(row)
            raise BadSample(f"sample {self._keys[row]}, {what}: {error}") from error
        if latent_bits_KCHH is not None:
            self._latent_bits_BNCHH[row] = latent_bits_KCHH[list(draw.targets)]
        self._valid[row] = True

    def _fill_landmarks(self, row: int, landmarks_KP2: NDArray[np.float32]) -> None:
        if self._keypoints is not None:
            # A landmark at 0 is at the centre of the first pixel.
            points_K52 = (landmarks_KP2[:, list(LANDMARKS)] + 0.5) / IMAGE_SIDE
            self._keypoints[row] = torch.from_numpy(points_K52)
        if self._landmark_images is not None:
            draw = self._draws[row]
            for place, number in enumerate(draw.targets):
                image_HHC = landmark_image(landmarks_KP2[number], IMAGE_SIDE, self._needs.landmark_images)
                if draw.flip:
                    image_HHC = image_HHC[:, ::-1].copy()
                self._landmark_images[row, place] = torch.from_numpy(image_HHC)

    def blank(self, row: int) -> None:
        """Leave a row without a sample."""
        self._images_BKSSC[row] = 0
        if self._masks_BKSS is not None:
            self._masks_BKSS[row] = 0
        if self._keypoints is not None:
            self._keypoints[row] = 0
        if self._latents is not None:
            self._latents[row] = 0
        if self._landmark_images is not None:
            self._landmark_images[row] = 0
        self._valid[row] = False

    def batch(self) -> Batch:
        """The batch, once every row is filled or blank."""
        most = self._most_inputs
        padded = [draw.inputs + (0,) * (most - len(draw.inputs)) for draw in self._draws]
        counts = torch.tensor([len(draw.inputs) for draw in self._draws])
        small = {
            "inputs_BM": torch.tensor(padded),
            "targets_BN": torch.tensor([draw.targets for draw in self._draws]),
            "valid_B": self._valid,
            "seeds_B": torch.tensor([draw.seed for draw in self._draws]),
        }
        if self._pinned:
            small = {name: tensor.pin_memory() for name, tensor in small.items()}
        valid_BM = None
        if not self._fixed_inputs:
            valid_BM = torch.arange(most)[None] < counts[:, None]
            valid_BM = valid_BM.pin_memory() if self._pinned else valid_BM
        return Batch(
            input_valid_BM=valid_BM,
            images_BKSSC=self._images,
            masks_BKSS=self._masks,
            keypoints_BKP2=self._keypoints,
            latents_BNCHH=self._latents,
            landmark_images_BNHHC=self._landmark_images,
            keys=self._keys,
            **small,
        )


def decode_image(data: _Bytes, into_SSC: NDArray[np.uint8]) -> None:
    """Decode a JPEG image of 512 x 512 pixels at the scale of the array it goes to.

    Raises:
        ValueError: it does not decode, or not to the size of the array.
    """
    import simplejpeg

    side = into_SSC.shape[0]
    decoded = simplejpeg.decode_jpeg(data, min_height=side, min_width=side, buffer=into_SSC)
    if decoded.shape != into_SSC.shape:
        raise ValueError(f"it is not {IMAGE_SIDE} x {IMAGE_SIDE} pixels")


def decode_mask(data: _Bytes, into_SS: NDArray[np.uint8]) -> None:
    """Decode a PNG mask and reduce it: a pixel is face where at least half of what it covers is.

    Raises:
        ValueError: it does not decode, or has another size.
    """
    import cv2

    mask_HW = _one_bit_mask(data)
    if mask_HW is None and len(data):
        # OpenCV gives nothing for most damaged files, and throws for sizes that it deems too large.
        with suppress(cv2.error):
            mask_HW = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    if mask_HW is None or mask_HW.shape != (IMAGE_SIDE, IMAGE_SIDE):
        raise ValueError(f"the mask is no PNG image of {IMAGE_SIDE} x {IMAGE_SIDE} pixels")
    cv2.resize(mask_HW, into_SS.shape[::-1], dst=into_SS, interpolation=cv2.INTER_AREA)
    cv2.threshold(into_SS, FACE // 2, FACE, cv2.THRESH_BINARY, dst=into_SS)


def _one_bit_mask(data: _Bytes) -> NDArray[np.uint8] | None:
    """A mask as our pipeline writes it: one bit a pixel, one data chunk, no filters; None for any other file."""
    view = memoryview(data)
    if len(view) < 57 or view[:8] != _PNG or view[12:29] != _ONE_BIT_GREY or bytes(view[37:41]) != b"IDAT":
        return None
    size = int.from_bytes(view[33:37], "big")
    inflater = zlib.decompressobj()
    try:
        # No more than it should hold, and one byte to see whether it holds more.
        raw = inflater.decompress(view[41 : 41 + size], _ROW * IMAGE_SIDE + 1)
    except zlib.error:
        return None
    if len(raw) != _ROW * IMAGE_SIDE or not inflater.eof:
        return None
    rows = np.frombuffer(raw, np.uint8).reshape(IMAGE_SIDE, _ROW)
    if rows[:, 0].any():
        return None
    bits = np.unpackbits(rows[:, 1:], axis=1)
    return np.negative(bits, out=bits)  # 1 becomes 255
