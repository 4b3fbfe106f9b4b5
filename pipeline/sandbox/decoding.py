"""The decoder that the sandbox runs, named only here."""

from __future__ import annotations

import importlib
import pkgutil

from pipeline.decode.frames import CorruptFrame, DecodeError, Frame, decode
from pipeline.decode.probe import LOST_SHARE, Probe, probe


def preload() -> None:
    """Import everything that decoding needs, lazy imports included: a confined process cannot import."""
    import av
    import cv2
    import decord  # noqa: F401

    for module in pkgutil.walk_packages(av.__path__, "av."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    cv2.setNumThreads(1)


__all__ = [
    "LOST_SHARE",
    "CorruptFrame",
    "DecodeError",
    "Frame",
    "Probe",
    "decode",
    "preload",
    "probe",
]
