"""Everything there is to know of each face in one frame, and the first reason to drop it.

The checks stand in order of cost, and a face that fails one is not measured further: a crowd of small faces
costs one detection.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import simplejpeg

from faces.align import align_112
from faces.crop import Square, cut, shows_whole_face, square_for
from faces.landmarks import FaceLandmarker
from faces.quality import brightness, noise, sharpness
from faces.types import Detection, Detector, Embedder, FaceLandmarks, Floats, HeadPose, Image
from pipeline.config import Faces
from pipeline.stages.decode import Frame
from pipeline.stopwatch import Stopwatch
from shards.schema import Reason


@dataclass(frozen=True)
class UsableFace:
    """What only a face that passed every check has."""

    landmarks: FaceLandmarks
    sharpness: float
    embedding: Floats
    square: Square
    jpeg: bytes
    """The stored image. Encoding all usable faces is cheap, and saves decoding the video a second time."""


@dataclass
class Measured:
    """What was measured on a face that was dropped, before it was dropped."""

    pose: HeadPose | None = None
    square: Square | None = None
    sharpness: float | None = None


@dataclass(frozen=True)
class FaceObservation:
    """One face in one frame."""

    frame: int
    time_s: float
    detection: Detection
    usable: UsableFace | None = None
    reason: Reason | None = None
    """Why it is not usable."""
    measured: Measured | None = None
    """Of a face that is not usable."""


class FaceObserver:
    """Finds and measures the faces of a frame.

    Args:
        detector: finds faces.
        landmarker: finds landmarks and pose in a face.
        embedder: tells people apart.
        config: what a usable face is.
        jpeg_quality: of the stored images.
    """

    def __init__(
        self,
        detector: Detector,
        landmarker: FaceLandmarker,
        embedder: Embedder,
        config: Faces,
        jpeg_quality: int,
    ) -> None:
        self._detector = detector
        self._landmarker = landmarker
        self._embedder = embedder
        self._config = config
        self._jpeg_quality = jpeg_quality

    def observe(self, frame: Frame, watch: Stopwatch) -> list[FaceObservation]:
        """All faces of a frame, best detection first."""
        with watch.step("detect"):
            detections = self._detector.detect(frame.image)
        return [self._observe(frame, detection, watch) for detection in detections]

    def _observe(self, frame: Frame, detection: Detection, watch: Stopwatch) -> FaceObservation:
        measured = Measured()
        found = self._measure(frame, detection, measured, watch)
        if isinstance(found, Reason):
            return FaceObservation(frame.index, frame.time_s, detection, reason=found, measured=measured)
        return FaceObservation(frame.index, frame.time_s, detection, usable=found)

    def _measure(
        self, frame: Frame, detection: Detection, measured: Measured, watch: Stopwatch
    ) -> UsableFace | Reason:
        config, image = self._config, frame.image
        height, width = image.shape[:2]
        if detection.face_px < config.min_px:
            return Reason.FACE_TOO_SMALL
        with watch.step("landmarks"):
            landmarks = self._landmarker.find(image, detection.box)
        if landmarks is None:
            return Reason.NO_LANDMARKS
        square = square_for(landmarks.points, width, height, config.crop_scale)
        measured.pose, measured.square = landmarks.pose, square
        if not shows_whole_face(landmarks.points, square, width, height):
            return Reason.FACE_CUT_OFF
        if is_extreme(landmarks.pose, config):
            return Reason.EXTREME_POSE
        with watch.step("filter"):
            picture = check_picture(image, detection.box, config)
        if isinstance(picture, Reason):
            measured.sharpness = sharpness(image, detection.box)
            return picture
        with watch.step("embed"):
            embedding = self._embedder.embed([align_112(image, detection.keypoints)])[0]
        with watch.step("crop"):
            jpeg = simplejpeg.encode_jpeg(
                np.ascontiguousarray(cut(image, square)), self._jpeg_quality, "RGB", "444"
            )
        return UsableFace(landmarks, picture, embedding, square, jpeg)


def check_picture(image: Image, box: Floats, config: Faces) -> float | Reason:
    """Sharpness of a face, or what is wrong with its picture.

    Noise comes before sharpness because it passes for it: a noisy frame would make its sound neighbours look
    blurred.
    """
    if brightness(image, box) < config.min_brightness:
        return Reason.TOO_DARK
    if noise(image, box) > config.max_noise:
        return Reason.NOISY
    sharp = sharpness(image, box)
    return sharp if sharp >= config.min_sharpness else Reason.BLURRED


def is_extreme(pose: HeadPose, config: Faces) -> bool:
    """Whether the head is turned further than the configuration admits."""
    return (
        abs(pose.yaw) > config.max_yaw
        or abs(pose.pitch) > config.max_pitch
        or abs(pose.roll) > config.max_roll
    )
