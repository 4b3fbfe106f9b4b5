"""The Omni-ID encoder: any number of photographs of one person in, a fixed number of identity tokens out.

It needs neither the trainer nor a data set:

    from training.models.encoder import OmniIDEncoder

    encoder = OmniIDEncoder.from_pretrained("runs/mtd/encoder").eval()
    tokens = encoder(pixels)  # (B, M, 3, side, side) in [0, 1] -> (B, queries, width)

`pixels` are M crops of each of B people, cut out as the data set's images are (shards/README.md, `crop_px`), RGB
between 0 and 1, `encoder.size.side` pixels a side. People with fewer photographs are filled up with any pixels,
and `valid` of shape (B, M) says which are real.

Letters in names give the shape:
    B  people    M  photographs of a person, at most    C  colour channels (3, RGB)    S  side in pixels
    P  patches of a photograph    L  identity tokens    D  channels of a token
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

import torch
from torch import nn

from training.models.blocks import CrossAttentionBlock, SelfAttentionBlock, initialise
from training.models.clip import ClipTower
from training.models.pretrained import encoder_folder, read_size, read_weights, write_encoder
from training.models.sizes import ModelSize


class OmniIDEncoder(nn.Module):
    """CLIP's tokens of all photographs are keys and values; learned queries gather the identity from them.

    The order of the photographs makes no difference, and nothing in it knows how many there are.

    Source: Omni-ID, section 3.2.
    """

    def __init__(self, size: ModelSize) -> None:
        super().__init__()
        self.size = size
        self.clip = ClipTower(size)
        self.query_LD = nn.Parameter(torch.empty(size.queries, size.width))
        self.cross = nn.ModuleList(CrossAttentionBlock(size) for _ in range(size.cross_blocks))
        self.mix = nn.ModuleList(SelfAttentionBlock(size) for _ in range(size.self_blocks))
        self.norm = nn.LayerNorm(size.width)
        # As large as CLIP's tokens: smaller queries would be drowned by what the blocks add, and all become alike.
        nn.init.normal_(self.query_LD)
        initialise([*self.cross, *self.mix], size.width)

    def forward(self, pixels_BMCSS: torch.Tensor, valid_BM: torch.Tensor | None = None) -> torch.Tensor:
        """Identity tokens of B people.

        Padding is computed and then ignored. To leave it out would need a number of images that is known on the
        device only: the host would wait for it in every step, and a compiled network would meet new shapes. With
        the paper's fixed three inputs there is none; with one to five, the tower does two thirds more than needed.

        Args:
            pixels_BMCSS: in [0, 1].
            valid_BM: bool, False where there is no photograph; all are real when None. A row without any gives
                tokens that mean nothing.

        Returns:
            (B, L, D).
        """
        tokens_BMPD = self.clip(pixels_BMCSS.flatten(0, 1)).unflatten(0, pixels_BMCSS.shape[:2])
        mask_B11K = None
        if valid_BM is not None:
            # Attention over nothing is not a number, which would reach every gradient.
            seen_BM = valid_BM | ~valid_BM.any(dim=1, keepdim=True)
            mask_B11K = seen_BM.repeat_interleave(tokens_BMPD.shape[2], dim=1)[:, None, None, :]
        keys_BKD = tokens_BMPD.flatten(1, 2)
        tokens_BLD = self.query_LD.to(keys_BKD.dtype).expand(len(keys_BKD), -1, -1)
        for block in self.cross:
            tokens_BLD = block(tokens_BLD, keys_BKD, mask_B11K)
        for block in self.mix:
            tokens_BLD = block(tokens_BLD)
        return self.norm(tokens_BLD)

    def blocks(self) -> Iterator[nn.Module]:
        """The transformer blocks."""
        yield from self.clip.visual.transformer.resblocks
        yield from self.cross
        yield from self.mix

    def save_pretrained(self, folder: Path | str, weights: Mapping[str, torch.Tensor] | None = None) -> None:
        """Write the encoder to a folder that `from_pretrained` reads, in place of one that is there.

        Args:
            folder: made when missing.
            weights: what to write instead of the encoder's own weights, such as their average over a training.

        Raises:
            ValueError: `weights` are not those of such an encoder.
            OutOfSpace: the disk or the quota is full.
        """
        expected = self.state_dict()
        write_encoder(Path(folder), self.size, expected, expected if weights is None else weights)

    @classmethod
    def from_pretrained(cls, name: Path | str, revision: str | None = None) -> Self:
        """Load an encoder that `save_pretrained` wrote.

        Args:
            name: its folder, or `owner/name` of a repository of the Hugging Face hub that holds the same files.
            revision: of the repository: a commit, which pins the weights, or a tag or branch, which may be moved.
                When None, the newest commit, which may be another one tomorrow.

        Raises:
            TrainingError: there is none, or it is damaged, or of a newer format; the message says what to do.
            OutOfSpace: the hub's files do not fit on the disk.
        """
        folder = encoder_folder(name, revision)
        size = read_size(folder)
        # On the meta device: initial weights that are replaced at once would take longer than the file.
        with torch.device("meta"):
            encoder = cls(size)
        encoder.load_state_dict(read_weights(folder, encoder.state_dict()), strict=True, assign=True)
        encoder.clip.reset_constants()
        return encoder
