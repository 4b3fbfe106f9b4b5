"""What a run reads of a sample: the stream decodes nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class KeptLatents:
    """Latents in files, which a decoder reads in place of target images (`training.data.latents`).

    Attributes:
        directory: that holds the directories of all datasets and codecs; a path or a URL.
        dataset_sha256: of the dataset's metadata.
        codec: name of the codec, with the digest of its weights.
        side: of the images that are encoded, in pixels.
        shape: (C, H, H) of the latents of an image.
        dtype: of the latents, which is that of the codec.
    """

    directory: str
    dataset_sha256: str
    codec: str
    side: int
    shape: tuple[int, int, int]
    dtype: torch.dtype


@dataclass(frozen=True)
class Needs:
    """What a representation or a decoder reads of a batch.

    Attributes:
        side: pixels along a side that decoded images must at least have; 0 where no image is read.
        targets: whether the target images are read.
        masks: whether the masks of the targets are read.
        keypoints: whether the keypoints of the inputs are read.
        latents: the latents of the targets that are read; None where none are.
        landmark_images: side of the landmark images of the targets in pixels; 0 where none are needed.
    """

    side: int
    targets: bool = False
    masks: bool = False
    keypoints: bool = False
    latents: KeptLatents | None = None
    landmark_images: int = 0

    def __or__(self, other: Needs) -> Needs:
        """What both need.

        Raises:
            ValueError: they need different latents; a batch holds one kind.
        """
        if self.latents and other.latents and self.latents != other.latents:
            raise ValueError("two decoders read different kept latents, and a batch holds one kind")
        return Needs(
            max(self.side, other.side),
            self.targets or other.targets,
            self.masks or other.masks,
            self.keypoints or other.keypoints,
            self.latents or other.latents,
            max(self.landmark_images, other.landmark_images),
        )

    def with_target_images(self) -> Needs:
        """The same with target images in place of kept latents: what a run without kept latents decodes."""
        if self.latents is None:
            return self
        return replace(self, side=max(self.side, self.latents.side), targets=True, latents=None)
