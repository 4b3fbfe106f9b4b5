"""Whose photograph it is: which of the faces in it is that of the person whose directory holds it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from faces.types import Detection
from pipeline.photos.config import PhotoSource
from pipeline.rejection import Rejection
from shards.schema import Reason


def subject_of(faces: Sequence[Detection], width: int, height: int, config: PhotoSource) -> int | Rejection:
    """The place of the person's face among the faces of a photograph.

    Args:
        faces: that were found.
        width: of the photograph, in pixels.
        height: of the photograph, in pixels.
        config: how it is decided.

    Returns:
        The place, or `NO_FACE`, or `SEVERAL_FACES` where it is not clear.
    """
    if not faces:
        return Rejection(Reason.NO_FACE)
    if config.aligned or config.subject == "central":
        middle = np.array((width, height)) / 2
        return int(np.argmin([np.linalg.norm((face.box[:2] + face.box[2:]) / 2 - middle) for face in faces]))
    sizes = np.array([face.face_px for face in faces])
    largest = int(sizes.argmax())
    others = np.delete(sizes, largest)
    if others.size and others.max() >= config.max_other_face * sizes[largest]:
        shown = ", ".join(f"{size:.0f}" for size in sorted(sizes, reverse=True)[:5])
        return Rejection(Reason.SEVERAL_FACES, f"{len(faces)} faces of {shown} px")
    return largest
