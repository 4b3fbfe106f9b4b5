"""The fingerprint of a track: how its face moves, to recognise the same footage in another file.

It is made of what the analysis measures on each usable face in any case: head pose, place in the frame,
expression, and a coarse picture of the aligned face. All are relative to the face, so another encoding, size,
crop, border or brightness hardly changes them. Single pictures of two takes of one person in one studio are hard
to tell apart. How the values change over time is not, and `pipeline.people.near_duplicates` compares only that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from faces.types import Floats
from pipeline.stages.observe import UsableFace
from pipeline.stages.recognition import THUMBNAIL

SAMPLE = np.dtype(
    [
        ("time_ms", "<u4"),
        ("pose", "<i2", 3),
        ("place", "<i2", 3),
        ("expression", "i1", 3),
        ("picture", "i1", 15),
    ]
)
"""One usable face, 34 bytes.

pose: yaw, pitch and roll in hundredths of a degree.
place: x and y in thousandths of the track's median face size, the logarithm of the face size in thousandths; each
    from its median over the track.
expression: opening of the mouth and its width in hundredths of the distance between the outer corners of the eyes,
    opening of the eyes in five-hundredths.
picture: the lowest frequencies of the aligned face, a unit vector times 127.
"""

FREQUENCIES = 4
"""The picture is the first 4 x 4 coefficients of a cosine transform without the constant one."""

# Landmarks of the Face Landmarker.
_OUTER_EYES = (33, 263)
_LIPS = (13, 14)
_MOUTH_CORNERS = (61, 291)
_LIDS = ((159, 145), (386, 374))


def fingerprint(times_s: Sequence[float], faces: Sequence[UsableFace]) -> bytes:
    """The fingerprint of a track.

    Args:
        times_s: presentation times, rising; one before 0 counts as 0.
        faces: what was measured at these times; at least one.

    Returns:
        `SAMPLE`s in time order.

    Raises:
        ValueError: there is no face, or not one time for each.
    """
    if not faces or len(times_s) != len(faces):
        raise ValueError(
            f"a fingerprint needs one time for each face, got {len(times_s)} times and {len(faces)} faces"
        )
    samples = np.zeros(len(faces), SAMPLE)
    poses = [face.landmarks.pose for face in faces]
    points = np.stack([face.landmarks.points[:, :2] for face in faces]).astype(np.float64)
    samples["time_ms"] = np.round(np.maximum(times_s, 0) * 1000)
    samples["pose"] = _int16(np.array([(p.yaw, p.pitch, p.roll) for p in poses]) * 100)
    samples["place"] = _int16(_place(points) * 1000)
    samples["expression"] = _int8(_expression(points) * (100, 100, 500))
    samples["picture"] = _int8(_picture(np.stack([face.face.thumbnail for face in faces])) * 127)
    return samples.tobytes()


def samples_of(data: bytes) -> NDArray[np.void]:
    """The samples of a fingerprint.

    Args:
        data: from `fingerprint`.

    Returns:
        (N,) `SAMPLE`s.

    Raises:
        ValueError: it is not a whole number of samples.
    """
    if len(data) % SAMPLE.itemsize:
        raise ValueError(f"a fingerprint of {len(data)} bytes is not made of samples of {SAMPLE.itemsize}")
    return np.frombuffer(data, SAMPLE)


def _place(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 3) of (N, 478, 2) landmarks: x and y in face sizes, logarithm of the size, each from its median."""
    centre = points.mean(axis=1)
    sizes = np.sqrt(((points - centre[:, None]) ** 2).sum(axis=2).mean(axis=1))
    size = float(np.median(sizes))
    if size <= 0:
        return np.zeros((len(points), 3))
    place = np.column_stack([centre / size, np.log(np.maximum(sizes, 1e-6))])
    placed: NDArray[np.float64] = place - np.median(place, axis=0)
    return placed


def _expression(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 3): opening of the mouth, its width and opening of the eyes, in distances between the outer eyes."""

    def length(pair: tuple[int, int]) -> NDArray[np.float64]:
        distance: NDArray[np.float64] = np.linalg.norm(points[:, pair[0]] - points[:, pair[1]], axis=1)
        return distance

    eyes = np.mean([length(pair) for pair in _LIDS], axis=0)
    return (
        np.column_stack([length(_LIPS), length(_MOUTH_CORNERS), eyes])
        / np.maximum(length(_OUTER_EYES), 1e-6)[:, None]
    )


def _picture(thumbnails: Floats) -> NDArray[np.float64]:
    """(N, 15): the lowest frequencies of (N, THUMBNAIL ** 2) thumbnails, each scaled to length 1."""
    cosines = np.cos(
        np.pi * np.outer(np.arange(FREQUENCIES), np.arange(THUMBNAIL) + 0.5) / THUMBNAIL
    )  # discrete cosine transform, type II
    cosines[0] /= np.sqrt(2)
    square = thumbnails.reshape(-1, THUMBNAIL, THUMBNAIL).astype(np.float64)
    found = np.einsum("ar,nrc,bc->nab", cosines, square, cosines).reshape(len(square), -1)[:, 1:]
    scaled: NDArray[np.float64] = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)
    return scaled


def _int16(values: NDArray[np.float64]) -> NDArray[np.int16]:
    return np.clip(np.round(values), -32767, 32767).astype(np.int16)


def _int8(values: NDArray[np.float64]) -> NDArray[np.int8]:
    return np.clip(np.round(values), -127, 127).astype(np.int8)
