"""Kept latents: files that the stream reads in place of the pixels of target images.

    <directory>/<dataset>-<codec>-<side>-<decoded side>/<2 hexadecimal digits>/<key>.safetensors
        latents   (8, C, H, H), in the dtype of the codec: of the images of an identity
        sha256    (32,) uint8: of the bytes of `latents`
    <directory>/…/<key>.damaged
        in place of it, where the sample is damaged: the reason, as text

The name of the directory says what the latents are of and how they were made: the digest of the dataset, the codec
with the digest of its weights, the side of the images, and the side at which they were decoded. So latents of
other images or of another codec are never read. `omniid latents` writes the files (training/latents.py).

Letters in names give the shape:
    K  images of an identity (8)    C  channels of latents    H  side of latents
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from settings.section import ConfigError
from shards.atomic import write_bytes
from shards.schema import IMAGES_PER_IDENTITY
from storage.errors import NoSuchFile, StorageError, UrlError
from storage.path import path_of
from storage.store import Store
from storage.urls import check_url, is_local, local_directory
from training.data.decode import decoded_side
from training.data.needs import Needs
from training.errors import BadSample, TrainingError

ON_THE_FLY = "on_the_fly"
BESIDE_SHARDS = "beside_shards"
DIRECTORY = "latents"
"""Name of the directory beside the shards."""
_FORMATS: dict[torch.dtype, tuple[str, Any, int]] = {
    torch.float32: ("F32", np.int32, 0x7F800000),
    torch.float16: ("F16", np.int16, 0x7C00),
    torch.bfloat16: ("BF16", np.int16, 0x7F80),
}
"""Of each dtype: its name in a file, the integers of the same size, and the bits of the exponent."""
_REMEDY = "`omniid latents` with the workflow and the overrides of this run"


def latents_directory(latents: str, root: str) -> str | None:
    """The directory or the URL that a configuration names; None where no latents are kept.

    Args:
        latents: `decoders.flow.latents`.
        root: `data.root`.

    Raises:
        ConfigError: it is no URL that can be read, or it holds a secret.
    """
    if latents == ON_THE_FLY:
        return None
    try:
        check_url(latents)
        check_url(root)
    except UrlError as error:
        raise ConfigError(f"decoders.flow.latents: {error}") from None
    if latents != BESIDE_SHARDS:
        return str(local_directory(latents)) if is_local(latents) else latents.rstrip("/")
    if root.startswith(("http://", "https://")):
        raise ConfigError(
            f"decoders.flow.latents: nothing can be written {BESIDE_SHARDS} of {root}. Set a directory, an object "
            f"store's URL, or {ON_THE_FLY}"
        )
    return str(local_directory(root) / DIRECTORY) if is_local(root) else f"{root.rstrip('/')}/{DIRECTORY}"


class LatentFiles:
    """The files of the kept latents that a run needs.

    Args:
        needs: of the run, with its kept latents.
        retry_s: how long a read is tried, in seconds.
    """

    def __init__(self, needs: Needs, retry_s: float) -> None:
        kept = needs.latents
        if kept is None:
            raise ValueError("these needs have no kept latents")
        self.needs, self.kept = needs, kept
        self.images = Needs(needs.with_target_images().side, targets=True)
        """What they are computed from: the images that a run without kept latents decodes."""
        name = f"{kept.dataset_sha256[:16]}-{kept.codec}-{kept.side}-{decoded_side(self.images.side)}"
        self.directory = f"{kept.directory.rstrip('/')}/{name}"
        """Path or URL."""
        self._retry_s = retry_s
        self._format, self._bits, self._exponent = _FORMATS[kept.dtype]

    def path(self, key: str) -> str:
        """The file of an identity, relative to the directory."""
        return f"{hashlib.sha256(key.encode()).hexdigest()[:2]}/{key}.safetensors"

    def _damaged_path(self, key: str) -> str:
        return self.path(key).removesuffix(".safetensors") + ".damaged"

    def read(self, key: str, stopped: threading.Event | None = None) -> bytes:
        """The file of an identity, not checked yet.

        Args:
            key: of the identity.
            stopped: once it is set, waits between tries end, and there are no more tries.

        Raises:
            BadSample: there are no latents, because the sample was damaged when they were computed.
            TrainingError: there is no file, or it cannot be read.
        """
        try:
            return self._store.whole(self.path(key), stopped)
        except NoSuchFile:
            pass
        except StorageError as error:
            raise TrainingError(str(error)) from error
        try:
            reason = self._store.whole(self._damaged_path(key), stopped).decode(errors="replace")
        except NoSuchFile:
            raise TrainingError(
                f"decoders.flow.latents: {self.directory}/{self.path(key)} is missing. Run {_REMEDY}"
            ) from None
        except StorageError as error:
            raise TrainingError(str(error)) from error
        raise BadSample(f"{reason} (it was so when latents were computed; {_REMEDY} tries again)")

    def check(self, key: str, data: bytes) -> NDArray[Any]:
        """The latents in a file, as integers of the same bits, (K, C, H, H).

        Raises:
            TrainingError: the file is damaged.
        """
        try:
            return self._checked(data)
        except ValueError as error:
            path = f"{self.directory}/{self.path(key)}"
            raise TrainingError(
                f"decoders.flow.latents: {path} is damaged: {error}. Delete this file, then run {_REMEDY}"
            ) from error

    def write(self, key: str, latents_KCHH: torch.Tensor) -> None:
        """Write the latents of the images of an identity.

        Args:
            key: of the identity.
            latents_KCHH: on the CPU.

        Raises:
            OutOfSpace: the disk is full.
            OSError: they cannot be written.
        """
        # Not durable: what a power cut takes has another size, and is computed again.
        path = path_of(self.directory)
        write_bytes(path / self.path(key), _file(latents_KCHH), durable=False)

    def write_damaged(self, key: str, reason: str) -> None:
        """Note that an identity has no latents, because its sample is damaged.

        Raises:
            OSError: it cannot be written.
        """
        write_bytes(path_of(self.directory) / self._damaged_path(key), reason.encode(), durable=False)

    def missing(self, keys: Iterable[str], *, without_damaged: bool = False) -> list[str]:
        """The identities that have no latents, by one listing; files that were cut off count as missing.

        Args:
            keys: of the identities.
            without_damaged: leave out those whose sample was damaged when latents were computed.

        Raises:
            TrainingError: the directory cannot be listed.
        """
        keys = list(keys)
        paths = [path for key in keys for path in (self.path(key), self._damaged_path(key))]
        try:
            found = self._store.sizes("", paths)
        except NoSuchFile:
            return keys
        except StorageError as error:
            raise TrainingError(str(error)) from error
        return [
            key
            for key in keys
            if found.get(self.path(key)) != self.file_bytes
            and not (without_damaged and self._damaged_path(key) in found)
        ]

    @cached_property
    def file_bytes(self) -> int:
        """Size of each file."""
        return len(_file(torch.zeros(IMAGES_PER_IDENTITY, *self.kept.shape, dtype=self.kept.dtype)))

    @cached_property
    def _store(self) -> Store:
        return Store(self.directory, self._retry_s)

    def _checked(self, data: bytes) -> NDArray[Any]:
        from safetensors import SafetensorError, deserialize

        read: Any = deserialize  # has no types

        try:
            found = dict(read(data))
        except SafetensorError as error:
            raise ValueError(f"it is no safetensors file ({error})") from error
        if found.keys() != {"latents", "sha256"}:
            raise ValueError(f"it holds {', '.join(sorted(found))} instead of latents and sha256")
        latents = found["latents"]
        shape, dtype = (IMAGES_PER_IDENTITY, *self.kept.shape), latents["dtype"]
        if tuple(latents["shape"]) != shape or dtype != self._format:
            raise ValueError(
                f"it holds {dtype} of shape {latents['shape']} instead of {self._format} of {shape}"
            )
        if hashlib.sha256(latents["data"]).digest() != bytes(found["sha256"]["data"]):
            raise ValueError("its sha256 is wrong")
        bits_KCHH: NDArray[Any] = np.frombuffer(latents["data"], self._bits).reshape(shape)
        if ((bits_KCHH & self._exponent) == self._exponent).any():
            raise ValueError("it holds numbers that are not finite")
        return bits_KCHH


def _file(latents_KCHH: torch.Tensor) -> bytes:
    """Latents as a file, with a digest: nothing else would show that a few of them changed."""
    from safetensors.torch import save

    latents_KCHH = latents_KCHH.contiguous()
    digest = hashlib.sha256(latents_KCHH.view(torch.uint8).numpy()).digest()
    return save({"latents": latents_KCHH, "sha256": torch.frombuffer(bytearray(digest), dtype=torch.uint8)})
