"""What shapes a dataset besides its configuration: the versions of code and libraries."""

from __future__ import annotations

import importlib.metadata

from settings.version import project_version

LIBRARIES = (
    *("av", "decord", "insightface", "mediapipe", "numpy", "onnxruntime", "opencv-python-headless"),
    *("pillow", "pyarrow", "pyiqa", "scikit-learn", "simplejpeg", "torch"),
)
"""Libraries that shape the bytes of images, records and tables."""
OTHER_NAMES = {"onnxruntime": "onnxruntime-gpu"}
"""Distributions that take the place of a library."""


def code_version() -> str:
    """Version of this project."""
    return project_version()


def library_versions() -> dict[str, str]:
    """Version of each library in LIBRARIES.

    Raises:
        PackageNotFoundError: one is not installed.
    """
    return {name: _version(name) for name in LIBRARIES}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        if name not in OTHER_NAMES:
            raise
        return importlib.metadata.version(OTHER_NAMES[name])
