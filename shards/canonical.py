"""JSON with one spelling: equal values are equal bytes.

Keys are sorted, text is ASCII with escapes, floating-point numbers are written with the fewest digits that
read back to the same number, and NaN and the infinities are rejected.
"""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from typing import Any

import orjson
from pydantic import BaseModel

# Where orjson may spell a value otherwise than `json`: escapes, and numbers near zero or from 1e16 on.
_ESCAPE, _DELETE, _NEAR_ZERO = b"\\", b"\x7f", b"0.0000"
_EXPONENT = re.compile(rb"e[-+]?[0-9]+(?:[],}]|$)")


def compact_json(value: Any) -> bytes:
    """One line without spaces and without a line end: the form of a sample's JSON member.

    Raises:
        ValueError: the value holds NaN or an infinity.
    """
    return json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":")).encode("ascii")


def parse_json(data: bytes) -> tuple[Any, bool]:
    """The value of a JSON text, and whether the text is its compact form.

    Raises:
        ValueError: not JSON.
        RecursionError: deeper than `json` reads.
    """
    value = orjson.loads(data)
    # Ten times as fast as `json` for a record with its thousands of coordinates.
    with suppress(TypeError):  # deeper than orjson writes
        if _same_in_orjson(data) and orjson.dumps(value, option=orjson.OPT_SORT_KEYS) == data:
            return value, True
    value = json.loads(data)
    return value, compact_json(value) == data


def _same_in_orjson(data: bytes) -> bool:
    """Whether `json` spells the values of a text that orjson has written as orjson does."""
    plain = data.isascii() and not any(part in data for part in (_ESCAPE, _DELETE, _NEAR_ZERO))
    return plain and not _EXPONENT.search(data)


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
