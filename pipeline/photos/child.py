"""The work of a confined process: decode the photographs of a batch, one after another.

Its parent asks for each by its place in the batch's file, and gets pixels in shared memory or a rejection
(`pipeline.sandbox.protocol`). All modules are imported here, because a confined process cannot import.
"""

from __future__ import annotations

import io
import os
import socket
import struct

import simplejpeg
from PIL import AvifImagePlugin, ImageCms
from PIL import Image as Pillow

from faces.photograph import Fault, PhotographError, decode_photograph
from faces.types import Image
from pipeline.rejection import Rejection
from pipeline.sandbox import protocol
from pipeline.sandbox.ring import Ring
from shards.schema import Reason

ORDER = struct.Struct("<QQ")
"""A photograph that is asked for: offset and length in the batch's file, in bytes."""
REASONS = {
    Fault.INACCESSIBLE: Reason.UNREADABLE,
    Fault.EMPTY: Reason.EMPTY_FILE,
    Fault.NOT_A_PHOTOGRAPH: Reason.UNREADABLE,
    Fault.TOO_LARGE: Reason.FRAME_TOO_LARGE,
    Fault.DAMAGED: Reason.DECODE_ERROR,
}
_JPEG = b"\xff\xd8"
_HARMLESS = ("Invalid SOS parameters",)
"""What libjpeg warns of in sound files of some cameras."""

Pillow.init()
ImageCms.createProfile("sRGB")
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # the sandbox allows no more


def serve(parent: socket.socket, source: int, memory: int) -> None:
    """Answer requests until the parent closes the socket.

    Args:
        parent: the socket.
        source: descriptor of the batch's file.
        memory: descriptor of the shared memory.
    """
    ring = Ring(memory, writable=True)
    while request := parent.recv(protocol.MOST_BYTES):
        offset, length = ORDER.unpack(request)
        parent.send(_answer(source, offset, length, ring))


def _answer(source: int, offset: int, length: int, ring: Ring) -> bytes:
    """The message about one photograph; any failure becomes a message."""
    try:
        data = os.pread(source, length, offset)
        image = decoded(data, ring.slot_pixels)
    except PhotographError as error:
        return protocol.write_rejection(Rejection(REASONS[error.fault], error.text))
    except MemoryError:
        return b"M"
    except Exception as error:  # any error belongs to this photograph
        detail = " ".join(f"{type(error).__name__}: {error}".split())
        return protocol.write_rejection(Rejection(Reason.INTERNAL_ERROR, detail))
    height, width = image.shape[:2]
    ring.put(0, image)
    return protocol.FRAME.pack(b"F", 0, 0, height, width)


def decoded(data: bytes, max_pixels: int) -> Image:
    """The pixels of a photograph, (H, W, 3) RGB, upright and in sRGB.

    Args:
        data: the file.
        max_pixels: most pixels that are decoded.

    Raises:
        PhotographError: no photograph, damaged, or too large.
    """
    image = decode_photograph(io.BytesIO(data), "the file", max_pixels)
    if data.startswith(_JPEG) and (damage := jpeg_damage(data)):
        raise PhotographError("the file", Fault.DAMAGED, f"is damaged: {damage}")
    return image


def jpeg_damage(data: bytes) -> str | None:
    """What libjpeg warns of in a JPEG; None for a sound one.

    Pillow passes over these warnings, and shows grey or shifted blocks where data is missing.
    """
    try:
        if simplejpeg.decode_jpeg_header(data)[2] not in {"Gray", "YCbCr", "RGB"}:
            return None  # simplejpeg does not read CMYK
        simplejpeg.decode_jpeg(data, "GRAY", fastdct=True, fastupsample=True, strict=True)
    except ValueError as error:
        warning = str(error)
        return None if warning.startswith(_HARMLESS) else warning
    return None
