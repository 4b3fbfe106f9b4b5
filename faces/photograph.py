"""Reads a user's photograph: upright, in sRGB, eight bits a channel.

A camera stores its picture as the sensor was held and notes in EXIF which way is up; telephones store wider colour
spaces, scanners sixteen bits, printers CMYK. A video frame has none of that, so a photograph is first converted to
what a viewer would show. Its size is read from the header and checked before a pixel
is decoded: a file of a few kilobytes can hold gigabytes of one colour.
"""

from __future__ import annotations

import io
import struct
import warnings
from enum import Enum, auto
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image as Pillow
from PIL import ImageCms, UnidentifiedImageError

from faces.types import Image

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP")
"""The formats that are read. Pillow knows many more, some of which start other programs."""
MAX_PIXELS = 120_000_000
"""Most pixels of a photograph: telephones have 108 megapixels; reading one takes a gigabyte of memory."""
MAX_SIDE = 30_000
"""Longest side in pixels: OpenCV cannot warp pictures of 32,767 and more."""

_DAMAGE = (
    *(OSError, SyntaxError, ValueError, RuntimeError, EOFError, struct.error),
    *(KeyError, IndexError, TypeError, OverflowError),
)
"""What Pillow's readers raise on damaged files; it has no error class of its own for them."""
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}
"""The transposition for each EXIF orientation but 1, which is upright."""
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")


class Fault(Enum):
    """What kind of error a photograph has."""

    INACCESSIBLE = auto()
    """The file is missing, a directory, or cannot be read."""
    EMPTY = auto()
    NOT_A_PHOTOGRAPH = auto()
    TOO_LARGE = auto()
    DAMAGED = auto()


class PhotographError(ValueError):
    """A file cannot be used as a photograph; the message names the file, the error and the remedy.

    Args:
        name: of the file.
        fault: the kind of error.
        text: the message without the name.

    Attributes:
        fault: the kind of error.
        text: the message without the name.
    """

    def __init__(self, name: Path | str, fault: Fault, text: str) -> None:
        super().__init__(f"{name} {text}")
        self.fault = fault
        self.text = text


def read_photograph(path: Path) -> Image:
    """A photograph as a viewer shows it, (H, W, 3) RGB.

    EXIF orientation is applied, an embedded colour profile is converted to sRGB, sixteen bits a channel become
    eight, transparency becomes white; of several pictures in a file the first is read.

    Args:
        path: a JPEG, PNG, WebP, AVIF, TIFF or BMP.

    Raises:
        PhotographError: the file is missing, no photograph, damaged, or larger than `MAX_PIXELS` or `MAX_SIDE`.
    """
    try:
        if path.is_dir():
            raise PhotographError(path, Fault.INACCESSIBLE, "is a directory. Name the photographs in it")
        if not path.is_file():
            raise PhotographError(path, Fault.INACCESSIBLE, "does not exist. Check the name")
        with path.open("rb") as stream:
            return decode_photograph(stream, path)
    except OSError as error:
        text = f"cannot be read: {error.strerror or error}"
        raise PhotographError(path, Fault.INACCESSIBLE, text) from error


def decode_photograph(stream: BinaryIO, name: Path | str, max_pixels: int = MAX_PIXELS) -> Image:
    """As `read_photograph`, of an open file.

    Args:
        stream: the file, at its start.
        name: of the file, for messages.
        max_pixels: most pixels that are decoded.

    Raises:
        PhotographError: no photograph, damaged, or larger than `max_pixels` or `MAX_SIDE`.
        OSError: the file cannot be read.
    """
    with warnings.catch_warnings():
        # Pillow warns of large pictures, which are checked here, and of invalid metadata, which is harmless.
        warnings.simplefilter("ignore")
        with _header(name, stream, max_pixels) as picture:
            return _pixels(name, picture)


def _header(name: Path | str, stream: BinaryIO, max_pixels: int) -> Pillow.Image:
    """The picture, not yet decoded, when its size is within the limits."""
    Pillow.init()
    try:
        picture = Pillow.open(stream, formats=FORMATS)
    except Pillow.DecompressionBombError as error:
        raise _too_large(name, "has more than 178 megapixels", max_pixels) from error
    except UnidentifiedImageError as error:
        raise PhotographError(name, *_what_it_is(stream)) from error
    except _DAMAGE as error:
        raise _undecodable(name, error) from error
    width, height = picture.size
    if width * height > max_pixels or max(width, height) > MAX_SIDE:
        raise _too_large(name, f"has {width} x {height} pixels", max_pixels)
    return picture


def _pixels(name: Path | str, picture: Pillow.Image) -> Image:
    try:
        picture.load()
        if picture.mode in {"I", "F"}:
            raise ValueError("it has 32 bits a channel")
        return np.array(_in_srgb(_eight_bits(_upright(picture))))
    except _DAMAGE as error:
        raise _undecodable(name, error) from error


def _upright(picture: Pillow.Image) -> Pillow.Image:
    try:
        turn = _UPRIGHT.get(picture.getexif().get(_ORIENTATION, 1))
    except _DAMAGE:
        # Unreadable metadata turns no picture; viewers ignore it too.
        turn = None
    return picture if turn is None else picture.transpose(turn)


def _eight_bits(picture: Pillow.Image) -> Pillow.Image:
    """Only grey pictures keep sixteen bits: Pillow reads colour pictures as eight."""
    if not picture.mode.startswith("I;16"):
        return picture
    reduced = Pillow.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    reduced.info = picture.info
    return reduced


def _in_srgb(picture: Pillow.Image) -> Pillow.Image:
    profile = picture.info.get("icc_profile")
    if picture.has_transparency_data:
        see_through = picture.convert("RGBA")
        picture = Pillow.new("RGBA", picture.size, "white")
        picture.alpha_composite(see_through)
        picture = picture.convert("RGB")
    elif picture.mode in {"1", "P"}:
        picture = picture.convert("RGB")
    if profile:
        try:
            return _converted(picture, profile)
        except (ImageCms.PyCMSError, *_DAMAGE):
            # A profile that is damaged, or made for other channels, does not describe the colours.
            pass
    # `convert` copies even when the mode does not change.
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _converted(picture: Pillow.Image, profile: bytes) -> Pillow.Image:
    given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    converted = ImageCms.profileToProfile(picture, given, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert converted is not None  # noqa: S101 - None is for conversions in place
    return converted


def _what_it_is(stream: BinaryIO) -> tuple[Fault, str]:
    stream.seek(0)
    head = stream.read(12)
    if not head:
        return Fault.EMPTY, "is empty; copy it anew"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        text = "is a HEIC photograph, which cannot be read here; export it as JPEG"
    else:
        text = (
            "is no JPEG, PNG, WebP, AVIF, TIFF or BMP, or its beginning is damaged; save it as one of these"
        )
    return Fault.NOT_A_PHOTOGRAPH, text


def _undecodable(name: Path | str, error: Exception) -> PhotographError:
    return PhotographError(
        name,
        Fault.DAMAGED,
        f"cannot be decoded ({error}): it is damaged, cut short or of a rare kind; open it in a viewer and save "
        "it as JPEG or PNG",
    )


def _too_large(name: Path | str, size: str, max_pixels: int) -> PhotographError:
    return PhotographError(
        name,
        Fault.TOO_LARGE,
        f"{size}; a photograph may have {max_pixels / 1_000_000:g} megapixels and sides of {MAX_SIDE} pixels: "
        "save it in a smaller size",
    )
