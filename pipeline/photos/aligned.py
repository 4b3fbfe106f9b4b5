"""Measures faces that were cut out already: the whole image is stored, so no square is placed around the face."""

from __future__ import annotations

from dataclasses import replace

from faces.crop import Square
from faces.types import Detection
from pipeline.decode.frames import Frame
from pipeline.stages.observe import FaceObservation, FaceObserver, is_extreme
from pipeline.stopwatch import Stopwatch
from shards.schema import Reason


class AlignedObserver(FaceObserver):
    """As `FaceObserver`, for images that are crops: what of the face lies outside of them is no fault."""

    def _observe(self, frame: Frame, detection: Detection, watch: Stopwatch) -> FaceObservation:
        config, image = self._config, frame.image
        square = central_square(image.shape[1], image.shape[0])
        seen = FaceObservation(frame.index, frame.time_s, detection, square=square)
        if config.min_px is not None and detection.face_px < config.min_px:
            return replace(seen, reason=Reason.FACE_TOO_SMALL)
        if square.side < config.min_crop_px:
            return replace(seen, reason=Reason.CROP_TOO_SMALL)
        with watch.step("landmarks"):
            landmarks = self._landmarker.find(image, detection.box)
        if landmarks is None:
            return replace(seen, reason=Reason.NO_LANDMARKS)
        seen = replace(seen, pose=landmarks.pose)
        if is_extreme(landmarks.pose, config):
            return replace(seen, reason=Reason.EXTREME_POSE)
        return self._measure(seen, image, landmarks, square, watch)


def central_square(width: int, height: int) -> Square:
    """The largest square in the middle of an image: all of it where it is square.

    Args:
        width: of the image, in pixels.
        height: of the image, in pixels.
    """
    side = min(width, height)
    return Square((width - side) // 2, (height - side) // 2, side)
