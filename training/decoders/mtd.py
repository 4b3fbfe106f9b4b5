"""The masked transformer decoder (MTD): reconstructs a face from a few visible patches and the identity tokens.

A target is cut into patches of `size.patch` pixels, of which `size.kept(mask_ratio)` are visible: with the paper's
size and ratio, 12 of 256 patches of 14 pixels. The loss of a target is the mean absolute difference over the
pixels of its face mask and their three channels, in units where 0 is black and 1 is white; a pixel on the outline
of the mask counts for the part of it that is face, and a mask of less than one pixel as one pixel. So a target
without a face has loss 0, and it counts as a target: how many there are follows from the batch's shape.

Letters in names give the shape:
    B  identities   N  targets of an identity      I  images, B x N  K  stored images (8)
    C  colours (3)  S  side of a target in pixels  P  patches        V  visible patches
    L  identity tokens    D  channels of a token
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from settings.section import ConfigError
from training.data.batch import Batch, pick
from training.data.needs import Needs
from training.decoders.base import BuildContext, Column, DecoderConfig
from training.models.blocks import CrossAttentionBlock, SelfAttentionBlock, initialise
from training.models.clip import ClipTower, from_patches, one_hot, patches_shown, scattered
from training.models.masking import visible_patches
from training.models.pixels import face_share, pixels
from training.models.sizes import ModelSize

HIDDEN = 0.5
"""Grey of what the sample grid does not show."""


class MtdConfig(DecoderConfig):
    """The masked transformer decoder (Omni-ID, section 3.3)."""

    not_defining = frozenset({"validation_mask_ratio"})

    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Share of a target's patches that are masked; the paper's 0.95."""
    validation_mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """The same in validation, whatever `mask_ratio` is, so that figures of different runs can be compared."""
    tower: Literal["visible", "all"] = "visible"
    """What of a target passes through MTD's tower: the visible patches alone, as in masked autoencoders, so that
    the masked positions join in the last blocks; or all positions, mask tokens at the masked ones, which the
    paper's text allows as well. `all` takes the tower's whole work for each target."""

    def build(self, context: BuildContext) -> MaskedTransformerDecoder:
        """See `DecoderConfig.build`; CLIP's weights go into the decoder's tower too."""
        if context.width != context.size.width:
            raise ConfigError(
                f"decoders.mtd: it attends to identity tokens of {context.size.width} channels, and the "
                f"representation gives {context.width}. Use decoders.flow, or another representation.kind"
            )
        clip = None if context.shapes_only else context.clip()
        decoder = MaskedTransformerDecoder(
            context.size, self.mask_ratio, self.validation_mask_ratio, self.tower
        )
        if clip is not None:
            decoder.clip.visual.load_state_dict(clip, strict=True)
        return decoder


@dataclass(frozen=True)
class Reconstruction:
    """The targets of a batch and their reconstructions."""

    pred_BNCSS: torch.Tensor
    targets_BNCSS: torch.Tensor
    face_BNSS: torch.Tensor
    """Share of each pixel that is face."""
    visible_BNV: torch.Tensor
    """Numbers of the visible patches."""
    loss_BN: torch.Tensor
    """Mean absolute error over the face; 0 for damaged samples and where there is no face."""


class MaskedTransformerDecoder(nn.Module):
    """The encoder's architecture, with queries from the visible patches of a target and keys from the identity.

    Source: Omni-ID, section 3.3.
    """

    frozen_digest = ""

    def __init__(
        self,
        size: ModelSize,
        mask_ratio: float,
        validation_mask_ratio: float | None = None,
        tower: Literal["visible", "all"] = "visible",
    ) -> None:
        super().__init__()
        self.size = size
        self.tower = tower
        self.kept_in_training = size.kept(mask_ratio)
        self.kept_in_validation = size.kept(validation_mask_ratio or mask_ratio)
        self.needs = Needs(size.side, targets=True, masks=True)
        self.clip = ClipTower(size)
        self.mask_token_D = nn.Parameter(torch.empty(size.width))
        self.position_PD = nn.Parameter(grid_positions(size.grid, size.width))
        self.cross = nn.ModuleList(CrossAttentionBlock(size) for _ in range(size.cross_blocks))
        self.mix = nn.ModuleList(SelfAttentionBlock(size) for _ in range(size.self_blocks))
        self.norm = nn.LayerNorm(size.width)
        self.to_pixels = nn.Linear(size.width, 3 * size.patch**2)
        initialise([*self.cross, *self.mix], size.width)
        nn.init.normal_(self.mask_token_D, std=size.width**-0.5)
        # The first prediction is nearly CLIP's mean colour, which is near all images.
        nn.init.normal_(self.to_pixels.weight, std=0.2 * size.width**-0.5)
        nn.init.zeros_(self.to_pixels.bias)

    def forward(
        self, targets_BNCSS: torch.Tensor, visible_BNV: torch.Tensor, tokens_BLD: torch.Tensor
    ) -> torch.Tensor:
        """Reconstruct the targets.

        The tower runs on the visible patches alone, with the paper's numbers on a twentieth, or on all positions
        (`MtdConfig.tower`).

        Args:
            targets_BNCSS: in [0, 1]; only the visible patches are read.
            visible_BNV: int64, numbers of the visible patches.
            tokens_BLD: identity tokens.

        Returns:
            (B, N, 3, S, S), black at 0 and white at 1, neither of them a limit.
        """
        size, (identities, targets) = self.size, targets_BNCSS.shape[:2]
        visible_IV, targets_ICSS = visible_BNV.flatten(0, 1), targets_BNCSS.flatten(0, 1)
        if self.tower == "all":
            query_IPD = self.clip(targets_ICSS, visible_IV, hidden_D=self.mask_token_D)
        else:
            seen_IVD = self.clip(targets_ICSS, visible_IV)
            places_IVP = one_hot(visible_IV, size.patches, seen_IVD.dtype)
            query_IPD = scattered(seen_IVD, places_IVP, self.mask_token_D)
        query_IPD = query_IPD + self.position_PD.to(query_IPD.dtype)
        # All targets of an identity attend to the same keys: as one long sequence they share the work on the keys.
        query_BQD = query_IPD.unflatten(0, (identities, targets)).flatten(1, 2)
        tokens_BLD = tokens_BLD.to(query_IPD.dtype)
        for block in self.cross:
            query_BQD = block(query_BQD, tokens_BLD)
        query_IPD = query_BQD.unflatten(1, (targets, size.patches)).flatten(0, 1)
        for block in self.mix:
            query_IPD = block(query_IPD)
        patches_IPF = self.to_pixels(self.norm(query_IPD))
        pred_ICSS = from_patches(patches_IPF, size.patch).float() * self.clip.std_C11 + self.clip.mean_C11
        return pred_ICSS.unflatten(0, (identities, targets))

    @property
    def kept(self) -> int:
        """Visible patches of a target, in training or in evaluation."""
        return self.kept_in_training if self.training else self.kept_in_validation

    def reconstruct(self, batch: Batch, tokens_BLD: torch.Tensor) -> Reconstruction:
        """Reconstruct the targets of a batch from identity tokens, its own or others."""
        side = self.size.side
        targets_BNCSS = pixels(pick(batch.images_BKSSC, batch.targets_BN), side)
        face_BNSS = face_share(pick(batch.masks_BKSS, batch.targets_BN), side)
        visible_BNV = visible_patches(batch.seeds_B, batch.targets_BN, self.size.patches, self.kept)
        pred_BNCSS = self(targets_BNCSS, visible_BNV, tokens_BLD)
        counted_BNSS = face_BNSS * batch.valid_B[:, None, None, None]
        error_BN = ((pred_BNCSS - targets_BNCSS).abs().mean(dim=2) * counted_BNSS).sum(dim=(2, 3))
        loss_BN = error_BN / counted_BNSS.sum(dim=(2, 3)).clamp(min=1)
        return Reconstruction(pred_BNCSS, targets_BNCSS, face_BNSS, visible_BNV, loss_BN)

    def losses(self, batch: Batch, tokens_BLD: torch.Tensor) -> torch.Tensor:
        """See `Decoder.losses`."""
        return self.reconstruct(batch, tokens_BLD).loss_BN

    def columns(self, batch: Batch, tokens_BLD: torch.Tensor) -> list[Column]:
        """The visible patches of the first target, its reconstruction on the face, and the target."""
        found = self.reconstruct(batch, tokens_BLD)
        target_BCSS = found.targets_BNCSS[:, 0]
        visible_BSS = patches_shown(found.visible_BNV[:, 0], self.size)
        return [
            Column(f"{self.kept} of {self.size.patches} patches", _only(visible_BSS, target_BCSS)),
            Column("reconstruction", _only(found.face_BNSS[:, 0], found.pred_BNCSS[:, 0])),
            Column("target", target_BCSS),
        ]

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


def _only(share_BSS: torch.Tensor, images_BCSS: torch.Tensor) -> torch.Tensor:
    """The images where the share is 1, grey where it is 0."""
    share_B1SS = share_BSS[:, None]
    return share_B1SS * images_BCSS + (1 - share_B1SS) * HIDDEN
