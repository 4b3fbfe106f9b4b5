"""Latents of targets in files, computed once for each image of a data set.

    <folder>/<data set>-<codec>-<side>-<decoded at>/<2 hexadecimal digits>/<key>.<image>.safetensors

`folder` is that of the shards, or any other. Its name says what the latents are of and how they were made, so
nothing else needs to be checked. Each is computed by itself: it does not depend on what else was in the batch, and
a run that goes on with half of them kept is the same run. They can be deleted at any time, and those of a data set
from which somebody was taken out must be: they are images of that person, too.

Letters in names give the shape:
    B  identities    N  targets of one    I  images, B x N    C  channels of latents    H  side of latents
"""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import torch

from settings.section import ConfigError
from shards.atomic import write_bytes
from storage.urls import is_local, local_directory
from training.data.batch import Batch
from training.models.flux_latents import Codec
from training.models.pixels import pixels

ON_THE_FLY = "on_the_fly"
BESIDE_SHARDS = "beside_shards"
FOLDER = "latents"
_LOG = logging.getLogger(__name__)


def latents_folder(latents: str, root: str) -> Path | None:
    """The folder that a configuration means; None where latents are not kept.

    Args:
        latents: `flow.latents`.
        root: `data.root`.

    Raises:
        ConfigError: beside the shards is no place of this machine.
    """
    if latents == ON_THE_FLY:
        return None
    if latents != BESIDE_SHARDS:
        return Path(latents).expanduser()
    if not (is_local(root) and local_directory(root).is_dir()):
        raise ConfigError(
            f"flow.latents: {BESIDE_SHARDS} needs a data set in a folder, and data.root is {root}; give a "
            f"folder of each machine for them, or {ON_THE_FLY}"
        )
    return local_directory(root) / FOLDER


class KeptLatents:
    """Reads latents, and computes and writes those that are not there yet.

    Args:
        folder: made when missing.
        dataset_sha256: of the data set's manifest.
        codec: makes the latents.
        side: of the images that they are made of, in pixels.
    """

    def __init__(self, folder: Path, dataset_sha256: str, codec: Codec, side: int) -> None:
        self._folder = folder
        self._name = f"{dataset_sha256[:16]}-{codec.name}-{side}"
        self._codec = codec
        self._side = side
        self._writing = True

    def of(self, batch: Batch) -> torch.Tensor:
        """Latents of the targets, (I, C, H, H); zeros for damaged samples, which look at no file.

        Args:
            batch: on the device, for which the host waits here to learn which images are targets: at the
                start of a step of about a second, some milliseconds.
        """
        device, side = batch.images_BKSSC.device, self._side // self._codec.factor
        if device.type == "meta":
            images = batch.targets_BN.numel()
            return torch.empty(images, self._codec.channels, side, side, device=device)
        blank_CHH = torch.zeros(self._codec.channels, side, side)
        found: list[torch.Tensor] = []
        for row, (key, valid, targets) in enumerate(
            zip(batch.keys, batch.valid_B.tolist(), batch.targets_BN.tolist(), strict=True)
        ):
            found += [
                self._one(batch, row, key, image, blank_CHH) if valid else blank_CHH for image in targets
            ]
        kept_ICHH = torch.stack(found)
        if device.type == "cuda":
            kept_ICHH = kept_ICHH.pin_memory()
        return kept_ICHH.to(device, non_blocking=True)

    def _one(self, batch: Batch, row: int, key: str, image: int, blank_CHH: torch.Tensor) -> torch.Tensor:
        digest = hashlib.sha256(key.encode()).hexdigest()
        # Images that were decoded at another size, for another encoder, are not quite the same at this one.
        folder = self._folder / f"{self._name}-{batch.images_BKSSC.shape[2]}"
        path = folder / digest[:2] / f"{key}.{image}.safetensors"
        if (kept_CHH := _read(path)) is None or kept_CHH.shape != blank_CHH.shape:
            image_1SSC = batch.images_BKSSC[row, image][None]
            kept_CHH = self._codec.encode(pixels(image_1SSC, self._side))[0].cpu()
            self._write(path, kept_CHH)
        return kept_CHH

    def _write(self, path: Path, latents_CHH: torch.Tensor) -> None:
        if not self._writing:
            return
        try:
            # Not durable: what a power cut takes is computed again.
            write_bytes(path, as_file(latents_CHH), durable=False)
        except OSError as error:
            self._writing = False
            _LOG.warning(
                "flow.latents: no more latents are kept in %s, those that are missing are computed in each step "
                "(%s). To keep them, stop the run, make room or set another folder, and go on",
                self._folder,
                os.strerror(error.errno) if error.errno else error,
            )


def as_file(latents_CHH: torch.Tensor) -> bytes:
    """Latents as they are kept, with a digest: nobody would see that a few of them have changed."""
    from safetensors.torch import save

    latents_CHH = latents_CHH.contiguous()
    return save({"latents": latents_CHH, "sha256": _digest(latents_CHH)})


def _read(path: Path) -> torch.Tensor | None:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        found = load(path.read_bytes())
        latents_CHH: torch.Tensor = found["latents"]
        whole = torch.equal(found["sha256"], _digest(latents_CHH))
    except (OSError, SafetensorError, KeyError):
        return None  # not there, or damaged: it is computed anew
    return latents_CHH if whole else None


def _digest(latents_CHH: torch.Tensor) -> torch.Tensor:
    data = latents_CHH.view(torch.uint8).numpy()
    return torch.frombuffer(bytearray(hashlib.sha256(data).digest()), dtype=torch.uint8)
