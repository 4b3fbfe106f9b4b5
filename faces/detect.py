"""Face detection on a padded, reduced copy of the frame.

Both detectors were trained on pictures in which a face is a part of the scene. They miss a face that fills
the picture, as in close-ups and tight crops, unless there is a border around it. So every picture
gets a border of a quarter of its long side. Frames are reduced first because a detector's cost grows with the
area and a face worth keeping is large: only so far that the smallest one of interest is still found.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from faces.onnx_session import open_session
from faces.resize import reduced
from faces.types import Detection, Floats, Image

BORDER = 0.25
"""Border on each side, as a part of the picture's long side."""
NMS_IOU = 0.4
LEAST_SIDE = 320
"""Pixels; canvases are not made smaller than this, because boxes and keypoints become coarse."""
LEAST_FACE = 16
"""Size of a face on the canvas, in pixels, that both detectors still find."""
_STRIDE = 32
"""Both networks reduce their input by 32; a canvas of whole strides is not padded a second time."""


@dataclass(frozen=True)
class Canvas:
    """A picture on a black canvas, ready for a detector."""

    bgr: NDArray[np.uint8]  # (H, W, 3), H and W multiples of 32
    scale: tuple[float, float]  # canvas pixels per pixel of the original: x, y
    offset: tuple[float, float]  # where the picture's corner lies on the canvas: x, y

    def to_original(self, points: Floats) -> Floats:
        """Map points (..., 2) from the canvas to the original picture."""
        offset, scale = np.array(self.offset, np.float32), np.array(self.scale, np.float32)
        return cast("Floats", (points - offset) / scale)


def place_on_canvas(image: Image, size: int, border: float = BORDER) -> Canvas:
    """Reduce `image` and put a black border around it.

    Args:
        image: (H, W, 3), RGB.
        size: longest side of picture and borders together, in pixels, at least 32; smaller pictures are not
            enlarged.
        border: width of each border, as a part of the picture's long side.

    Raises:
        ValueError: the array is not an RGB image, or is empty, or `size` is too small.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"expected a uint8 RGB image (H, W, 3), got {image.dtype} of shape {image.shape}")
    if size < _STRIDE:
        raise ValueError(f"size {size} is below {_STRIDE}, the least that a detector can take")
    height, width = image.shape[:2]
    side = size // _STRIDE * _STRIDE
    scale = min(1.0, side / (max(height, width) * (1 + 2 * border)))
    reduced_w, reduced_h = max(1, int(width * scale)), max(1, int(height * scale))
    margin = int(max(reduced_w, reduced_h) * border)
    canvas_w = math.ceil((reduced_w + 2 * margin) / _STRIDE) * _STRIDE
    canvas_h = math.ceil((reduced_h + 2 * margin) / _STRIDE) * _STRIDE
    picture = image
    if (reduced_w, reduced_h) != (width, height):
        picture = reduced(image, reduced_w, reduced_h)
    bgr = np.zeros((canvas_h, canvas_w, 3), np.uint8)
    left, top = (canvas_w - reduced_w) // 2, (canvas_h - reduced_h) // 2
    bgr[top : top + reduced_h, left : left + reduced_w] = picture[..., ::-1]
    return Canvas(bgr, (reduced_w / width, reduced_h / height), (float(left), float(top)))


def canvas_side(image: Image, most: int, least_face_px: float) -> int:
    """Longest side of the canvas on which the faces of interest are large enough.

    Args:
        image: (H, W, 3).
        most: upper bound.
        least_face_px: size of the smallest face of interest, in pixels of `image`; 0 for all that can be found.
    """
    if least_face_px <= 0:
        return most
    needed = LEAST_FACE / least_face_px * max(image.shape[:2]) * (1 + 2 * BORDER)
    return int(min(most, max(LEAST_SIDE, math.ceil(needed / _STRIDE) * _STRIDE)))


def _detections(canvas: Canvas, boxes: Floats, scores: Floats, keypoints: Floats) -> list[Detection]:
    """Faces in original pixels, best first; of equal scores the left one first, so the order is fixed."""
    corners = canvas.to_original(boxes.reshape(-1, 2, 2)).reshape(-1, 4)
    points = canvas.to_original(keypoints)
    order = np.lexsort((corners[:, 0], -scores))
    return [Detection(corners[i], float(scores[i]), points[i]) for i in order]


class YuNet:
    """OpenCV Zoo's YuNet.

    Args:
        path: ONNX file.
        size: longest side of the canvas, in pixels.
        min_score: faces below this score are dropped.
        least_face_px: see `canvas_side`.

    Source: Wu et al., "YuNet: a tiny millisecond-level face detector", 2023.
    """

    def __init__(
        self, path: Path, size: int = 640, min_score: float = 0.6, least_face_px: float = 0.0
    ) -> None:
        self.size = size
        self._least_face_px = least_face_px
        level = cv2.utils.logging.getLogLevel()
        # OpenCV 5 warns once per network that its engine has a single target; there is no other one to choose.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        try:
            self._network = cv2.FaceDetectorYN.create(str(path), "", (size, size), min_score, NMS_IOU)
        finally:
            cv2.utils.logging.setLogLevel(level)

    def detect(self, image: Image) -> list[Detection]:
        """All faces of `image`, best score first, in pixels of `image`."""
        canvas = place_on_canvas(image, canvas_side(image, self.size, self._least_face_px))
        height, width = canvas.bgr.shape[:2]
        self._network.setInputSize((width, height))
        found = self._network.detect(canvas.bgr)[1]
        if found is None:
            return []
        boxes = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:4]], axis=1)
        return _detections(canvas, boxes, found[:, 14], found[:, 4:14].reshape(-1, 5, 2))


class Scrfd:
    """Insightface's SCRFD (`det_10g.onnx` and its smaller relatives with keypoints).

    Args:
        path: ONNX file.
        size: longest side of the canvas, in pixels.
        min_score: faces below this score are dropped.
        device: "cpu" or "cuda".
        least_face_px: see `canvas_side`.

    Raises:
        ValueError: the network finds boxes only, without the five keypoints that alignment needs.

    Source: Guo et al., "Sample and computation redistribution for efficient face detection", 2021.
    """

    def __init__(
        self,
        path: Path,
        size: int = 640,
        min_score: float = 0.5,
        device: str = "cpu",
        least_face_px: float = 0.0,
    ) -> None:
        from insightface.model_zoo.scrfd import SCRFD

        self.size = size
        self._least_face_px = least_face_px
        # Without model_file it keeps to this one session; with it, it opens another for every canvas shape.
        self._network: Any = SCRFD(session=open_session(path, device))
        if not self._network.use_kps:
            raise ValueError(f"{path} is an SCRFD without keypoints; use a network of the kind 'bnkps'")
        self._network.nms_thresh = NMS_IOU
        self._min_score = min_score

    def detect(self, image: Image) -> list[Detection]:
        """All faces of `image`, best score first, in pixels of `image`."""
        canvas = place_on_canvas(image, canvas_side(image, self.size, self._least_face_px))
        height, width = canvas.bgr.shape[:2]
        found, keypoints = self._network.detect(
            canvas.bgr, input_size=(width, height), det_thresh=self._min_score
        )
        return _detections(canvas, found[:, :4], found[:, 4], keypoints.astype(np.float32))
