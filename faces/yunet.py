"""YuNet in onnxruntime, which takes half the time of OpenCV's own engine and runs batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from faces.canvas import Canvas
from faces.detect import CanvasDetector, Faces, grid_cells, planes_of
from faces.onnx_graph import with_float_weights, with_free_axes
from faces.onnx_session import BatchedSession, Output
from faces.types import Floats

STRIDES = (8, 16, 32)


class YuNet(CanvasDetector):
    """OpenCV Zoo's YuNet: one prediction a cell of three grids.

    Args:
        path: ONNX file.
        size: longest side of the canvas, in pixels.
        min_score: faces below this score are dropped.
        device: "cpu" or "cuda".
        least_face_px: see `faces.canvas.canvas_side`.

    Raises:
        ValueError: the file is no YuNet.

    Source: Wu et al., "YuNet: a tiny millisecond-level face detector", 2023; the decoding is that of OpenCV's
        `FaceDetectorYN`.
    """

    def __init__(
        self,
        path: Path,
        size: int = 640,
        min_score: float = 0.6,
        device: str = "cpu",
        least_face_px: float = 0.0,
    ) -> None:
        model = with_free_axes(with_float_weights(path, "a YuNet", "input"), 0, 2, 3)
        session = BatchedSession(model.SerializeToString(), device)
        expected = {f"{part}_{stride}" for part in ("cls", "obj", "bbox", "kps") for stride in STRIDES}
        if set(session.output_names) != expected:
            raise ValueError(f"{path} is not a YuNet: its outputs are {', '.join(session.output_names)}")
        super().__init__(session, size, min_score, least_face_px)

    def _planes(self, canvases: list[NDArray[np.uint8]]) -> Floats:
        return planes_of(canvases, scale=1.0, mean=0.0, to_bgr=True)

    def _candidates(self, canvas: Canvas, output: Output) -> list[Faces]:
        height, width = canvas.rgb.shape[:2]
        return [
            self._of_grid(output, stride, grid_cells(height // stride, width // stride)) for stride in STRIDES
        ]

    def _of_grid(self, output: Output, stride: int, cells: Floats) -> Faces:
        is_face, is_object = (output[f"{part}_{stride}"][:, 0].clip(0, 1) for part in ("cls", "obj"))
        scores = np.sqrt(is_face * is_object)
        rows = np.flatnonzero(scores >= self._min_score)
        box, points = output[f"bbox_{stride}"][rows], output[f"kps_{stride}"][rows]
        centre, half = (cells[rows] + box[:, :2]) * stride, np.exp(box[:, 2:]) * (stride / 2)
        keypoints = (cells[rows, None] + points.reshape(-1, 5, 2)) * stride
        return np.concatenate([centre - half, centre + half], axis=1), scores[rows], keypoints
