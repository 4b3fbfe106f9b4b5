"""Places for what a command will write."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryFile

from training.errors import TrainingError


def make_folder(folder: Path) -> None:
    """Make a folder for what is about to be computed, so that the work is not lost for want of a place.

    Raises:
        TrainingError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise TrainingError(
            f"{folder} cannot be written to: {error.strerror}; give another folder for the output"
        ) from error
