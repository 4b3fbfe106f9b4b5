"""The transformer blocks behind the CLIP tower: pre-norm, of CLIP's width, heads and feed-forward layer.

Letters in names give the shape:
    B  sequences    Q  queries    K  keys    L  Q or K    D  channels    H  heads    E  channels of a head
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from training.models.sizes import ModelSize


class Attention(nn.Module):
    """Multi-head attention of queries over keys; the same sequence twice makes it self-attention."""

    def __init__(self, size: ModelSize) -> None:
        super().__init__()
        self.heads = size.heads
        self.to_query = nn.Linear(size.width, size.width)
        self.to_key_value = nn.Linear(size.width, 2 * size.width)
        self.out = nn.Linear(size.width, size.width)

    def forward(
        self, query_BQD: torch.Tensor, key_BKD: torch.Tensor, mask_B11K: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Attend.

        Args:
            query_BQD: sequence of the queries.
            key_BKD: sequence of the keys and values.
            mask_B11K: bool, False where a key is ignored; at least one key of each row must be True.
        """
        query_BHQE = self._heads(self.to_query(query_BQD))
        key_BKD, value_BKD = self.to_key_value(key_BKD).chunk(2, dim=-1)
        found_BHQE = functional.scaled_dot_product_attention(
            query_BHQE, self._heads(key_BKD), self._heads(value_BKD), attn_mask=mask_B11K
        )
        return self.out(found_BHQE.transpose(1, 2).flatten(2))

    def _heads(self, tokens_BLD: torch.Tensor) -> torch.Tensor:
        return tokens_BLD.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Sequential):
    """Two linear layers with a GELU between them."""

    def __init__(self, size: ModelSize) -> None:
        super().__init__(
            nn.Linear(size.width, size.mlp_ratio * size.width),
            nn.GELU(),
            nn.Linear(size.mlp_ratio * size.width, size.width),
        )


class CrossAttentionBlock(nn.Module):
    """Queries attend to another sequence."""

    def __init__(self, size: ModelSize) -> None:
        super().__init__()
        self.norm_query = nn.LayerNorm(size.width)
        self.norm_key = nn.LayerNorm(size.width)
        self.attention = Attention(size)
        self.norm_feed = nn.LayerNorm(size.width)
        self.feed = FeedForward(size)

    def forward(
        self, query_BQD: torch.Tensor, key_BKD: torch.Tensor, mask_B11K: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The updated queries; see `Attention` for the mask."""
        query_BQD = query_BQD + self.attention(self.norm_query(query_BQD), self.norm_key(key_BKD), mask_B11K)
        return query_BQD + self.feed(self.norm_feed(query_BQD))


class SelfAttentionBlock(nn.Module):
    """Tokens attend to each other."""

    def __init__(self, size: ModelSize) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size.width)
        self.attention = Attention(size)
        self.norm_feed = nn.LayerNorm(size.width)
        self.feed = FeedForward(size)

    def forward(self, tokens_BLD: torch.Tensor) -> torch.Tensor:
        """The updated tokens."""
        normed_BLD = self.norm(tokens_BLD)
        tokens_BLD = tokens_BLD + self.attention(normed_BLD, normed_BLD)
        return tokens_BLD + self.feed(self.norm_feed(tokens_BLD))


def initialise(blocks: Sequence[nn.Module], width: int) -> None:
    """Initial weights of a stack of blocks, by CLIP's rule for its text tower (Radford et al., 2021).

    Each layer preserves the scale of its input at any width. Residual branches are scaled down by the square root
    of their number, so that the residual stream does not grow with depth. The 0.02 of BERT and masked autoencoders
    suits widths about 1000 only: at 128 the signal nearly vanishes, and a small run begins to learn the identity
    after twice as many steps.
    """
    added_std = (width * 2 * len(blocks)) ** -0.5
    for block in blocks:
        for module in block.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=width**-0.5)
                nn.init.zeros_(module.bias)
        nn.init.normal_(block.feed[0].weight, std=(2 * width) ** -0.5)
        nn.init.normal_(block.attention.out.weight, std=added_std)
        nn.init.normal_(block.feed[-1].weight, std=added_std)
