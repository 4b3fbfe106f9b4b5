"""The vision tower of CLIP, as open_clip builds it: returns patch tokens and can run on a subset of patches.

The projection of the class token is removed, because patch tokens do not depend on it. So every parameter gets a
gradient, as DDP requires.

Letters in names give the shape:
    B  images       C  colour channels (3, RGB)    S  side of an image in pixels    F  numbers of a patch (3·p·p)
    P  patches      V  visible patches             D  channels of a token
    L  tokens       H  attention heads             E  channels of a head
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from training.models.sizes import ModelSize

# Mean and deviation of CLIP's training images (open_clip.constants.OPENAI_DATASET_MEAN, OPENAI_DATASET_STD).
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class ClipTower(nn.Module):
    """Patch tokens of images. Random weights, as open_clip initialises them, until `clip_weights` loads others."""

    mean_C11: torch.Tensor
    std_C11: torch.Tensor

    def __init__(self, size: ModelSize) -> None:
        from open_clip.transformer import VisionTransformer

        super().__init__()
        self.size = size
        self.visual = VisionTransformer(
            image_size=size.side,
            patch_size=size.patch,
            width=size.width,
            layers=size.layers,
            heads=size.heads,
            mlp_ratio=size.mlp_ratio,
            output_dim=1,
        )
        self.visual.proj = None
        for block in self.visual.transformer.resblocks:
            block.attn = PackedAttention(block.attn)
        self.reset_constants()

    def reset_constants(self) -> None:
        """Set the buffers that no file holds; call it again for a tower made on the meta device."""
        self.register_buffer("mean_C11", torch.tensor(CLIP_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std_C11", torch.tensor(CLIP_STD)[:, None, None], persistent=False)

    def forward(
        self,
        pixels_BCSS: torch.Tensor,
        visible_BV: torch.Tensor | None = None,
        *,
        class_token: bool = False,
        hidden_D: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Tokens behind the last norm.

        Args:
            pixels_BCSS: in [0, 1]; normalised here.
            visible_BV: int64, indices of the visible patches, in row-major order; all patches when None. The
                others are dropped before anything is computed from them.
            class_token: whether to return the class token, as the first token.
            hidden_D: takes the place of the embedding of every patch that is not visible, so that all positions
                pass through the tower.

        Returns:
            (B, V, D), or (B, P, D) without `visible_BV` or with `hidden_D`; with the class token, one more.
        """
        visual = self.visual
        patches_BPF = to_patches((pixels_BCSS - self.mean_C11) / self.std_C11, self.size.patch)
        if visible_BV is not None:
            patches_BPF = patches_BPF.take_along_dim(visible_BV[..., None], dim=1)
        # Equals the convolution with stride p over patches of p x p, and can skip patches.
        kernel_DF = visual.conv1.weight.flatten(1)
        # FSDP's mixed precision changes the dtype of the weights, not that of tensors computed here.
        tokens_BLD = functional.linear(patches_BPF.to(kernel_DF.dtype), kernel_DF)
        positions = visual.positional_embedding.to(tokens_BLD.dtype)
        positions_BLD = positions[None, 1:]
        if visible_BV is not None:
            places_BVP = one_hot(visible_BV, self.size.patches, positions.dtype)
            if hidden_D is None:
                positions_BLD = places_BVP @ positions[1:]
            else:
                tokens_BLD = scattered(tokens_BLD, places_BVP, hidden_D)
        first_B1D = (visual.class_embedding.to(tokens_BLD.dtype) + positions[0]).expand(
            len(tokens_BLD), 1, -1
        )
        tokens_BLD = torch.cat([first_B1D, tokens_BLD + positions_BLD], dim=1)
        tokens_BLD = visual.transformer(visual.ln_pre(tokens_BLD))
        return visual.ln_post(tokens_BLD if class_token else tokens_BLD[:, 1:])


class PackedAttention(nn.Module):
    """Self-attention with the parameters of `nn.MultiheadAttention`, under the same names, and fewer copies.

    torch's module puts the sequence dimension first, which copies its input, all queries, keys and values, and its
    output. It also computes differently in training and in evaluation.

    Args:
        attention: the module whose parameters are used.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads = attention.num_heads
        self.in_proj_weight = attention.in_proj_weight
        self.in_proj_bias = attention.in_proj_bias
        self.out_proj = attention.out_proj

    def forward(
        self, tokens_BLD: torch.Tensor, *_: torch.Tensor, need_weights: bool = False, attn_mask: None = None
    ) -> tuple[torch.Tensor, None]:
        """Self-attention with the signature that open_clip's blocks call; no mask, no attention weights."""
        assert not need_weights  # noqa: S101 - open_clip never asks for them
        assert attn_mask is None  # noqa: S101
        packed_BL3D = functional.linear(tokens_BLD, self.in_proj_weight, self.in_proj_bias)
        query_BHLE, key_BHLE, value_BHLE = packed_BL3D.unflatten(-1, (3, self.heads, -1)).permute(
            2, 0, 3, 1, 4
        )
        found_BHLE = functional.scaled_dot_product_attention(query_BHLE, key_BHLE, value_BHLE)
        return self.out_proj(found_BHLE.transpose(1, 2).flatten(2)), None


def to_patches(pixels_BCSS: torch.Tensor, patch: int) -> torch.Tensor:
    """Cut images into patches: (B, P, F), in row-major order; F is ordered channel, row, column."""
    rows_BCSSp = pixels_BCSS.unflatten(-1, (-1, patch))
    grid_BCGpGp = rows_BCSSp.unflatten(2, (-1, patch))
    return grid_BCGpGp.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def from_patches(patches_BPF: torch.Tensor, patch: int) -> torch.Tensor:
    """Images (B, 3, S, S) from their patches; the inverse of `to_patches`."""
    grid = round(patches_BPF.shape[1] ** 0.5)
    grid_BGGCpp = patches_BPF.unflatten(1, (grid, grid)).unflatten(3, (-1, patch, patch))
    return grid_BGGCpp.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def one_hot(numbers_BV: torch.Tensor, patches: int, dtype: torch.dtype) -> torch.Tensor:
    """One-hot rows (B, V, P) of indices.

    A product with them gathers rows, and with the transpose scatters them. Unlike that of indexing, the gradient
    is a product again: fast and deterministic.
    """
    return (numbers_BV[..., None] == torch.arange(patches, device=numbers_BV.device)).to(dtype)


def scattered(tokens_BVD: torch.Tensor, places_BVP: torch.Tensor, hidden_D: torch.Tensor) -> torch.Tensor:
    """Tokens at their places among all patches, (B, P, D), and `hidden_D` at the others.

    Args:
        tokens_BVD: of the visible patches.
        places_BVP: their places, as `one_hot` gives them.
        hidden_D: of any floating-point type.
    """
    places_BPV = places_BVP.mT
    hidden_BP1 = 1 - places_BPV.sum(dim=2, keepdim=True)
    return places_BPV @ tokens_BVD + hidden_BP1 * hidden_D.to(tokens_BVD.dtype)


def patches_shown(visible_BV: torch.Tensor, size: ModelSize) -> torch.Tensor:
    """Mask of the pixels in the visible patches: (B, S, S), 1 or 0."""
    shown_BP1 = one_hot(visible_BV, size.patches, torch.float32).sum(dim=1)[..., None]
    return from_patches(shown_BP1.expand(-1, -1, size.patch**2), size.patch)[:, 0]
