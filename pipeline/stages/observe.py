"""Measures each face in one frame, and finds the first reason to drop it.

The checks run in order of cost, and a face that fails one is not measured further: a crowd of small faces costs
one detection. One measurement is for the report alone: the head crop of a face that is below the gate, but
not below every gate that the report compares.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import simplejpeg

from faces.align import align_112
from faces.crop import Square, cut, shows_whole_face, square_for
from faces.landmarks import FaceLandmarker
from faces.quality import brightness, noise, sharpness
from faces.types import Detection, Detector, Embedder, FaceLandmarks, Floats, HeadPose, Image
from pipeline.config import Faces
from pipeline.decode.frames import Frame
from pipeline.stages.gate import GATES_PX, largest_crop
from pipeline.stages.recognition import AlignedFace
from pipeline.stopwatch import Stopwatch
from shards.schema import Box, Reason


@dataclass(frozen=True)
class UsableFace:
    """Measurements of a face that passed every check."""

    landmarks: FaceLandmarks
    sharpness: float
    face: AlignedFace
    square: Square
    jpeg: bytes
    """The stored image. All usable faces are encoded: its size tells of its detail, and pixels fill memory."""


@dataclass(frozen=True)
class FaceObservation:
    """One face in one frame."""

    frame: int
    time_s: float
    detection: Detection
    usable: UsableFace | None = None
    reason: Reason | None = None
    """Why it is not usable."""
    pose: HeadPose | None = None
    """None without landmarks, as are the fields below."""
    square: Square | None = None
    """The head crop, in source pixels."""
    sharpness: float | None = None
    """Known of usable and of blurred faces."""

    @property
    def crop_px(self) -> int | None:
        """Side of the head crop in source pixels; None without landmarks, and for crops below all gates."""
        return None if self.square is None else self.square.side


class FaceObserver:
    """Finds and measures the faces of a frame.

    Args:
        detector: finds faces.
        landmarker: finds landmarks and pose in a face.
        embedder: computes identity embeddings, of the faces for which one is asked.
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

    def observe(
        self, frames: list[Frame], watch: Stopwatch, region: Box | None = None
    ) -> list[list[FaceObservation]]:
        """All faces of each frame of one video, best detection first.

        Args:
            frames: of the video.
            watch: counts the time.
            region: where the source has annotated the person, as fractions of the frame; a face whose centre is
                outside of it is another's.
        """
        with watch.step("detect"):
            detections = self._detector.detect_all([frame.image for frame in frames])
        return [
            [
                self._observe(frame, detection, watch)
                for detection in of_frame
                if region is None or _is_in(detection.box, region, frame.image)
            ]
            for frame, of_frame in zip(frames, detections, strict=True)
        ]

    def _observe(self, frame: Frame, detection: Detection, watch: Stopwatch) -> FaceObservation:
        config, image = self._config, frame.image
        height, width = image.shape[:2]
        seen = FaceObservation(frame.index, frame.time_s, detection)
        small_box = config.min_px is not None and detection.face_px < config.min_px
        reachable = largest_crop(detection.face_px, width, height, config.crop_scale)
        if reachable < min(config.min_crop_px, *GATES_PX):
            return replace(seen, reason=Reason.FACE_TOO_SMALL if small_box else Reason.CROP_TOO_SMALL)
        with watch.step("landmarks"):
            landmarks = self._landmarker.find(image, detection.box)
        if landmarks is None:
            return replace(seen, reason=Reason.FACE_TOO_SMALL if small_box else Reason.NO_LANDMARKS)
        square = square_for(landmarks.points, width, height, config.crop_scale)
        seen = replace(seen, pose=landmarks.pose, square=square)
        if small_box:
            return replace(seen, reason=Reason.FACE_TOO_SMALL)
        if reason := self._unsuitable(landmarks, square, width, height):
            return replace(seen, reason=reason)
        return self._measure(seen, image, landmarks, square, watch)

    def _unsuitable(self, landmarks: FaceLandmarks, square: Square, width: int, height: int) -> Reason | None:
        """Why the head crop or the pose is rejected; looks at no pixel."""
        if square.side < self._config.min_crop_px:
            return Reason.CROP_TOO_SMALL
        if not shows_whole_face(landmarks.points, square, width, height):
            return Reason.FACE_CUT_OFF
        return Reason.EXTREME_POSE if is_extreme(landmarks.pose, self._config) else None

    def _measure(
        self, seen: FaceObservation, image: Image, landmarks: FaceLandmarks, square: Square, watch: Stopwatch
    ) -> FaceObservation:
        detection = seen.detection
        with watch.step("filter"):
            reason = check_exposure(image, detection.box, self._config)
            if reason is not None:
                return replace(seen, reason=reason)
            sharp = sharpness(image, detection.box)
        seen = replace(seen, sharpness=sharp)
        if sharp < self._config.min_sharpness:
            return replace(seen, reason=Reason.BLURRED)
        with watch.step("crop"):
            face = AlignedFace(align_112(image, detection.keypoints), self._embedder)
            jpeg = simplejpeg.encode_jpeg(
                np.ascontiguousarray(cut(image, square)), self._jpeg_quality, "RGB", "444"
            )
        return replace(seen, usable=UsableFace(landmarks, sharp, face, square, jpeg))


def _is_in(box: Floats, region: Box, image: Image) -> bool:
    height, width = image.shape[:2]
    x, y = (box[0] + box[2]) / 2 / width, (box[1] + box[3]) / 2 / height
    x0, y0, x1, y1 = region
    return bool(x0 <= x <= x1 and y0 <= y <= y1)


def check_exposure(image: Image, box: Floats, config: Faces) -> Reason | None:
    """Why a face's picture is too dark or too noisy to use; None when it is usable.

    Noise is checked before sharpness because it looks like sharpness: a noisy frame would make its intact
    neighbours look blurred.
    """
    if brightness(image, box) < config.min_brightness:
        return Reason.TOO_DARK
    if noise(image, box) > config.max_noise:
        return Reason.NOISY
    return None


def is_extreme(pose: HeadPose, config: Faces) -> bool:
    """Whether the head is turned further than the configuration allows."""
    return (
        abs(pose.yaw) > config.max_yaw
        or abs(pose.pitch) > config.max_pitch
        or abs(pose.roll) > config.max_roll
    )
