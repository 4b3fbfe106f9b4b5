"""A face that the embedder looks at only when a decision depends on it.

An embedding costs as much as landmarks and detection together, and most frames of a track show the same face a
fraction of a second later. So a track is held together by what costs nothing: where the face is, and whether its
picture looks like the one before. Embeddings are made where that is not enough, at anchors along the track, and
of the images that may be chosen.
"""

from __future__ import annotations

from functools import cached_property

import cv2
import numpy as np

from faces.types import Embedder, Floats, Image

THUMBNAIL = 16
"""Side, in pixels, at which two pictures of a face are compared."""


class AlignedFace:
    """A face as the embedder expects it.

    Args:
        image: (112, 112, 3) RGB, from `faces.align.align_112`.
        embedder: computes its embedding when it is first asked for.
    """

    def __init__(self, image: Image, embedder: Embedder) -> None:
        self._image = image
        self._embedder = embedder

    @cached_property
    def embedding(self) -> Floats:
        """(D,) unit vector."""
        vector: Floats = self._embedder.embed([self._image])[0]
        return vector

    @property
    def is_embedded(self) -> bool:
        """Whether the embedding has been computed."""
        return "embedding" in self.__dict__

    def similarity(self, other: AlignedFace) -> float:
        """Correlation of the two pictures, -1 to 1: near 1 for one face a moment later, low for another face."""
        return float(self.thumbnail @ other.thumbnail)

    @cached_property
    def thumbnail(self) -> Floats:
        """(THUMBNAIL ** 2,) grey picture, centred and scaled to length 1; zeros for one without contrast."""
        grey = cv2.cvtColor(self._image, cv2.COLOR_RGB2GRAY)
        small = cv2.resize(grey, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA).astype(np.float32)
        small -= small.mean()
        norm = float(np.linalg.norm(small))
        thumbnail: Floats = (small / norm if norm > 0 else small).reshape(-1)
        return thumbnail
