"""The landmarks of a sample: one array for its 8 images, as a NumPy file whose header never changes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shards.schema import IMAGES_PER_IDENTITY

LANDMARKS = 478
"""Points of a face, as MediaPipe's Face Landmarker counts them."""
SHAPE = (IMAGES_PER_IDENTITY, LANDMARKS, 2)
"""Image, point, (x, y) in pixels of the stored image."""

_DESCRIPTION = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {SHAPE}, }}".encode("ascii")
# Spelt here and not by numpy, whose releases may pad it otherwise: version 1.0, 118 bytes of description.
HEADER = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + _DESCRIPTION.ljust(117) + b"\n"
"""The first 128 bytes of the file."""
SIZE = len(HEADER) + 4 * IMAGES_PER_IDENTITY * LANDMARKS * 2
"""Bytes of the file."""


def encode_landmarks(points: npt.ArrayLike) -> bytes:
    """The bytes of a sample's `landmarks.npy`.

    Args:
        points: (8, 478, 2), x and y of each point in pixels of the stored image.

    Raises:
        ValueError: another shape, or a number that is not finite.
    """
    array = np.ascontiguousarray(points, dtype="<f4")
    if array.shape != SHAPE:
        raise ValueError(f"landmarks have the shape {array.shape}, expected {SHAPE}")
    if not np.isfinite(array).all():
        raise ValueError("landmarks hold NaN or an infinity")
    return HEADER + array.tobytes()


def decode_landmarks(data: bytes | memoryview) -> npt.NDArray[np.float32]:
    """The points of a sample: (8, 478, 2) float32, pixels of the stored images; read-only.

    Raises:
        ValueError: not the file that `encode_landmarks` writes.
    """
    if error := validate_landmarks(data):
        raise ValueError(f"landmarks: the file {error}")
    return np.frombuffer(data, dtype="<f4", offset=len(HEADER)).reshape(SHAPE)


def validate_landmarks(data: bytes | memoryview) -> str | None:
    """The error in a landmarks member; None when it is one."""
    if len(data) != SIZE or bytes(data[: len(HEADER)]) != HEADER:
        return f"is no NumPy file of {SHAPE} little-endian float32 with the header of the format"
    if not np.isfinite(np.frombuffer(data, dtype="<f4", offset=len(HEADER))).all():
        return "holds NaN or an infinity"
    return None
