"""Looks at one photograph: the faces in it, which one is its person's, and whether that one is usable."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import simplejpeg

from faces.align import align_512
from faces.landmarks import FaceLandmarker
from faces.profiles import load_detector, load_embedder, load_quality
from faces.registry import Weights
from faces.types import Image, QualityMetric
from pipeline.decode.frames import Frame
from pipeline.photos.aligned import AlignedObserver
from pipeline.photos.config import PhotosConfig
from pipeline.photos.subject import subject_of
from pipeline.rejection import Rejection
from pipeline.stages.observe import FaceObservation, FaceObserver
from pipeline.stages.score import SCORE_DIGITS
from pipeline.stopwatch import Stopwatch
from shards.schema import Quality, Reason

SHARPNESS = "sharpness"
"""Name of the metric where no quality network is configured."""


@dataclass(frozen=True)
class Look:
    """What a photograph shows.

    Attributes:
        faces: number of faces that were found.
        subject: the face of the person, usable; None where there is none.
        rejection: why there is none.
        dropped: the other faces, by reason; of a photograph without a usable subject, all of them.
    """

    faces: int
    subject: FaceObservation | None
    rejection: Rejection | None
    dropped: Counter[Reason] = field(default_factory=Counter)


class PhotographAnalyser:
    """The networks that look at photographs, loaded once.

    Args:
        config: of the dataset.
        weights: the networks' files, by name.
    """

    def __init__(self, config: PhotosConfig, weights: Weights) -> None:
        models, faces, device = config.models, config.faces, config.run.device
        detector = load_detector(
            models.detector, weights, device, size=faces.detection_side, min_score=faces.min_score
        )
        observer = AlignedObserver if config.source.aligned else FaceObserver
        self._observer = observer(
            detector,
            FaceLandmarker(weights[models.landmarker].path),
            load_embedder(models.embedder, weights, device),
            faces,
            config.shards.jpeg_quality,
        )
        self._source = config.source
        self._metric: QualityMetric | None = (
            None if models.quality is None else load_quality(models.quality, weights, device)
        )

    def look(self, frame: int, image: Image) -> Look:
        """Measure the faces of a photograph.

        Args:
            frame: place of the photograph among its person's.
            image: (H, W, 3) RGB.
        """
        height, width = image.shape[:2]
        (found,) = self._observer.observe([Frame(frame, float(frame), image)], Stopwatch())
        place = subject_of([face.detection for face in found], width, height, self._source)
        if isinstance(place, Rejection):
            return Look(len(found), None, place, Counter({place.reason: len(found)} if found else {}))
        dropped = Counter({Reason.BYSTANDER: len(found) - 1} if len(found) > 1 else {})
        subject = found[place]
        if subject.usable is not None:
            return Look(len(found), subject, None, dropped)
        reason = subject.reason or Reason.INTERNAL_ERROR
        dropped[reason] += 1
        return Look(len(found), None, Rejection(reason, _figures(subject)), dropped)

    def quality(self, face: FaceObservation) -> Quality:
        """The score of a usable face, from the bytes that will be stored."""
        assert face.usable is not None  # noqa: S101 - by the caller
        if self._metric is None:
            return Quality(metric=SHARPNESS, value=round(face.usable.sharpness, 2), higher_is_better=True)
        image: Image = simplejpeg.decode_jpeg(face.usable.jpeg, "RGB")
        if self._metric.aligned:
            keypoints = face.usable.square.to_crop(face.detection.keypoints)
            image = align_512(image, keypoints.astype(np.float32))
        value = round(float(self._metric.score([image])[0]), SCORE_DIGITS)
        return Quality(metric=self._metric.name, value=value, higher_is_better=self._metric.higher_is_better)


def _figures(face: FaceObservation) -> str:
    """What was measured of a face that was dropped."""
    parts = [f"face of {face.detection.face_px:.0f} px"]
    parts += [f"crop of {face.crop_px} px"] if face.crop_px is not None else []
    if face.pose is not None:
        parts.append(f"yaw {face.pose.yaw:.0f}, pitch {face.pose.pitch:.0f}, roll {face.pose.roll:.0f}")
    parts += [f"sharpness {face.sharpness:.1f}"] if face.sharpness is not None else []
    return ", ".join(parts)
