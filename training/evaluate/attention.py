"""Where the learned queries of the Omni-ID encoder look in the input images (Omni-ID, figure 10).

Letters in names give the shape:
    R  cross-attention blocks    L  queries    M  input images    P  patches of an image    K  keys, M x P
    H  attention heads           E  channels of a head            S  side of an image in pixels
    C  colour channels (3, RGB)  G  patches along a side of an image
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from training.models.blocks import Attention
from training.representations.base import Inputs
from training.representations.omniid import OmniIDEncoder

SHOWN_SIDE = 256
"""Pixels along a side of an image in the sheet."""
IMAGE_SHARE = 0.45
"""How much of the image is seen under a map."""


@torch.no_grad()
def attention_maps(encoder: OmniIDEncoder, images_MSSC: torch.Tensor) -> torch.Tensor:
    """Attention of each query on each patch, as the mean over heads.

    Args:
        encoder: in evaluation.
        images_MSSC: uint8, RGB: the crops of one person.

    Returns:
        (R, L, M, P) float32, on the CPU. For each block and query, the values of all images' patches sum to 1, or
        to less by the attention on the class tokens of an encoder that reads them.
    """
    found: list[torch.Tensor] = []

    def note(module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(module, Attention)  # noqa: S101 - the hook is registered on nothing else
        found.append(_weights(module, arguments[0], arguments[1]))

    with ExitStack() as hooks:
        for block in encoder.cross:
            hooks.enter_context(block.attention.register_forward_pre_hook(note))
        encoder.encode(Inputs(images_MSSC[None]))
    maps_RLMP = torch.stack(found).unflatten(2, (len(images_MSSC), -1)).cpu()
    return maps_RLMP[..., 1:] if encoder.class_token else maps_RLMP


def _weights(attention: Attention, query_1LD: torch.Tensor, key_1KD: torch.Tensor) -> torch.Tensor:
    """(L, K)."""
    query_HLE = attention.to_query(query_1LD)[0].unflatten(-1, (attention.heads, -1)).transpose(0, 1)
    key_1KD = attention.to_key_value(key_1KD).chunk(2, dim=-1)[0]
    key_HKE = key_1KD[0].unflatten(-1, (attention.heads, -1)).transpose(0, 1)
    scores_HLK = query_HLE.float() @ key_HKE.float().mT / query_HLE.shape[-1] ** 0.5
    return scores_HLK.softmax(dim=-1).mean(dim=0)


def chosen_queries(maps_LMP: torch.Tensor, count: int) -> list[int]:
    """Queries that look at one place each, and at different places: greedily the most focused that differ.

    Args:
        maps_LMP: of one block.
        count: how many.

    Returns:
        Numbers of queries, the most focused first.
    """
    flat_LK = maps_LMP.flatten(1)
    entropy_L = -(flat_LK * flat_LK.clamp(min=1e-12).log()).sum(dim=1)
    unit_LK = flat_LK / flat_LK.norm(dim=1, keepdim=True)
    chosen: list[int] = []
    for number in entropy_L.argsort().tolist():
        if all(float(unit_LK[number] @ unit_LK[other]) < 0.5 for other in chosen):
            chosen.append(number)
    rest = [number for number in entropy_L.argsort().tolist() if number not in chosen]
    return [*chosen, *rest][:count]


def overlay(image_SSC: NDArray[np.uint8], map_P: NDArray[np.float32], peak: float) -> NDArray[np.uint8]:
    """An image under its attention map.

    Args:
        image_SSC: RGB.
        map_P: of the image's patches, row by row.
        peak: the value that is shown brightest.

    Returns:
        (SHOWN_SIDE, SHOWN_SIDE, 3) uint8, RGB.
    """
    side = (SHOWN_SIDE, SHOWN_SIDE)
    grid = round(len(map_P) ** 0.5)
    scaled_GG = np.clip(map_P.reshape(grid, grid) / max(peak, 1e-12), 0, 1)
    heat = cv2.applyColorMap(
        (cv2.resize(scaled_GG, side, interpolation=cv2.INTER_CUBIC).clip(0, 1) * 255).astype(np.uint8),
        cv2.COLORMAP_INFERNO,
    )[..., ::-1]
    small = cv2.resize(image_SSC, side, interpolation=cv2.INTER_AREA)
    return np.asarray(
        cv2.addWeighted(small, IMAGE_SHARE, np.ascontiguousarray(heat), 1 - IMAGE_SHARE, 0), np.uint8
    )


def attention_rows(
    images_MSSC: Sequence[NDArray[np.uint8]], maps_LMP: torch.Tensor, queries: Sequence[int]
) -> list[list[NDArray[np.uint8]]]:
    """For each query a row of images under its maps; one scale in a row, so images can be compared."""
    rows = []
    for query in queries:
        maps_MP = maps_LMP[query].numpy()
        rows.append(
            [
                overlay(image, map_P, float(maps_MP.max()))
                for image, map_P in zip(images_MSSC, maps_MP, strict=True)
            ]
        )
    return rows
