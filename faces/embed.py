"""Identity embeddings of aligned faces.

Faces run one by one: kernels may sum in another order at another batch size, and an embedding must not depend on
the other faces of its batch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from faces.catalogue import Normalisation
from faces.onnx_session import open_session
from faces.sface_graph import runnable_sface
from faces.types import Floats, Image

_IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)


def normalise(face: Image, how: Normalisation) -> Floats:
    """Turn an aligned face into a network's input.

    Args:
        face: (112, 112, 3), RGB.
        how: see `Normalisation`.

    Returns:
        (1, 3, 112, 112), RGB planes.

    Raises:
        ValueError: the face is not a uint8 image of 112 x 112.
    """
    if face.shape != (112, 112, 3) or face.dtype != np.uint8:
        raise ValueError(f"expected uint8 (112, 112, 3) from align_112, got {face.dtype} {face.shape}")
    pixels = face.astype(np.float32)
    if how == "arcface":
        pixels = (pixels - 127.5) / 127.5
    elif how == "imagenet":
        pixels = (pixels / 255.0 - _IMAGENET_MEAN) / _IMAGENET_STD
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], dtype=np.float32)


class OnnxEmbedder:
    """An embedder in an onnxruntime session.

    Args:
        name: what the records call it.
        network: path of an ONNX file, or a serialised model.
        normalisation: how its input is scaled.
        same_person_cosine: at or above this cosine, two faces are taken for one person's.
        device: "cpu" or "cuda".

    Raises:
        ValueError: the network does not map one image to one vector.
    """

    def __init__(
        self,
        name: str,
        network: Path | bytes,
        normalisation: Normalisation,
        same_person_cosine: float,
        device: str = "cpu",
    ) -> None:
        self.name = name
        self.normalisation = normalisation
        self.same_person_cosine = same_person_cosine
        self._session: Any = open_session(network, device)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1 or len(outputs[0].shape) != 2:
            raise ValueError(f"{name}: expected one image in and one vector out, got {inputs} and {outputs}")
        self._input: str = inputs[0].name
        self.dimensions = int(outputs[0].shape[1])

    def embed(self, faces: list[Image]) -> Floats:
        """Unit vectors (N, D) for N aligned RGB faces of 112 x 112 (`faces.align.align_112`).

        Raises:
            ValueError: a face has another shape.
            FloatingPointError: the network gave a vector without a direction.
        """
        vectors = np.empty((len(faces), self.dimensions), np.float32)
        for row, face in enumerate(faces):
            pixels = normalise(face, self.normalisation)
            vector = self._session.run(None, {self._input: pixels})[0][0].astype(np.float64)
            length = float(np.linalg.norm(vector))
            if not np.isfinite(length) or length == 0.0:
                raise FloatingPointError(f"{self.name} gave an embedding of length {length}")
            vectors[row] = vector / length
        return vectors


class ArcFace(OnnxEmbedder):
    """Insightface's ArcFace, and networks that are used like it.

    Args:
        path: ONNX file.
        device: "cpu" or "cuda".
        name: what the records call it.
        normalisation: how its input is scaled.
        same_person_cosine: at or above this cosine, two faces are taken for one person's.

    Source: Deng et al., "ArcFace: additive angular margin loss for deep face recognition", 2019.
    """

    def __init__(
        self,
        path: Path,
        device: str = "cpu",
        name: str = "arcface_r50",
        normalisation: Normalisation = "arcface",
        same_person_cosine: float = 0.35,
    ) -> None:
        super().__init__(name, path, normalisation, same_person_cosine, device)


class SFace(OnnxEmbedder):
    """OpenCV Zoo's SFace, from its block-quantised file.

    Args:
        path: ONNX file.
        name: what the records call it.
        same_person_cosine: at or above this cosine, two faces are taken for one person's; OpenCV's default.

    Source: Zhong et al., "SFace: sigmoid-constrained hypersphere loss for robust face recognition", 2021.
    """

    def __init__(self, path: Path, name: str = "sface", same_person_cosine: float = 0.363) -> None:
        super().__init__(name, runnable_sface(path), "none", same_person_cosine, "cpu")
