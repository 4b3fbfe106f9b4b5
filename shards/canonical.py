"""JSON with one spelling: equal values are equal bytes.

Keys are sorted, text is ASCII with escapes, floating-point numbers are written with the fewest digits that
read back to the same number, and NaN and the infinities are rejected.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel


def compact_json(value: Any) -> bytes:
    """One line without spaces and without a line end: the form of a sample's JSON member.

    Raises:
        ValueError: the value holds NaN or an infinity.
    """
    return json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":")).encode("ascii")


def indented_json(value: Any) -> bytes:
    """Two spaces a level and a line end at the end: the form of dataset.json.

    Raises:
        ValueError: the value holds NaN or an infinity.
    """
    return json.dumps(value, sort_keys=True, allow_nan=False, indent=2).encode("ascii") + b"\n"


def model_json(model: BaseModel) -> bytes:
    """A record in the compact form.

    Raises:
        ValueError: the record holds NaN or an infinity.
    """
    return compact_json(model.model_dump(mode="json"))


def sha256_hex(data: bytes | memoryview) -> str:
    """SHA-256 in lower-case hexadecimal."""
    return hashlib.sha256(data).hexdigest()
