"""The Omni-ID encoder: encodes any number of images of one person into a fixed number of identity tokens.

It needs neither the trainer nor a dataset:

    from omniid import OmniIDEncoder, find_portraits

    encoder = OmniIDEncoder.from_pretrained("runs/mtd/encoder").eval()
    portraits = [find_portraits(photo, crop_scale=encoder.crop_scale)[0] for photo in ("anna1.jpg", "anna2.jpg")]
    tokens = encoder.encode_portraits(portraits)  # (queries, width)
    tokens = encoder(pixels)  # (B, M, 3, side, side) in [0, 1] -> (B, queries, width)

`pixels` are M crops of each of B identities, cut as the dataset's images are (shards/README.md, `crop_px`), RGB
between 0 and 1, `encoder.size.side` pixels a side. Identities with fewer images are padded with any pixels, and
`valid` of shape (B, M) says which are real.

Letters in names give the shape:
    B  identities    M  images of one, at most    I  images, B x M    C  colour channels (3, RGB)
    S  side in pixels    P  patches of an image    L  identity tokens    D  channels of a token
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Self

import torch
from torch import nn

from training.data.needs import Needs
from training.models.blocks import CrossAttentionBlock, SelfAttentionBlock, initialise
from training.models.clip import ClipTower
from training.models.pixels import pixels
from training.models.pretrained import (
    EncoderConfig,
    encoder_folder,
    read_config,
    read_size,
    read_weights,
)
from training.models.sizes import ModelSize
from training.representations.base import Inputs
from training.representations.combine import key_mask
from training.representations.module import RepresentationModule


class OmniIDEncoder(RepresentationModule):
    """CLIP's patch tokens of all images are keys and values; learned queries attend to them.

    The order of the images makes no difference, and no parameter depends on how many there are.

    Args:
        size: of the network.
        class_token: whether the class token of each image is a key and value as well.
        crop_scale: how the images of its training were cut (`faces.crop`): side of the head crop as a multiple of
            the landmarks' longer side; None when not known.

    Source: Omni-ID, section 3.2.
    """

    def __init__(
        self, size: ModelSize, crop_scale: float | None = None, *, class_token: bool = False
    ) -> None:
        super().__init__(size.width, Needs(size.side))
        self.size = size
        self.class_token = class_token
        self.crop_scale = crop_scale
        self.clip = ClipTower(size)
        self.query_LD = nn.Parameter(torch.empty(size.queries, size.width))
        self.cross = nn.ModuleList(CrossAttentionBlock(size) for _ in range(size.cross_blocks))
        self.mix = nn.ModuleList(SelfAttentionBlock(size) for _ in range(size.self_blocks))
        self.norm = nn.LayerNorm(size.width)
        # As large as CLIP's tokens: smaller queries would be drowned by what the blocks add, and all become alike.
        nn.init.normal_(self.query_LD)
        initialise([*self.cross, *self.mix], size.width)

    def forward(self, pixels_BMCSS: torch.Tensor, valid_BM: torch.Tensor | None = None) -> torch.Tensor:
        """Identity tokens of B identities.

        Padding is computed and then ignored. To leave it out would need a number of images that is known on the
        device only: the host would wait for it in every step, and a compiled network would meet new shapes. With
        the paper's fixed three inputs there is none; with one to five, the tower does two thirds more than needed.

        Args:
            pixels_BMCSS: in [0, 1].
            valid_BM: bool, False where there is no image; all are real when None. A row without any gives
                tokens without meaning.

        Returns:
            (B, L, D).
        """
        return self.tokens(self._tower(pixels_BMCSS), valid_BM)

    def features(self, inputs: Inputs) -> tuple[torch.Tensor, ...]:
        """CLIP's tokens of each image, (B, M, P, D), or (B, M, 1 + P, D) with the class token."""
        return self._tower(pixels(inputs.images_BMSSC, self.size.side))

    def tokens(self, features: tuple[torch.Tensor, ...], valid_BM: torch.Tensor | None) -> torch.Tensor:
        """See `RepresentationModule.tokens`."""
        (tokens_BMPD,) = features
        mask_B11K = key_mask(valid_BM, tokens_BMPD.shape[2])
        keys_BKD = tokens_BMPD.flatten(1, 2)
        tokens_BLD = self.query_LD.to(keys_BKD.dtype).expand(len(keys_BKD), -1, -1)
        for block in self.cross:
            tokens_BLD = block(tokens_BLD, keys_BKD, mask_B11K)
        for block in self.mix:
            tokens_BLD = block(tokens_BLD)
        return self.norm(tokens_BLD)

    def _tower(self, pixels_BMCSS: torch.Tensor) -> tuple[torch.Tensor, ...]:
        trained = any(weight.requires_grad for weight in self.clip.parameters())
        with nullcontext() if trained else torch.no_grad():
            tokens_IPD = self.clip(pixels_BMCSS.flatten(0, 1), class_token=self.class_token)
            return (tokens_IPD.unflatten(0, pixels_BMCSS.shape[:2]),)

    def blocks(self) -> Iterator[nn.Module]:
        """The transformer blocks."""
        yield from self.clip.visual.transformer.resblocks
        yield from self.cross
        yield from self.mix

    def file_config(self) -> EncoderConfig:
        """See `RepresentationModule.file_config`."""
        return EncoderConfig(size=self.size, class_token=self.class_token or None)

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
        size, config = read_size(folder), read_config(folder)
        # On the meta device: initial weights that are replaced at once would take longer than the file.
        with torch.device("meta"):
            encoder = cls(size, config.crop_scale, class_token=bool(config.class_token))
        encoder.load_state_dict(read_weights(folder, encoder.state_dict()), strict=True, assign=True)
        encoder.clip.reset_constants()
        return encoder
