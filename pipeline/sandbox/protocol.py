"""Messages between a build's process and a decoding one, over a socket that keeps their borders.

The parent does not trust the child: a decoder that a video has taken over may send anything. A message has
a bounded size, one of a few types, and fields of checked type and range; everything else is a
`HostileMessage`. Pixels and frame times go through shared memory (`ring.py`). There is no pickle.

| to the child | |
|---|---|
| `probe` | look at the video |
| `frames` | decode the frames with the indices in the shared memory |
| `free` | one more slot may be written |

| from the child | |
|---|---|
| `C` confined | JSON: what the kernel enforces; sent before the video is touched |
| `P` probe | JSON: the fields of `Probe`; the times are in the shared memory |
| `R` rejection | JSON: reason, detail |
| `M` out of memory | |
| `L` lost storage | a read failed; the parent checks that by itself |
| `F` frame | index, slot, height, width |
| `D` damaged frame | index |
| `E` end of frames | |
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import struct
from fractions import Fraction
from typing import Any, NoReturn, get_type_hints

import numpy as np
from numpy.typing import NDArray

from pipeline.rejection import Rejection
from pipeline.sandbox.confine import Enforced
from pipeline.sandbox.decoding import Probe
from pipeline.sandbox.ring import SLOTS
from shards.schema import Reason

MOST_BYTES = 16_384
MOST_TEXT = 500
LONGEST_S = 100 * 3600.0
MOST_FRAMES = 10_000_000
FREE = b"f"
FRAME = struct.Struct("<cQIII")
DAMAGED = struct.Struct("<cQ")
REASONS = frozenset(
    {
        *(
            Reason.EMPTY_FILE,
            Reason.UNREADABLE,
            Reason.TRUNCATED_FILE,
            Reason.DECODE_ERROR,
            Reason.OUT_OF_MEMORY,
        ),
        *(Reason.NOT_A_REGULAR_FILE, Reason.UNSUPPORTED_CONTAINER, Reason.FRAME_TOO_LARGE),
        *(Reason.INTERNAL_ERROR, Reason.NO_VIDEO_STREAM, Reason.STILL_IMAGE, Reason.HDR_VIDEO),
    }
)
"""Rejections that a decoder may report."""
_NOT_IN_MESSAGES = frozenset({"times_s"})
_LARGEST_INT = 2**31
_RATIO = re.compile(r"(\d{1,9})/(\d{1,9})")


class HostileMessage(ValueError):  # noqa: N818 - states a property of the message
    """A message that no honest decoder sends."""


def write_json(kind: bytes, fields: dict[str, Any]) -> bytes:
    """A message of type `kind` with plain fields."""
    return kind + json.dumps(fields).encode("ascii")


def write_rejection(rejection: Rejection) -> bytes:
    """A message for a rejected video."""
    detail = rejection.detail[:MOST_TEXT] if rejection.detail is not None else None
    return write_json(b"R", {"reason": rejection.reason.value, "detail": detail})


def write_probe(found: Probe) -> bytes:
    """A message with all of a probe but the times of its frames."""
    fields: dict[str, Any] = {"frames": len(found.times_s)}
    for field in dataclasses.fields(found):
        value = getattr(found, field.name)
        if field.name not in _NOT_IN_MESSAGES:
            fields[field.name] = (
                f"{value.numerator}/{value.denominator}" if isinstance(value, Fraction) else value
            )
    return write_json(b"P", fields)


def read_json(body: bytes) -> dict[str, Any]:
    """The fields of a message, without its type.

    Raises:
        HostileMessage: not a JSON object.
    """
    try:
        fields = json.loads(body.decode("ascii"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise HostileMessage("a message is not JSON") from error
    if not isinstance(fields, dict):
        raise HostileMessage("a message is not an object")
    return fields


def read_enforced(body: bytes) -> Enforced:
    """What the kernel enforces on the process.

    Raises:
        HostileMessage: other fields or types than expected.
    """
    fields = read_json(body)
    abi, seccomp = fields.get("landlock_abi"), fields.get("seccomp")
    if len(fields) != 2 or type(abi) is not int or type(seccomp) is not bool:
        raise HostileMessage("the report of what is enforced is malformed")
    return Enforced(landlock_abi=abi, seccomp=seccomp)


def read_rejection(body: bytes) -> Rejection:
    """The rejection of the video.

    Raises:
        HostileMessage: a reason that a decoder cannot give, or a detail that is not plain text.
    """
    fields = read_json(body)
    if fields.keys() != {"reason", "detail"} or fields["reason"] not in {reason.value for reason in REASONS}:
        raise HostileMessage("a rejection has no known reason")
    detail = fields["detail"]
    if detail is not None:
        detail = _printable(detail)
    return Rejection(Reason(fields["reason"]), detail)


def read_probe_fields(body: bytes) -> tuple[dict[str, Any], int]:
    """The fields of a probe but for its times, and the number of frames.

    Raises:
        HostileMessage: missing or unknown fields, types or ranges.
    """
    fields = read_json(body)
    frames = fields.pop("frames", None)
    if type(frames) is not int or not 1 <= frames <= MOST_FRAMES:
        raise HostileMessage("a probe has no valid number of frames")
    hints = {name: kind for name, kind in get_type_hints(Probe).items() if name not in _NOT_IN_MESSAGES}
    if fields.keys() != hints.keys():
        raise HostileMessage("a probe has other fields than expected")
    return {name: _checked(name, fields[name], kind) for name, kind in hints.items()}, frames


def check_times(times_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """The frame times, once they are checked: from 0, ascending, finite.

    Raises:
        HostileMessage: they are not.
    """
    # A comparison with NaN is false, so that NaN fails here too.
    if not (times_s[0] == 0 and times_s[-1] <= LONGEST_S and bool(np.all(np.diff(times_s) >= 0))):
        raise HostileMessage("frame times are not ascending seconds from 0")
    return times_s


def read_frame(message: bytes, most_pixels: int) -> tuple[int, int, int, int]:
    """(index, slot, height, width) of a frame.

    Raises:
        HostileMessage: it is not within a slot.
    """
    if len(message) != FRAME.size:
        raise HostileMessage("a frame's message has another length")
    _, index, slot, height, width = FRAME.unpack(message)
    if slot >= SLOTS or not 0 < height * width <= most_pixels:
        raise HostileMessage("a frame is not within its slot")
    return index, slot, height, width


def read_damaged(message: bytes) -> int:
    """Index of a damaged frame.

    Raises:
        HostileMessage: the message has another length.
    """
    if len(message) != DAMAGED.size:
        raise HostileMessage("a damaged frame's message has another length")
    index: int = DAMAGED.unpack(message)[1]
    return index


def _checked(name: str, value: Any, kind: Any) -> Any:
    if kind in {str | None, float | None}:
        if value is None:
            return None
        kind = str if kind == (str | None) else float
    if kind is str and isinstance(value, str):
        return _printable(value)
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and type(value) is int and 0 <= value < _LARGEST_INT:
        return value
    if kind is float and type(value) in {int, float} and math.isfinite(value):
        return float(value)
    if kind is Fraction and isinstance(value, str) and (match := _RATIO.fullmatch(value)):
        numerator, denominator = int(match[1]), int(match[2])
        if numerator and denominator:
            return Fraction(numerator, denominator)
    raise HostileMessage(f"a probe's {name} is not valid")


def _printable(text: Any) -> str:
    if not isinstance(text, str) or len(text) > MOST_TEXT:
        raise HostileMessage("a text is not one, or too long")
    return "".join(character if character.isprintable() else "?" for character in text)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)
