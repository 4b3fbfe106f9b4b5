"""The transformer blocks behind the CLIP tower: pre-norm, of CLIP's width, heads and feed-forward layer.

Letters in names give the shape:
    B  sequences    Q  queries    K  keys    L  Q or K    D  channels    H  heads    E  channels of a head
"""

from __future__ import annotations

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
            query_BQD: what looks.
            key_BKD: what is looked at.
            mask_B11K: bool, False where a key is to be ignored; at least one key of each row must be True.
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
    """Queries gather what they need from another sequence."""

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
        """The queries, changed; see `Attention` for the mask."""
        query_BQD = query_BQD + self.attention(self.norm_query(query_BQD), self.norm_key(key_BKD), mask_B11K)
        return query_BQD + self.feed(self.norm_feed(query_BQD))


class SelfAttentionBlock(nn.Module):
    """Tokens exchange what they hold."""

    def __init__(self, size: ModelSize) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size.width)
        self.attention = Attention(size)
        self.norm_feed = nn.LayerNorm(size.width)
        self.feed = FeedForward(size)

    def forward(self, tokens_BLD: torch.Tensor) -> torch.Tensor:
        """The tokens, changed."""
        normed_BLD = self.norm(tokens_BLD)
        tokens_BLD = tokens_BLD + self.attention(normed_BLD, normed_BLD)
        return tokens_BLD + self.feed(self.norm_feed(tokens_BLD))


INITIAL_STD = 0.02
"""Of new weights and learned tokens, as in BERT, GPT-2 and masked autoencoders."""


def initialise(blocks: nn.ModuleList) -> None:
    """Initial weights of a stack of blocks.

    Normal with a standard deviation of 0.02 and biases of zero; what is added to the residual stream is smaller by
    the square root of the number of additions, so that the stream's variance does not grow with depth (GPT-2).
    """
    additions = 2 * len(blocks)
    for block in blocks:
        for module in block.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=INITIAL_STD)
                nn.init.zeros_(module.bias)
        for last in (block.attention.out, block.feed[-1]):
            nn.init.trunc_normal_(last.weight, std=INITIAL_STD / additions**0.5)
