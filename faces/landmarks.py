"""Landmarks, head pose and eye state of a detected face, by MediaPipe's Face Landmarker.

The landmarker has its own face detector, which is short-range: it finds no face in a group photograph.
So a larger detector finds the face first, and the landmarker gets a square around it. When the landmarker's own
stages find no face there, the face counts as occluded: a face behind a hand or a microphone has no
landmarks.
"""

from __future__ import annotations

import math
import os
import re
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from faces.pose import FACE_OVAL, PoseFit
from faces.resize import reduced
from faces.types import FaceLandmarks, Floats, Image

__all__ = ["FACE_OVAL", "LANDMARKS", "FaceLandmarker", "square_around", "tessellation"]

LANDMARKS = 478
CROP_SCALE = 2.0
"""Side of the square given to the landmarker, in face sizes (square root of the detector box's area)."""
CROP_MAX_PX = 512
"""Squares of twice this side and more are reduced to it. The landmark network itself sees 256 x 256, and scales
smaller ones down faster than they could be reduced here."""
MOST_FACES = 4
"""Faces looked for in a square; neighbours often stand in it as well."""
LEAST_OVERLAP = 0.25
"""Least intersection over union of the detector's box and the landmarks' bounding box."""

# The library prints these lines on every start, at any log level. No user can act on them.
_KNOWN_CHATTER = re.compile(
    rb"Logging before InitGoogle\(\)|FaceBlendshapesGraph acceleration to xnnpack"
    rb"|Created TensorFlow Lite XNNPACK delegate|Disabling support for feedback tensors"
)


def tessellation() -> NDArray[np.intp]:
    """MediaPipe's triangulation of the face: (N, 3) landmark indices.

    Its table lists the three edges of one triangle after another.
    """
    from mediapipe.tasks.python.vision.face_landmarker import FaceLandmarksConnections

    starts = [edge.start for edge in FaceLandmarksConnections.FACE_LANDMARKS_TESSELATION]
    return np.array(starts, dtype=np.intp).reshape(-1, 3)


class FaceLandmarker:
    """Finds the 478 landmarks, the head pose and the eye state of a detected face.

    The same image and box give the same bits, in any order of calls and in any instance.

    Args:
        model: the official `face_landmarker.task` bundle.

    Raises:
        FileNotFoundError: `model` is not there.
        ValueError: `model` is not a Face Landmarker bundle.
    """

    def __init__(self, model: Path) -> None:
        from mediapipe.tasks.python import vision

        if not model.is_file():
            raise FileNotFoundError(f"no Face Landmarker bundle at {model}; `mfhq models pull` fetches it")
        options = vision.FaceLandmarkerOptions(
            base_options=_unreporting_options(model.read_bytes()),
            num_faces=MOST_FACES,
            output_face_blendshapes=True,
        )
        self._pose_fit = PoseFit(model)
        with _without_chatter():
            try:
                self._landmarker = vision.FaceLandmarker.create_from_options(options)
            except (ValueError, RuntimeError) as error:
                raise ValueError(f"{model} is not a usable Face Landmarker bundle: {error}") from error
            weakref.finalize(self, _release, self._landmarker)
            self._detect(np.zeros((64, 64, 3), np.uint8))

    def find(self, image: Image, box: Floats) -> FaceLandmarks | None:
        """Landmarks of the face in `box`, or None when the landmarker sees no face there.

        Args:
            image: (H, W, 3) RGB.
            box: (4,) x0, y0, x1, y1 of the detector, in pixels; it may reach beyond the image.

        Raises:
            ValueError: the box is empty or not finite.
        """
        x0, y0, side = square_around(box)
        if not (-side < x0 < image.shape[1] and -side < y0 < image.shape[0]):
            return None
        crop = _square_with_replicated_edges(image, x0, y0, side)
        result = self._detect(crop)
        best: FaceLandmarks | None = None
        best_overlap = LEAST_OVERLAP
        for face, blendshapes in zip(result.face_landmarks, result.face_blendshapes, strict=True):
            points = np.array([(point.x, point.y, point.z) for point in face], np.float32) * side
            points[:, :2] += np.array([x0, y0], np.float32)
            overlap = _overlap(box, np.concatenate([points[:, :2].min(0), points[:, :2].max(0)]))
            if overlap >= best_overlap:
                scores = {shape.category_name: shape.score for shape in blendshapes}
                closed = max(scores["eyeBlinkLeft"], scores["eyeBlinkRight"])
                best = FaceLandmarks(points, self._pose_fit.pose(points), eyes_open=1.0 - float(closed))
                best_overlap = overlap
        return best

    def _detect(self, crop: Image) -> Any:
        import mediapipe

        return self._landmarker.detect(
            mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(crop))
        )


def _unreporting_options(model: bytes) -> Any:
    """Options of the library without its usage reports.

    The library posts versions and timings to its maker (play.googleapis.com) and has no switch for it. Without a
    certificate authority to trust, it cannot verify any server, so it sends nothing.
    """
    from mediapipe.tasks.python.core.base_options import BaseOptions

    class UnreportingOptions(BaseOptions):  # type: ignore[misc]
        def to_ctypes(self) -> Any:
            options = super().to_ctypes()
            options.ca_bundle_path = os.devnull.encode()
            return options

    return UnreportingOptions(model_asset_buffer=model)


def _release(landmarker: Any) -> None:
    """Close the library's object in a thread of its own, because this runs wherever Python collects garbage.

    Closing waits for a thread pool. A collection can start inside of a pool's code, while this thread holds the
    lock that all pools share, and closing here would wait for ever. At exit there are neither collections nor
    threads.
    """
    if threading.main_thread().is_alive():
        threading.Thread(target=_close, args=(landmarker,), name="close a landmarker").start()
    else:
        _close(landmarker)


def _close(landmarker: Any) -> None:
    try:
        landmarker.close()
    except RuntimeError:
        # The interpreter is shutting down and the library's worker thread is gone. The library's destructor
        # would print a traceback about that. The memory is freed with the process.
        landmarker._handle = None


def square_around(box: Floats) -> tuple[int, int, int]:
    """The square that the landmarker looks at: x0, y0, side in whole pixels, centred on the box.

    Raises:
        ValueError: the box is empty or not finite.
    """
    x0, y0, x1, y1 = (float(value) for value in box)
    if not (math.isfinite(x0 + y0 + x1 + y1) and x1 > x0 and y1 > y0):
        raise ValueError(f"face box {x0}, {y0}, {x1}, {y1} is empty or not finite")
    side = max(2, round(CROP_SCALE * math.sqrt((x1 - x0) * (y1 - y0))))
    return round((x0 + x1 - side) / 2), round((y0 + y1 - side) / 2), side


def _square_with_replicated_edges(image: Image, x0: int, y0: int, side: int) -> Image:
    height, width = image.shape[:2]
    top, left = max(0, -y0), max(0, -x0)
    bottom, right = max(0, y0 + side - height), max(0, x0 + side - width)
    crop: Image = image[y0 + top : y0 + side - bottom, x0 + left : x0 + side - right]
    if top or left or bottom or right:
        crop = np.asarray(cv2.copyMakeBorder(crop, top, bottom, left, right, cv2.BORDER_REPLICATE), np.uint8)
    return reduced(crop, CROP_MAX_PX, CROP_MAX_PX) if side >= 2 * CROP_MAX_PX else crop


def _overlap(a: Floats, b: Floats) -> float:
    """Intersection over union of two boxes."""
    width, height = np.maximum(0.0, np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]))
    shared = float(width * height)
    return shared / (float(np.prod(a[2:] - a[:2])) + float(np.prod(b[2:] - b[:2])) - shared)


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Hold back what native code writes to stderr and pass on all but the known, meaningless lines.

    The library logs before it sets up its logging, so its log-level settings do not reach these lines.
    """
    sys.stderr.flush()
    real_stderr = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(real_stderr, 2)
            os.close(real_stderr)
            held_back.seek(0)
            for line in held_back:
                if not _KNOWN_CHATTER.search(line):
                    os.write(2, line)
