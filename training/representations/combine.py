"""Several images of a person for a representation that encodes one image at a time.

`concat` is the default: the decoders' attention chooses among the tokens of all images, as an IP-Adapter's does
with several image prompts, and nothing is lost. `mean` gives as many tokens as one image; of patch tokens, whose
positions differ from pose to pose, it blurs what they show.

Letters in names give the shape:
    B  identities    M  images of one    P  tokens of an image    D  channels of a token
    K  tokens of all images, M P
"""

from __future__ import annotations

from typing import Literal

import torch

Combine = Literal["concat", "mean"]


def combined(tokens_BMPD: torch.Tensor, valid_BM: torch.Tensor | None, how: Combine) -> torch.Tensor:
    """One sequence of tokens an identity: (B, M P, D), or (B, P, D) by the mean over real images.

    Args:
        tokens_BMPD: of each image.
        valid_BM: bool, False where there is no image; all are real when None. `concat` needs all to be real.
        how: see above.
    """
    if how == "concat":
        return tokens_BMPD.flatten(1, 2)
    if valid_BM is None:
        return tokens_BMPD.mean(dim=1)
    real_BM11 = valid_BM[:, :, None, None].to(tokens_BMPD.dtype)
    return (tokens_BMPD * real_BM11).sum(dim=1) / real_BM11.sum(dim=1).clamp(min=1)


def key_mask(valid_BM: torch.Tensor | None, tokens: int) -> torch.Tensor | None:
    """Which keys of an attention over the tokens of all images are seen, (B, 1, 1, K); None when all are.

    Args:
        valid_BM: as in `combined`.
        tokens: P.
    """
    if valid_BM is None:
        return None
    # Attention over nothing is not a number, which would reach every gradient.
    seen_BM = valid_BM | ~valid_BM.any(dim=1, keepdim=True)
    return seen_BM.repeat_interleave(tokens, dim=1)[:, None, None, :]
