"""Decoder 1, the masked transformer decoder: it redraws a face of which it sees a few patches, from the identity.

A target is cut into patches of `size.patch` pixels, of which `size.kept(mask_ratio)` are seen: with the paper's
size and ratio, 12 of 256 patches of 14 pixels. The loss of a target is the mean absolute difference over the
pixels of its face mask and their three channels, in units where 0 is black and 1 is white; a pixel on the outline
of the mask counts for the part of it that is face, and a mask of less than one pixel as one pixel. So a target
without a face has loss 0, and it counts as a target: how many there are follows from the batch's shape.

Letters in names give the shape:
    B  people       M  inputs, at most            N  targets        K  stored images (8)
    C  colours (3)  S  side of a target in pixels  P  patches        V  patches that are seen
    L  identity tokens    D  channels of a token
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from training.config import Config, Mtd
from training.data.batch import Batch
from training.models.blocks import CrossAttentionBlock, SelfAttentionBlock, initialise
from training.models.clip import ClipTower, from_patches, one_hot
from training.models.clip_weights import load_clip
from training.models.encoder import OmniIDEncoder
from training.models.masking import visible_patches
from training.models.pixels import face_share, pixels
from training.models.sizes import SIZES, ModelSize


class MaskedTransformerDecoder(nn.Module):
    """The encoder's architecture, with queries from what is seen of a target and keys from the identity.

    Source: Omni-ID, section 3.3.
    """

    def __init__(self, size: ModelSize) -> None:
        super().__init__()
        self.size = size
        self.clip = ClipTower(size)
        self.mask_token_D = nn.Parameter(torch.empty(size.width))
        self.position_PD = nn.Parameter(grid_positions(size.grid, size.width))
        self.cross = nn.ModuleList(CrossAttentionBlock(size) for _ in range(size.cross_blocks))
        self.mix = nn.ModuleList(SelfAttentionBlock(size) for _ in range(size.self_blocks))
        self.norm = nn.LayerNorm(size.width)
        self.to_pixels = nn.Linear(size.width, 3 * size.patch**2)
        initialise([*self.cross, *self.mix], size.width)
        nn.init.normal_(self.mask_token_D, std=size.width**-0.5)
        # The first drawing is nearly CLIP's mean colour, from which all others are near.
        nn.init.normal_(self.to_pixels.weight, std=0.2 * size.width**-0.5)
        nn.init.zeros_(self.to_pixels.bias)

    def forward(
        self, targets_BNCSS: torch.Tensor, visible_BNV: torch.Tensor, tokens_BLD: torch.Tensor
    ) -> torch.Tensor:
        """Draw the targets.

        The tower runs on the patches that are seen and on nothing else: with the paper's numbers, on a twentieth.

        Args:
            targets_BNCSS: in [0, 1]; nothing but the visible patches is looked at.
            visible_BNV: int64, numbers of the patches that are seen.
            tokens_BLD: identity tokens.

        Returns:
            (B, N, 3, S, S), black at 0 and white at 1, neither of them a limit.
        """
        size, (people, targets) = self.size, targets_BNCSS.shape[:2]
        visible_IV = visible_BNV.flatten(0, 1)
        seen_IVD = self.clip(targets_BNCSS.flatten(0, 1), visible_IV)
        places_IPV = one_hot(visible_IV, size.patches, seen_IVD.dtype).mT
        hidden_IP1 = 1 - places_IPV.sum(dim=2, keepdim=True)
        query_IPD = places_IPV @ seen_IVD + hidden_IP1 * self.mask_token_D.to(seen_IVD.dtype)
        query_IPD = query_IPD + self.position_PD.to(seen_IVD.dtype)
        # All targets of a person look at the same keys: as one long sequence they share the work on the keys.
        query_BQD = query_IPD.unflatten(0, (people, targets)).flatten(1, 2)
        tokens_BLD = tokens_BLD.to(seen_IVD.dtype)
        for block in self.cross:
            query_BQD = block(query_BQD, tokens_BLD)
        query_IPD = query_BQD.unflatten(1, (targets, size.patches)).flatten(0, 1)
        for block in self.mix:
            query_IPD = block(query_IPD)
        patches_IPF = self.to_pixels(self.norm(query_IPD))
        drawn_ICSS = from_patches(patches_IPF, size.patch).float() * self.clip.std_C11 + self.clip.mean_C11
        return drawn_ICSS.unflatten(0, (people, targets))

    def blocks(self) -> Iterator[nn.Module]:
        """The transformer blocks."""
        yield from self.clip.visual.transformer.resblocks
        yield from self.cross
        yield from self.mix


def grid_positions(grid: int, width: int) -> torch.Tensor:
    """Where each patch of a square grid lies, (P, D): sines and cosines of its row, then of its column.

    The positions are learned from here on. They begin as large as the tokens that they are added to, and patches
    that are near each other begin alike. Source: the positions of masked autoencoders (He et al., 2021).
    """
    frequencies = 10_000.0 ** -(torch.arange(width // 4) / (width // 4))
    angles = torch.arange(grid)[:, None] * frequencies
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows, columns = waves[:, None].expand(-1, grid, -1), waves[None].expand(grid, -1, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)


@dataclass(frozen=True)
class Drawing:
    """The targets of a batch and what was drawn for them."""

    drawn_BNCSS: torch.Tensor
    targets_BNCSS: torch.Tensor
    face_BNSS: torch.Tensor
    """Share of each pixel that is face."""
    visible_BNV: torch.Tensor
    """Numbers of the patches that were seen."""
    loss_BN: torch.Tensor
    """Mean absolute difference over the face; 0 for damaged samples and where there is no face."""


class MtdStage(nn.Module):
    """Encoder and decoder 1 in training."""

    frozen_digest = ""
    METHODS = ("identify", "draw")
    """Methods besides `forward` that run the network; whoever wraps it (FSDP) must know them."""

    def __init__(self, size: ModelSize, mtd: Mtd) -> None:
        super().__init__()
        self.size = size
        self.kept = size.kept(mtd.mask_ratio)
        self.encoder = OmniIDEncoder(size)
        self.decoder = MaskedTransformerDecoder(size)

    def forward(self, batch: Batch) -> torch.Tensor:
        """The sum of the losses of all targets of undamaged samples, () float32."""
        return self.draw(batch, self.identify(batch)).loss_BN.sum()

    def parts(self, batch: Batch) -> int:
        """How many targets the loss is a sum over."""
        undamaged = int(batch.valid_B.sum())
        return undamaged * int(batch.targets_BN.shape[1])

    def blocks(self) -> Iterator[nn.Module]:
        """The transformer blocks of both networks."""
        yield from self.encoder.blocks()
        yield from self.decoder.blocks()

    def identify(self, batch: Batch, most_inputs: int | None = None) -> torch.Tensor:
        """Identity tokens (B, L, D) from the inputs of a batch, or from the first `most_inputs` of them."""
        inputs_BM = batch.inputs_BM[:, :most_inputs]
        images_BMHHC = _pick(batch.images_BKSSC, inputs_BM)
        return self.encoder(pixels(images_BMHHC, self.size.side), batch.input_valid_BM[:, :most_inputs])

    def draw(self, batch: Batch, tokens_BLD: torch.Tensor) -> Drawing:
        """Draw the targets of a batch from identity tokens, its own or other ones."""
        side = self.size.side
        targets_BNCSS = pixels(_pick(batch.images_BKSSC, batch.targets_BN), side)
        face_BNSS = face_share(_pick(batch.masks_BKSS, batch.targets_BN), side)
        visible_BNV = visible_patches(batch.seeds_B, batch.targets_BN, self.size.patches, self.kept)
        drawn_BNCSS = self.decoder(targets_BNCSS, visible_BNV, tokens_BLD)
        counted_BNSS = face_BNSS * batch.valid_B[:, None, None, None]
        wrong_BN = ((drawn_BNCSS - targets_BNCSS).abs().mean(dim=2) * counted_BNSS).sum(dim=(2, 3))
        loss_BN = wrong_BN / counted_BNSS.sum(dim=(2, 3)).clamp(min=1)
        return Drawing(drawn_BNCSS, targets_BNCSS, face_BNSS, visible_BNV, loss_BN)


def _pick(images_BKxx: torch.Tensor, numbers_BX: torch.Tensor) -> torch.Tensor:
    rows_B1 = torch.arange(len(numbers_BX), device=numbers_BX.device)[:, None]
    return images_BKxx[rows_B1, numbers_BX]


def build_stage(config: Config) -> MtdStage:
    """The stage that a configuration describes, with its initial weights.

    CLIP's weights go into both towers. All others follow from `config.seed`, and the state of torch's generator
    stays as it was.

    Raises:
        ConfigError: the configuration's CLIP weights do not fit its size.
        TrainingError: CLIP's weights are not to be had or are not what they should be.
    """
    weights = load_clip(config.model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        stage = MtdStage(SIZES[config.model.size], config.mtd)
    if weights is not None:
        for tower in (stage.encoder.clip, stage.decoder.clip):
            tower.visual.load_state_dict(weights, strict=True)
    return stage
