"""SCRFD in onnxruntime, in batches; insightface turns its outputs into boxes and keypoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from faces.canvas import Canvas
from faces.detect import CanvasDetector, Faces, grid_cells, planes_of
from faces.onnx_session import BatchedSession, Output
from faces.types import Floats

STRIDES = (8, 16, 32)
ANCHORS = 2
"""Predictions of each cell."""


class Scrfd(CanvasDetector):
    """Insightface's SCRFD (`det_10g.onnx` and its smaller relatives with keypoints).

    Args:
        path: ONNX file.
        size: longest side of the canvas, in pixels.
        min_score: faces below this score are dropped.
        device: "cpu" or "cuda".
        least_face_px: see `faces.canvas.canvas_side`.

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
        session = BatchedSession(path, device, split=_of_each_image)
        if len(session.output_names) != 3 * len(STRIDES):
            raise ValueError(
                f"{path} is not an SCRFD with keypoints and three strides (9 outputs, not "
                f"{len(session.output_names)}); use a network of the kind 'bnkps'"
            )
        super().__init__(session, size, min_score, least_face_px)

    def _planes(self, canvases: list[NDArray[np.uint8]]) -> Floats:
        return planes_of(canvases, scale=1 / 128, mean=127.5, to_bgr=False)

    def _candidates(self, canvas: Canvas, output: Output) -> list[Faces]:
        height, width = canvas.rgb.shape[:2]
        scores, boxes, keypoints = (list(output.values())[first : first + 3] for first in (0, 3, 6))
        return [
            self._of_grid(
                grid_cells(height // stride, width // stride).repeat(ANCHORS, axis=0), stride, *of_stride
            )
            for stride, *of_stride in zip(STRIDES, scores, boxes, keypoints, strict=True)
        ]

    def _of_grid(
        self, anchors: Floats, stride: int, scores: Floats, boxes: Floats, keypoints: Floats
    ) -> Faces:
        from insightface.model_zoo.scrfd import distance2bbox, distance2kps

        rows = np.flatnonzero(scores[:, 0] >= self._min_score)
        centres = anchors[rows] * stride
        points = distance2kps(centres, keypoints[rows] * stride).reshape(-1, 5, 2)
        return distance2bbox(centres, boxes[rows] * stride), scores[rows, 0], points


def _of_each_image(output: Floats, count: int) -> Floats:
    """(N, P, C) of an output for N images: most exports put the images of a batch inside of the cells."""
    if output.ndim == 3:
        return output
    by_cell = output.reshape(-1, count, ANCHORS, output.shape[-1])
    return by_cell.transpose(1, 0, 2, 3).reshape(count, -1, output.shape[-1])
