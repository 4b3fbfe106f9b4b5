"""Wrong labels of the collections: what the embeddings say against, and what a look at the images confirmed.

An image is suspect when both embedders find it far from the other images of its label. Only images that were
looked at are listed in WRONG_LABELS and left out; the embeddings alone would remove the hard genuine pairs as
well.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from labelled_faces import LabelledFaces
from numpy.typing import NDArray

from faces.types import Floats

WRONG_LABELS = Path(__file__).with_name("linking_faces_wrong_labels.tsv")
"""Tab-separated: path of the image below the directory of the collections, and what is wrong."""
FAR = {"sface": 0.30, "mobilefacenet": 0.20}
"""Cosine with the median direction of a label below which an image is far from it."""
TRIM_ROUNDS = 3


@dataclass(frozen=True)
class Suspect:
    """An image that is far from its label's others.

    Attributes:
        row: of the image.
        own: cosine with its own label's others, by embedder.
        nearest: the nearest other label and its cosine, by embedder.
    """

    row: int
    own: dict[str, float]
    nearest: dict[str, tuple[str, float]]


def wrong_labels(path: Path = WRONG_LABELS) -> dict[str, str]:
    """What is wrong with each image that was found wrong, by its file."""
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    return dict(line.split("\t", 1) for line in lines if line)


def suspects(faces: LabelledFaces) -> list[Suspect]:
    """The images that every embedder finds far from their label, the farthest first."""
    rows = np.flatnonzero(faces.found)
    names, label = np.unique(faces.person[rows], return_inverse=True)
    own: dict[str, Floats] = {}
    nearest: dict[str, tuple[NDArray[np.int64], Floats]] = {}
    for embedder, vectors in faces.embeddings.items():
        centres = _centres(vectors[rows], label, len(names))
        cosines = vectors[rows] @ centres.T
        own[embedder] = cosines[np.arange(len(rows)), label].copy()
        cosines[np.arange(len(rows)), label] = -1.0
        nearest[embedder] = cosines.argmax(axis=1), cosines.max(axis=1)
    far = np.all([own[each] < FAR.get(each, min(FAR.values())) for each in own], axis=0)
    closer = np.all([nearest[each][1] > own[each] + 0.1 for each in own], axis=0)
    found = [
        Suspect(
            int(rows[place]),
            {each: float(own[each][place]) for each in own},
            {
                each: (str(names[which[place]]), float(cosine[place]))
                for each, (which, cosine) in nearest.items()
            },
        )
        for place in np.flatnonzero(far | closer)
    ]
    return sorted(found, key=lambda suspect: sum(suspect.own.values()))


def alike_labels(faces: LabelledFaces, embedder: str, most: int) -> list[tuple[str, str, float]]:
    """The pairs of labels whose centres are most alike: two names, the cosine."""
    rows = np.flatnonzero(faces.found)
    names, label = np.unique(faces.person[rows], return_inverse=True)
    centres = _centres(faces.embeddings[embedder][rows], label, len(names))
    cosines = np.triu(centres @ centres.T, k=1)
    best = np.argsort(cosines, axis=None)[::-1][:most]
    pairs = zip(*np.unravel_index(best, cosines.shape), strict=True)
    return [(str(names[a]), str(names[b]), float(cosines[a, b])) for a, b in pairs]


def _centres(vectors: Floats, label: NDArray[np.int64], count: int) -> Floats:
    """(count, D) unit vectors: the mean of each label, in which far images have less and less weight."""
    weight = np.ones(len(vectors), np.float32)
    centres = np.zeros((count, vectors.shape[1]), np.float32)
    for _ in range(TRIM_ROUNDS):
        centres[:] = 0
        np.add.at(centres, label, vectors * weight[:, None])
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
        weight = np.einsum("ij,ij->i", vectors, centres[label]).clip(0) ** 2
    return centres
