"""One face of each image of a labelled collection: where it is, how it is turned, and its embeddings.

A collection is a directory with one directory of images for each person. Of several faces in an image, the
labelled person's is taken to be the one nearest to the centre, of those at least half as large as the largest.
What the networks find is kept in parts of PART images, so that a stopped run resumes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from faces.align import align_112
from faces.landmarks import FaceLandmarker
from faces.photograph import read_photograph
from faces.types import Detection, Detector, Embedder, Floats, Image

COLLECTIONS = ("lfw_deepfunneled_ge8", "pins105")
PART = 500
"""Images of a part of the cache."""
NEARLY_LARGEST = 0.5
"""Least size of a face that can be the labelled person's, as a fraction of the largest face's."""

Columns = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class LabelledFaces:
    """N images of the collections, in the order of their files.

    Attributes:
        files: (N,) path of each below the directory of the collections: "pins105/Tom_Hardy/Tom_Hardy_0001.jpg".
        collection: (N,) name of its collection.
        person: (N,) label; a person who is in both collections has one label.
        faces: (N,) number of faces that the detector finds.
        keypoints: (N, 5, 2) in pixels; NaN where there is no face.
        face_px: (N,) size of the face in pixels.
        pose: (N, 3) yaw, pitch, roll in degrees; NaN where there are no landmarks.
        embeddings: unit vectors (N, D) by embedder; zeros where there is no face.
    """

    files: NDArray[np.str_]
    collection: NDArray[np.str_]
    person: NDArray[np.str_]
    faces: NDArray[np.int64]
    keypoints: Floats
    face_px: Floats
    pose: Floats
    embeddings: dict[str, Floats]

    @property
    def found(self) -> NDArray[np.bool_]:
        """(N,) whether there is a face."""
        return self.faces > 0


def labelled_face(detections: list[Detection], image: Image) -> Detection | None:
    """The face that an image's label speaks of; None when there is no face.

    Args:
        detections: all faces of the image.
        image: (H, W, 3).
    """
    if not detections:
        return None
    height, width = image.shape[:2]
    centre = np.array([width / 2, height / 2])
    largest = max(each.face_px for each in detections)
    large = [each for each in detections if each.face_px >= NEARLY_LARGEST * largest]
    return min(large, key=lambda each: float(np.linalg.norm((each.box[:2] + each.box[2:]) / 2 - centre)))


def load(
    root: Path,
    cache: Path,
    *,
    detector: tuple[str, Detector],
    landmarker: FaceLandmarker,
    embedders: dict[str, Embedder],
    report: Callable[[str], None],
) -> LabelledFaces:
    """Find and embed the faces of all collections below a directory.

    Args:
        root: directory that holds the directories of COLLECTIONS.
        cache: directory for what the networks find.
        detector: its name and the network.
        landmarker: gives the pose.
        embedders: by name.
        report: receives the progress.

    Raises:
        FileNotFoundError: a collection is not there.
    """
    files = [path for name in COLLECTIONS for path in _images(root, name)]
    cache.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(files), PART)
    found: list[Columns] = []
    vectors: dict[str, list[Floats]] = {name: [] for name in embedders}
    for start in starts:
        part = files[start : start + PART]
        digest = _digest(root, part)
        located = _kept(
            cache / f"faces_{detector[0]}_{digest}.npz", partial(_locate, part, detector[1], landmarker)
        )
        found.append(located)
        keypoints = np.asarray(located["keypoints"], np.float32)
        for name, embedder in embedders.items():
            kept = _kept(
                cache / f"vectors_{detector[0]}_{name}_{digest}.npz",
                partial(_embed, part, keypoints, embedder),
            )
            vectors[name].append(np.asarray(kept["vectors"], np.float32))
        report(f"{min(start + PART, len(files))} of {len(files)} images")
    names = [path.relative_to(root) for path in files]
    return LabelledFaces(
        files=np.array([str(name) for name in names]),
        collection=np.array([name.parts[0] for name in names]),
        person=np.array([name.parts[1] for name in names]),
        faces=np.concatenate([part["faces"] for part in found]).astype(np.int64),
        keypoints=np.concatenate([part["keypoints"] for part in found]).astype(np.float32),
        face_px=np.concatenate([part["face_px"] for part in found]).astype(np.float32),
        pose=np.concatenate([part["pose"] for part in found]).astype(np.float32),
        embeddings={name: np.concatenate(parts) for name, parts in vectors.items()},
    )


def _images(root: Path, collection: str) -> list[Path]:
    folder = root / collection
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is not a directory. Pass the directory that contains {collection}."
        )
    return sorted(folder.glob("*/*.jpg"))


def _digest(root: Path, files: list[Path]) -> str:
    """Names a part by its files and their sizes."""
    text = "\n".join(f"{path.relative_to(root)} {path.stat().st_size}" for path in files)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _kept(path: Path, make: Callable[[], Columns]) -> Columns:
    """What the file holds, made first when it is not there."""
    if not path.is_file():
        columns = make()
        unfinished = path.with_suffix(f".{os.getpid()}.part")
        with unfinished.open("wb") as stream:
            np.savez_compressed(stream, **columns)  # type: ignore[arg-type]
        unfinished.replace(path)
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files}


def _locate(files: list[Path], detector: Detector, landmarker: FaceLandmarker) -> Columns:
    count = len(files)
    faces, face_px = np.zeros(count, np.int64), np.zeros(count, np.float32)
    keypoints = np.full((count, 5, 2), np.nan, np.float32)
    pose = np.full((count, 3), np.nan, np.float32)
    for row, path in enumerate(files):
        image = read_photograph(path)
        detections = detector.detect(image)
        face = labelled_face(detections, image)
        if face is None:
            continue
        faces[row], face_px[row], keypoints[row] = len(detections), face.face_px, face.keypoints
        landmarks = landmarker.find(image, face.box)
        if landmarks is not None:
            pose[row] = landmarks.pose.yaw, landmarks.pose.pitch, landmarks.pose.roll
    return {"faces": faces, "face_px": face_px, "keypoints": keypoints, "pose": pose}


def _embed(files: list[Path], keypoints: Floats, embedder: Embedder) -> Columns:
    rows = [row for row in range(len(files)) if np.isfinite(keypoints[row]).all()]
    aligned = [align_112(read_photograph(files[row]), keypoints[row]) for row in rows]
    some = embedder.embed(aligned)
    vectors = np.zeros((len(files), some.shape[1]), np.float32)
    vectors[rows] = some
    return {"vectors": vectors}
