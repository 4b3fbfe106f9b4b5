"""What a user of omniid does, as a script for any installation; prints digests of what comes out.

python uses.py dataset ROOT | tokens ENCODER | portraits PHOTO ENCODER
"""

from __future__ import annotations

import hashlib
import json
import sys


def dataset(root: str) -> dict[str, object]:
    from omniid import open_dataset

    opened = open_dataset(root)
    digest = hashlib.sha256()
    for sample in opened.samples():
        digest.update(b"".join([*sample.images, *sample.masks, sample.landmarks]))
    return {"keys": opened.keys(), "images": opened.images().num_rows, "sha256": digest.hexdigest()}


def tokens(folder: str) -> dict[str, object]:
    import torch

    from omniid import OmniIDEncoder

    torch.set_num_threads(1)
    encoder = OmniIDEncoder.from_pretrained(folder).eval()
    side = encoder.size.side
    pixels = torch.rand((1, 3, 3, side, side), generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        found = encoder(pixels)
    return {"shape": list(found.shape), "crop_scale": encoder.crop_scale, "sha256": _sha256(found.numpy())}


def portraits(photo: str, folder: str) -> dict[str, object]:
    import torch

    from omniid import OmniIDEncoder, find_portraits

    torch.set_num_threads(1)
    encoder = OmniIDEncoder.from_pretrained(folder).eval()
    found = find_portraits(photo, crop_scale=encoder.crop_scale)
    return {
        "images": [_sha256(portrait.image) for portrait in found],
        "masks": [_sha256(portrait.mask) for portrait in found],
        "tokens": _sha256(encoder.encode_portraits(found).numpy()),
    }


def _sha256(array) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


if __name__ == "__main__":
    result = {"dataset": dataset, "tokens": tokens, "portraits": portraits}[sys.argv[1]](*sys.argv[2:])
    others = {"faces", "pipeline", "settings", "shards", "storage", "training"} & set(sys.modules)
    print(json.dumps({"result": result, "others": sorted(others), "torch": "torch" in sys.modules}))
