"""Entry points of the commands `mfhq` and `omniid`, in a checkout and in a wheel alike.

In a wheel all packages of the repository are below `omniid` (scripts/wheel_layout.py), so an entry point cannot
name `pipeline.cli` in both. This module is at the same place in both.
"""

from __future__ import annotations

import sys

from omniid.public import MissingPackage, missing_packages


def mfhq() -> None:
    """Entry point of `mfhq`."""
    try:
        with missing_packages("mfhq", "pipeline,embedded"):
            from pipeline.cli import main

            main()
    except MissingPackage as error:
        sys.exit(f"error: {error}")


def omniid() -> None:
    """Entry point of `omniid`."""
    try:
        with missing_packages("omniid", _extras(sys.argv[1:2])):
            from training.cli import main

            main()
    except MissingPackage as error:
        sys.exit(f"error: {error}")


def _extras(command: list[str]) -> str:
    return "encoder,faces,embedded" if command == ["encode"] else "training,faces,embedded"
