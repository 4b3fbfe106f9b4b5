"""Output directories of commands."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryFile

from training.errors import TrainingError


def make_folder(folder: Path) -> None:
    """Create the output directory and check that it is writable, before anything is computed.

    Raises:
        TrainingError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise TrainingError(
            f"{folder} cannot be written to: {error.strerror}. Give another output directory"
        ) from error
