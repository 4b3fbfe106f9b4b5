"""Identity embeddings of aligned faces.

An embedding does not depend on the other faces of a call: see `faces.onnx_session.BatchedSession`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from faces.catalogue import Normalisation
from faces.onnx_session import BatchedSession, DeviceFailure
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
        self._session = BatchedSession(network, device)
        outputs = self._session.output_names
        if len(outputs) != 1:
            raise ValueError(f"{name}: expected one output, a vector, got {', '.join(outputs)}")
        try:
            (found,) = self._session.run(np.zeros((1, 3, 112, 112), np.float32))
        except DeviceFailure:
            raise
        except Exception as error:
            raise ValueError(f"{name}: the network does not take images of 112 x 112: {error}") from error
        vector = found[outputs[0]]
        if len(vector) != 1:
            raise ValueError(f"{name}: expected one vector for an image, got an array of {vector.shape}")
        self.dimensions = int(vector.shape[1])

    def embed(self, faces: list[Image]) -> Floats:
        """Unit vectors (N, D) for N aligned RGB faces of 112 x 112 (`faces.align.align_112`).

        Raises:
            ValueError: a face has another shape.
            FloatingPointError: the network gave a vector without a direction.
        """
        vectors = np.empty((len(faces), self.dimensions), np.float32)
        if not faces:
            return vectors
        planes = np.concatenate([normalise(face, self.normalisation) for face in faces])
        for row, output in enumerate(self._session.run(planes)):
            (vector,) = (found[0].astype(np.float64) for found in output.values())
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
        device: "cpu" or "cuda".
        name: what the records call it.
        same_person_cosine: at or above this cosine, two faces are taken for one person's; OpenCV's default.

    Source: Zhong et al., "SFace: sigmoid-constrained hypersphere loss for robust face recognition", 2021.
    """

    def __init__(
        self, path: Path, device: str = "cpu", name: str = "sface", same_person_cosine: float = 0.363
    ) -> None:
        super().__init__(name, runnable_sface(path), "none", same_person_cosine, device)
