"""Representations made of a face recognition network's embedding, alone or with CLIP's tokens.

Source: the baselines "ArcFace" and "ArcFace + CLIP" of Omni-ID, section 4.1; the second as IP-Adapter FaceID Plus.

Letters in names give the shape:
    B  identities    M  images of one    P  CLIP's tokens of an image    K  those of all images
    L  identity tokens    D  channels of a token    E  channels of an embedding
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional

from training.data.needs import Needs
from training.models.blocks import CrossAttentionBlock, initialise
from training.models.clip import ClipTower
from training.models.pixels import pixels
from training.models.pretrained import EncoderConfig
from training.models.sizes import ModelSize
from training.representations.base import Inputs
from training.representations.combine import Combine, combined, key_mask
from training.representations.module import RepresentationModule
from training.representations.recogniser import FaceRecogniser

WIDTH = 512
"""Channels of a token that is made of an embedding. The paper has 256 such tokens; here there are as many as the
size has queries, which is the same at the paper's."""
FACE_SIDE = 256
"""Pixels along a side of the images from which faces of 112 pixels are cut."""


class EmbeddingProjection(nn.Module):
    """A vector becomes tokens: two linear layers and a norm, as in IP-Adapter FaceID.

    Args:
        channels: E.
        tokens: L.
        width: D.
    """

    def __init__(self, channels: int, tokens: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, tokens * width)
        )
        self.norm = nn.LayerNorm(width)
        self.width = width

    def forward(self, vectors_BE: torch.Tensor) -> torch.Tensor:
        """(B, L, D)."""
        return self.norm(self.layers(vectors_BE).unflatten(-1, (-1, self.width)))


class ArcFaceRepresentation(RepresentationModule):
    """The embedding of a recognition network, projected to tokens. Only the projection is trained.

    Args:
        size: how many tokens, as Omni-ID's queries.
        recogniser: the network.
        combine: `mean` averages the embeddings of several images, `concat` gives the tokens of each.
        inputs: images of a person in its training, which `concat` keeps to; None when not known.
    """

    kind = "arcface"

    def __init__(
        self,
        size: ModelSize,
        recogniser: FaceRecogniser,
        combine: Combine = "mean",
        inputs: int | None = None,
    ) -> None:
        super().__init__(WIDTH, Needs(FACE_SIDE, keypoints=True), inputs if combine == "concat" else None)
        self.size = size
        self.combine: Combine = combine
        self.recogniser = recogniser
        self.projection = EmbeddingProjection(recogniser.width, size.queries, WIDTH)

    def features(self, inputs: Inputs) -> tuple[torch.Tensor, ...]:
        """The embedding of each image, (B, M, E)."""
        return (embeddings(self.recogniser, inputs),)

    def tokens(self, features: tuple[torch.Tensor, ...], valid_BM: torch.Tensor | None) -> torch.Tensor:
        """Identity tokens (B, L, 512), or (B, M L, 512)."""
        (vectors_BME,) = features
        if self.combine == "mean":
            return self.projection(mean_embedding(vectors_BME, valid_BM))
        return combined(self.projection(vectors_BME), None, "concat")

    def blocks(self) -> Iterator[nn.Module]:
        """None: there is no transformer in it."""
        yield from ()

    def file_config(self) -> EncoderConfig:
        """See `RepresentationModule.file_config`; the recognition network's file is named and not copied."""
        return EncoderConfig(
            kind=self.kind,
            size=self.size,
            combine=self.combine,
            recogniser=self.recogniser.name,
            recogniser_sha256=self.recogniser.sha256,
        )


class ArcFaceClipRepresentation(RepresentationModule):
    """Queries from a recognition network's embedding, keys and values from CLIP's tokens of all images.

    The queries are tokens of 512 channels, widened to CLIP's; two blocks of cross-attention follow. Neither the
    recognition network nor CLIP is trained.

    Args:
        size: of CLIP's tower, and how many queries.
        recogniser: the network.
    """

    kind = "arcface_clip"

    def __init__(self, size: ModelSize, recogniser: FaceRecogniser) -> None:
        super().__init__(size.width, Needs(max(size.side, FACE_SIDE), keypoints=True))
        self.size = size
        self.recogniser = recogniser
        self.clip = ClipTower(size).requires_grad_(False)
        self.projection = EmbeddingProjection(recogniser.width, size.queries, WIDTH)
        self.widen = nn.Linear(WIDTH, size.width)
        self.cross = nn.ModuleList(CrossAttentionBlock(size) for _ in range(size.cross_blocks))
        self.norm = nn.LayerNorm(size.width)
        initialise([*self.cross], size.width)

    def features(self, inputs: Inputs) -> tuple[torch.Tensor, ...]:
        """CLIP's tokens (B, M, P, D) and the embedding (B, M, E) of each image."""
        pixels_BMCSS = pixels(inputs.images_BMSSC, self.size.side)
        with torch.no_grad():
            tokens_NPD = self.clip(pixels_BMCSS.flatten(0, 1), class_token=True)
        return tokens_NPD.unflatten(0, pixels_BMCSS.shape[:2]), embeddings(self.recogniser, inputs)

    def tokens(self, features: tuple[torch.Tensor, ...], valid_BM: torch.Tensor | None) -> torch.Tensor:
        """Identity tokens (B, L, D)."""
        tokens_BMPD, vectors_BME = features
        mask_B11K = key_mask(valid_BM, tokens_BMPD.shape[2])
        keys_BKD = tokens_BMPD.flatten(1, 2)
        vector_BE = mean_embedding(vectors_BME, valid_BM)
        tokens_BLD = self.widen(self.projection(vector_BE))
        for block in self.cross:
            tokens_BLD = block(tokens_BLD, keys_BKD.to(tokens_BLD.dtype), mask_B11K)
        return self.norm(tokens_BLD)

    def blocks(self) -> Iterator[nn.Module]:
        """The transformer blocks."""
        yield from self.clip.visual.transformer.resblocks
        yield from self.cross

    def file_config(self) -> EncoderConfig:
        """See `RepresentationModule.file_config`; the recognition network's file is named and not copied."""
        return EncoderConfig(
            kind=self.kind,
            size=self.size,
            recogniser=self.recogniser.name,
            recogniser_sha256=self.recogniser.sha256,
        )


def embeddings(recogniser: FaceRecogniser, inputs: Inputs) -> torch.Tensor:
    """Unit vector of each image, (B, M, E)."""
    keypoints_BMK2 = inputs.keypoints_BMK2
    if keypoints_BMK2 is None:
        raise ValueError("faces cannot be aligned without keypoints")
    found_NE = recogniser(inputs.images_BMSSC.flatten(0, 1), keypoints_BMK2.flatten(0, 1))
    return found_NE.unflatten(0, keypoints_BMK2.shape[:2])


def mean_embedding(vectors_BME: torch.Tensor, valid_BM: torch.Tensor | None) -> torch.Tensor:
    """Mean over the real images, of length 1, (B, E)."""
    mean_B1E = combined(vectors_BME[:, :, None], valid_BM, "mean")
    return functional.normalize(mean_B1E[:, 0], dim=1)
