"""The types that the modules of this package exchange: a detection, a set of landmarks, a head pose.

Images are always uint8 arrays of shape (H, W, 3) in RGB. Points are (x, y) in pixels of the image they were
found in, x to the right, y down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""(H, W, 3), RGB."""
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Detection:
    """One face found by a detector."""

    box: Floats  # (4,): x0, y0, x1, y1
    score: float  # 0..1
    keypoints: Floats  # (5, 2): eye, eye, nose, mouth corner, mouth corner; the image's left one first

    @property
    def face_px(self) -> float:
        """Face size: the square root of the box's area."""
        width, height = self.box[2:] - self.box[:2]
        return math.sqrt(max(0.0, float(width)) * max(0.0, float(height)))


@dataclass(frozen=True)
class HeadPose:
    """Head pose in degrees; all three are 0 when the face looks straight into the camera, upright.

    Signs are as a viewer of the image sees them:
        yaw: positive when the nose points to the right side of the image.
        pitch: positive when the nose points up.
        roll: positive when the head is tilted clockwise (its top towards the right side of the image).

    In camera axes (x right, y up, z towards the viewer) the rotation that takes the frontal head to this pose
    is R = Rz(-roll) · Rx(-pitch) · Ry(yaw), each factor right-handed about the camera's fixed axes: the head
    is yawed first, then pitched, then rolled. So turning the image changes the roll and nothing
    else. `faces.pose.rotation_from_pose` is this formula; pitch 0 is that of MediaPipe's canonical face.
    """

    yaw: float
    pitch: float
    roll: float


@dataclass(frozen=True)
class FaceLandmarks:
    """Landmarks, pose and eye state of one face, by the Face Landmarker."""

    points: Floats  # (478, 3): x and y in pixels; z in the scale of x, smaller is nearer to the camera
    pose: HeadPose
    eyes_open: float  # 0 closed .. 1 open, the lower of the two eyes (1 - eyeBlink blendshape)


class Detector(Protocol):
    """Finds faces."""

    def detect(self, image: Image) -> list[Detection]:
        """All faces of `image`, best score first, in pixels of `image`."""
        ...

    def detect_all(self, images: list[Image]) -> list[list[Detection]]:
        """The faces of each of N images; the same as one by one."""
        ...


class Embedder(Protocol):
    """Maps aligned faces to identity vectors."""

    name: str

    def embed(self, faces: list[Image]) -> Floats:
        """Unit vectors (N, D) for N aligned RGB faces of 112 x 112 (`faces.align.align_112`)."""
        ...


class QualityMetric(Protocol):
    """Scores how good an image of a face is."""

    name: str
    higher_is_better: bool
    aligned: bool
    """Whether it was trained on aligned faces and needs them (`faces.align.align_512`)."""

    def score(self, faces: list[Image]) -> Floats:
        """(N,) scores for N RGB images of 512 x 512; equal lists give equal bits on the same device."""
        ...
