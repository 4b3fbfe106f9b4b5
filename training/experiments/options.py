"""Options of the small programs of experiments."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from training.errors import TrainingError


def at_least_one(text: str) -> int:
    """A whole number above 0.

    Raises:
        argparse.ArgumentTypeError: it is not.
    """
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is too small; pass 1 or more")
    return value


def check_is_new(output: Path) -> None:
    """Refuse to write into a directory that holds something: runs know networks by their directory.

    Raises:
        TrainingError: it holds something, or is a file.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise TrainingError(f"{output} exists and is not empty. Pass a new directory")


def add_training_options(parser: argparse.ArgumentParser, *, steps: int, batch: int) -> None:
    """Add the length of the training, its batch and its seed, with these defaults."""
    parser.add_argument("--steps", type=at_least_one, default=steps, help=f"of training ({steps})")
    parser.add_argument("--batch", type=at_least_one, default=batch, help=f"images of a step ({batch})")
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights (0)")


def message(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
