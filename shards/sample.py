"""A sample in memory: the record of an identity with the bytes of its images and masks."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, UnidentifiedImageError

from shards.canonical import model_json, sha256_hex
from shards.landmarks import decode_landmarks, validate_landmarks
from shards.layout import IMAGE_FIELDS, JSON_FIELD, LANDMARKS_FIELD, MASK_FIELDS
from shards.schema import IMAGE_SIDE, IMAGES_PER_IDENTITY, IdentityRecord

FACE = 255
"""Value of a mask on the face; the rest is 0."""


@dataclass(frozen=True)
class Sample:
    """One identity of the dataset.

    Attributes:
        record: the JSON member.
        images: the 8 JPEG files, in the order of `record.images`.
        masks: the 8 PNG files, one for each image.
        landmarks: the NPY file; `points` reads it.
    """

    record: IdentityRecord
    images: tuple[bytes, ...]
    masks: tuple[bytes, ...]
    landmarks: bytes

    def points(self) -> npt.NDArray[np.float32]:
        """The landmarks of the 8 images: (8, 478, 2), x and y in pixels of the stored images.

        Raises:
            ValueError: the file does not follow the format.
        """
        return decode_landmarks(self.landmarks)

    def members(self) -> Iterator[tuple[str, bytes]]:
        """Field (`0.jpg`, …) and bytes of each member, in their order in the tar.

        Raises:
            ValueError: the record holds NaN or an infinity, which JSON cannot represent.
        """
        yield from self._files()
        try:
            yield JSON_FIELD, model_json(self.record)
        except ValueError as error:
            raise ValueError(f"sample {self.record.key}: the record holds NaN or an infinity") from error

    def _files(self) -> Iterator[tuple[str, bytes]]:
        """The members that the record has digests of."""
        yield from zip(IMAGE_FIELDS, self.images, strict=True)
        yield from zip(MASK_FIELDS, self.masks, strict=True)
        yield LANDMARKS_FIELD, self.landmarks

    def check(self) -> None:
        """Check bytes against the record: counts, digests, kind and size of the images (pixels not decoded).

        Raises:
            ValueError: naming the member and what was expected.
        """
        key = self.record.key
        if (len(self.images), len(self.masks)) != (IMAGES_PER_IDENTITY, IMAGES_PER_IDENTITY):
            raise ValueError(
                f"sample {key}: {len(self.images)} images and {len(self.masks)} masks, "
                f"expected {IMAGES_PER_IDENTITY} of each"
            )
        data = dict(self._files())
        for field, digest in member_digests(self.record).items():
            if sha256_hex(data[field]) != digest:
                raise ValueError(f"{key}.{field}: its bytes have another sha256 than its record")
            if error := validate_member(field, data[field], decode=False):
                raise ValueError(f"{key}.{field}: {error}")


def member_digests(record: IdentityRecord) -> dict[str, str]:
    """The sha256 of each member but the record itself, by field."""
    images = {field: image.sha256 for field, image in zip(IMAGE_FIELDS, record.images, strict=True)}
    masks = {field: image.mask_sha256 for field, image in zip(MASK_FIELDS, record.images, strict=True)}
    return images | masks | {LANDMARKS_FIELD: record.landmarks_sha256}


def validate_member(field: str, data: bytes, *, decode: bool = True) -> str | None:
    """The error in a member that is not the record; None when it is sound.

    Args:
        field: `0.jpg`, `0.mask.png`, …
        data: its bytes.
        decode: whether to decode the pixels as well.
    """
    if field == LANDMARKS_FIELD:
        return validate_landmarks(data)
    check = validate_mask if field in MASK_FIELDS else validate_jpeg
    return check(data, decode=decode)


def validate_jpeg(data: bytes, *, decode: bool = True) -> str | None:
    """The error in an image member; None when it is a 512 x 512 JPEG in colour."""
    try:
        # Before decoding: a small file can declare a size that fills the memory.
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if (width, height) != (IMAGE_SIDE, IMAGE_SIDE) or colours not in ("YCbCr", "RGB"):
            return f"is {width} x {height} {colours}, expected {IMAGE_SIDE} x {IMAGE_SIDE} in colour"
        if decode:
            # All three channels are read, which is where damage shows; only their way to colours is left out.
            simplejpeg.decode_jpeg(data, "GRAY", strict=True)
    except Exception as error:  # a damaged header can raise more than ValueError
        return f"cannot be decoded as JPEG: {error}"
    return None


def validate_mask(data: bytes, *, decode: bool = True) -> str | None:
    """The error in a mask member; None when it is a 512 x 512 PNG of one grey channel, black and white.

    One bit or eight bits a pixel; eight-bit files hold 0 and 255 only.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.size != (IMAGE_SIDE, IMAGE_SIDE) or image.mode not in ("1", "L"):
                return (
                    f"is {image.size[0]} x {image.size[1]} {image.mode}, "
                    f"expected {IMAGE_SIDE} x {IMAGE_SIDE} 1 or L"
                )
            if decode:
                image.load()
                if image.mode == "L" and any(image.histogram()[1:FACE]):
                    return f"holds values other than 0 and {FACE}"
    except UnidentifiedImageError:  # its message has an address in memory
        return "cannot be decoded as PNG: it does not begin as one"
    except Exception as error:  # Pillow raises almost any type on damaged files
        return f"cannot be decoded as PNG: {error}"
    return None
