"""Options of the small programs of experiments."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from shards.atomic import TEMPORARY
from training.errors import TrainingError
from training.folders import make_folder


def at_least_one(text: str) -> int:
    """A whole number above 0.

    Raises:
        argparse.ArgumentTypeError: it is not.
    """
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is too small; pass 1 or more")
    return value


def begin_output(output: Path, files: Sequence[str], *, continues: bool) -> bool:
    """Make the output directory, which must be new or empty: runs know networks by their directory.

    Args:
        output: the directory.
        files: that the program writes into it, in this order; with the last one, it is finished.
        continues: also take the directory of an earlier start of the same command; what that left is removed.

    Returns:
        Whether there is anything to do: not where an earlier start finished.

    Raises:
        TrainingError: it holds something else, is a file, or cannot be written to.
    """
    if output.exists() and not output.is_dir():
        raise TrainingError(f"{output} is a file. Pass a new directory")
    left = sorted(output.iterdir()) if output.is_dir() else []
    others = [path for path in left if path.name not in files and not TEMPORARY.fullmatch(path.name)]
    if left and (others or not continues):
        raise TrainingError(f"{output} exists and is not empty. Pass a new directory")
    if (output / files[-1]) in left:
        message(f"{output} is finished: nothing to do")
        return False
    for path in left:
        path.unlink()
    make_folder(output)
    return True


def add_side(parser: argparse.ArgumentParser) -> None:
    """Add the side of the images, of which a token of a small flow transformer takes 8 or 16 pixels."""
    parser.add_argument(
        "--side",
        type=int,
        choices=range(16, 129, 16),
        default=64,
        metavar="PIXELS",
        help="16, 32, … 128 (64)",
    )


def add_training_options(parser: argparse.ArgumentParser, *, steps: int, batch: int) -> None:
    """Add the length of the training, its batch, its seed and `--continue`, with these defaults."""
    parser.add_argument("--steps", type=at_least_one, default=steps, help=f"of training ({steps})")
    parser.add_argument("--batch", type=at_least_one, default=batch, help=f"images of a step ({batch})")
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights (0)")
    parser.add_argument(
        "--continue",
        dest="continues",
        action="store_true",
        help="when the same command was interrupted: begin again; when it is finished: do nothing, whatever "
        "the other options are",
    )


def message(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
