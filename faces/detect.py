"""What all face detectors have in common: pictures on canvases in, faces in the pictures' own pixels out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cache
from itertools import groupby

import cv2
import numpy as np
from numpy.typing import NDArray

from faces.canvas import Canvas, canvas_side, place_on_canvas
from faces.onnx_session import BatchedSession, Output
from faces.types import Detection, Floats, Image

NMS_IOU = 0.4
Faces = tuple[Floats, Floats, Floats]
"""Boxes (F, 4) as x0, y0, x1, y1, scores (F,) and keypoints (F, 5, 2)."""


class CanvasDetector(ABC):
    """A network that finds faces on canvases.

    Args:
        session: the network.
        size: longest side of the canvas, in pixels.
        min_score: faces below this score are dropped.
        least_face_px: see `faces.canvas.canvas_side`.
    """

    def __init__(self, session: BatchedSession, size: int, min_score: float, least_face_px: float) -> None:
        self.size = size
        self._session = session
        self._min_score = min_score
        self._least_face_px = least_face_px

    def detect(self, image: Image) -> list[Detection]:
        """All faces of `image`, best score first, in pixels of `image`."""
        return self.detect_all([image])[0]

    def detect_all(self, images: list[Image]) -> list[list[Detection]]:
        """The faces of each of N images; those of one size run in one batch."""
        found: list[list[Detection]] = []
        for _, same_size in groupby(images, key=lambda image: image.shape):
            found += self._detect_all(list(same_size))
        return found

    def _detect_all(self, images: list[Image]) -> list[list[Detection]]:
        side = canvas_side(images[0], self.size, self._least_face_px)
        canvases = [place_on_canvas(image, side) for image in images]
        outputs = self._session.run(self._planes([canvas.rgb for canvas in canvases]))
        return [
            _detections(canvas, *distinct(self._candidates(canvas, output)))
            for canvas, output in zip(canvases, outputs, strict=True)
        ]

    @abstractmethod
    def _planes(self, canvases: list[NDArray[np.uint8]]) -> Floats:
        """The network's input, (N, 3, H, W)."""

    @abstractmethod
    def _candidates(self, canvas: Canvas, output: Output) -> list[Faces]:
        """What reaches the least score on one canvas, in its pixels, grid after grid."""


def distinct(found: list[Faces]) -> Faces:
    """The best of the predictions of each face (non-maximum suppression)."""
    boxes, scores, keypoints = (np.concatenate(parts) for parts in zip(*found, strict=True))
    corner_and_size = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    kept = cv2.dnn.NMSBoxes(corner_and_size.tolist(), scores.tolist(), 0.0, NMS_IOU)
    rows = np.array(kept, dtype=np.intp).reshape(-1)
    return boxes[rows], scores[rows], keypoints[rows]


@cache
def grid_cells(rows: int, columns: int) -> Floats:
    """(rows * columns, 2): x and y of each cell of a grid."""
    y, x = np.mgrid[:rows, :columns]
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)


def planes_of(canvases: list[NDArray[np.uint8]], scale: float, mean: float, to_bgr: bool) -> Floats:
    """Float planes (N, 3, H, W) of (value - mean) * scale."""
    planes: Floats = cv2.dnn.blobFromImages(
        canvases, scale, canvases[0].shape[1::-1], (mean, mean, mean), swapRB=to_bgr
    )
    return planes


def _detections(canvas: Canvas, boxes: Floats, scores: Floats, keypoints: Floats) -> list[Detection]:
    """Faces in original pixels, best first; of equal scores the left one first, so the order is fixed."""
    corners = canvas.to_original(boxes.reshape(-1, 2, 2)).reshape(-1, 4)
    points = canvas.to_original(keypoints)
    order = np.lexsort((corners[:, 0], -scores))
    return [Detection(corners[i], float(scores[i]), points[i]) for i in order]
