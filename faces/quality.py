"""How good an image of a face is: two learned or perceptual scores, and two plain measures.

pyiqa takes many seconds to import, so it is imported only when a metric is built. Nothing here downloads: TOPIQ's
network is built without pyiqa's own face detector and aligner, because the input faces are already
aligned.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np

from faces.onnx_session import DEVICES
from faces.types import Floats, Image

SHARPNESS_SIDE = 128
"""Faces are brought to this size before sharpness is measured, so that large and small faces compare."""
BATCH = {"cpu": 1, "cuda": 8}
"""Images in every forward pass of TOPIQ. No config key, because the shape changes the last bits of a score."""


class Piqe:
    """PIQE, 0 (good) to 100: blockiness, noise and blur of the active 16-pixel blocks. Needs no weights.

    Source: Venkatanath et al., "Blind image quality evaluation using perception based features", 2015.
    """

    name = "piqe"
    higher_is_better = False
    aligned = False

    def __init__(self) -> None:
        from pyiqa.archs.piqe_arch import PIQE

        self._network: Any = PIQE()

    def score(self, faces: list[Image]) -> Floats:
        """(N,) scores for N RGB images of 512 x 512; each depends on its own image alone.

        Raises:
            ValueError: an image has another shape.
            FloatingPointError: a score is not finite.
        """
        import torch

        _check_shapes(faces)
        scores = np.empty(len(faces), np.float32)
        with torch.inference_mode(), _reproducible():
            for row, face in enumerate(faces):
                # The library weighs the colours alike, in a matrix product that takes a seventh of its time.
                grey = cv2.cvtColor(face.astype(np.float32) / 255.0, cv2.COLOR_RGB2GRAY)
                planes = torch.from_numpy(grey)[None, None]
                # PIQE divides by the brightest value; black gets what any other plain colour gets.
                scores[row] = self._network(planes).item() if face.any() else 100.0
        return _finite(self.name, scores)


class TopiqFace:
    """TOPIQ trained on faces (`topiq_nr-face`), about 0 to 1, higher is better.

    Every forward pass has the same shape, `BATCH` images, the last one filled up with black: kernels are chosen
    by shape, and with another kernel the last bits of a score differ. On a CPU the batch is one image, so a score
    depends on its image alone; on a GPU it may also depend on the image's position in the list, but on no other
    image.

    Args:
        path: checkpoint in pyiqa's format, `{"params": state_dict}`.
        device: "cpu" or "cuda".

    Raises:
        ValueError: unknown device, or the file is no checkpoint of this network.
        RuntimeError: `device` is "cuda" and torch sees no GPU.

    Source: Chen et al., "TOPIQ: a top-down approach from semantics to distortions for image quality
        assessment", 2024; options as in pyiqa's `default_model_configs["topiq_nr-face"]`.
    """

    name = "topiq_nr-face"
    higher_is_better = True
    aligned = True

    def __init__(self, path: Path, device: str = "cpu") -> None:
        import torch

        if device not in DEVICES:
            raise ValueError(f"device {device!r} is not one of {', '.join(DEVICES)}")
        if device == "cuda" and not torch.cuda.is_available():
            raise RuntimeError("device 'cuda': torch sees no CUDA device; set the device to 'cpu'")
        self._device = device
        network = _cfanet()
        state = _checkpoint(path)
        try:
            network.load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise ValueError(f"{path} does not fit TOPIQ's network (CFANet, resnet50): {error}") from error
        self._network: Any = network.eval().requires_grad_(False).to(device)

    def score(self, faces: list[Image]) -> Floats:
        """(N,) scores for N RGB images of 512 x 512 (`faces.align.align_512`).

        Raises:
            ValueError: an image has another shape.
            FloatingPointError: a score is not finite.
        """
        import torch

        batch = BATCH[self._device]
        missing = -len(faces) % batch
        padded = [*faces, *[np.zeros((512, 512, 3), np.uint8)] * missing]
        scores = np.empty(len(padded), np.float32)
        with torch.inference_mode(), _reproducible():
            for start in range(0, len(padded), batch):
                mos = self._network(_planes(padded[start : start + batch], self._device))
                scores[start : start + batch] = mos.reshape(-1).float().cpu().numpy()
        return _finite(self.name, scores[: len(faces)])


def sharpness(image: Image, box: Floats) -> float:
    """Variance of the Laplacian of the face's grey values, the face brought to 128 px.

    Args:
        image: (H, W, 3), RGB.
        box: (4,): x0, y0, x1, y1 in pixels; the part outside the image is left out.

    Returns:
        The variance, >= 0; grows with sharpness, and with noise.

    Raises:
        ValueError: the box does not touch the image.

    Source: Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", 2000.
    """
    face = _grey(image, box)
    height, width = face.shape
    scale = SHARPNESS_SIDE / math.sqrt(height * width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return float(cv2.Laplacian(cv2.resize(face, size, interpolation=interpolation), cv2.CV_64F).var())


def brightness(image: Image, box: Floats) -> float:
    """Mean luma of the face, 0 to 255.

    Args:
        image: (H, W, 3), RGB.
        box: (4,): x0, y0, x1, y1 in pixels; the part outside the image is left out.

    Raises:
        ValueError: the box does not touch the image.
    """
    return float(_grey(image, box).mean())


def noise(image: Image, box: Floats) -> float:
    """Standard deviation of the noise on a face, in grey levels.

    Args:
        image: (H, W, 3), RGB.
        box: (4,): x0, y0, x1, y1 in pixels; the part outside the image is left out.

    Raises:
        ValueError: the box does not touch the image.

    Source: Donoho and Johnstone, "Ideal spatial adaptation by wavelet shrinkage", 1994: the median absolute
    diagonal Haar detail, which edges hardly change.
    """
    face = _grey(image, box).astype(np.float32)
    face = face[: face.shape[0] // 2 * 2, : face.shape[1] // 2 * 2]
    if face.size == 0:
        return 0.0
    detail = (face[::2, ::2] - face[1::2, ::2] - face[::2, 1::2] + face[1::2, 1::2]) / 2
    return float(np.median(np.abs(detail)) / 0.6745)


def _grey(image: Image, box: Floats) -> Image:
    height, width = image.shape[:2]
    x0, y0 = max(0, math.floor(box[0])), max(0, math.floor(box[1]))
    x1, y1 = min(width, math.ceil(box[2])), min(height, math.ceil(box[3]))
    if x0 >= x1 or y0 >= y1:
        raise ValueError(f"the box {np.asarray(box).tolist()} has no pixel in an image of {width} x {height}")
    return cast("Image", cv2.cvtColor(np.ascontiguousarray(image[y0:y1, x0:x1]), cv2.COLOR_RGB2GRAY))


def _planes(faces: list[Image], device: str) -> Any:
    """(N, 3, 512, 512) float32 in 0..1 on `device`."""
    import torch

    _check_shapes(faces)
    pixels = torch.from_numpy(np.stack(faces)).to(device)
    return pixels.permute(0, 3, 1, 2).float() / 255.0


def _check_shapes(faces: list[Image]) -> None:
    for face in faces:
        if face.shape != (512, 512, 3) or face.dtype != np.uint8:
            raise ValueError(f"expected uint8 images (512, 512, 3), got {face.dtype} {face.shape}")


def _finite(name: str, scores: Floats) -> Floats:
    bad = np.flatnonzero(~np.isfinite(scores))
    if bad.size:
        raise FloatingPointError(f"{name} gave no finite score for image(s) {bad.tolist()} of {len(scores)}")
    return scores


def _cfanet() -> Any:
    """TOPIQ's network for faces, untrained.

    The name only picks weights. A name with "gfiqa" also builds a face detector and a face parser, which
    download their own weights; any other name builds the same network without them.
    """
    from pyiqa.archs.topiq_arch import CFANet

    return CFANet(
        semantic_model_name="resnet50",
        model_name="topiq_nr_face_aligned",
        backbone_pretrain=False,
        pretrained=False,
        use_ref=False,
        test_img_size=512,
    )


def _checkpoint(path: Path) -> dict[str, Any]:
    import pickle

    import torch

    try:
        # weights_only: a checkpoint is data, and must not run code.
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise ValueError(f"{path} is not a checkpoint of plain tensors: {error}") from error
    if not isinstance(loaded, dict) or not isinstance(loaded.get("params"), dict):
        raise ValueError(f"{path} is not in pyiqa's format: it has no dictionary `params`")
    return {name.removeprefix("module."): tensor for name, tensor in loaded["params"].items()}


@contextmanager
def _reproducible() -> Iterator[None]:
    """On a CPU one thread, on a GPU the same algorithm every time, in full float32.

    The number of threads sets the order in which sums are formed.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_num_threads(threads)
