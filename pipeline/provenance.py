"""What shapes a dataset besides its configuration: the versions of code and libraries."""

from __future__ import annotations

import importlib.metadata

LIBRARIES = (
    *("av", "decord", "insightface", "mediapipe", "numpy", "onnxruntime", "opencv-python-headless"),
    *("pillow", "pyarrow", "pyiqa", "scikit-learn", "simplejpeg", "torch"),
)
"""Libraries that shape the bytes of images, records and tables."""


def code_version() -> str:
    """Version of this project."""
    return importlib.metadata.version("omniid")


def library_versions() -> dict[str, str]:
    """Version of each library in LIBRARIES."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}
