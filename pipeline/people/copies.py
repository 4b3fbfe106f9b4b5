"""Which of the identities that show the same footage is kept.

The one whose images hold the most detail, and of equal ones that of the longer track. Detail is measured by the
bytes of the stored images: all have one size and one JPEG quality, and what another encoding or a smaller frame
has removed takes no bytes. An enlarged copy has a larger head crop, and the metric PIQE prefers some encodings to
their originals, so these do not decide; docs/curation.md has the measurements.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.people.near_duplicates import Match

LENGTH_WEIGHT = 0.3
"""Exponent of a track's length beside the bytes of its images: twice the length counts as 23 % more bytes."""
LEAST_SHOWN = 0.5
"""An identity is dropped when one that is kept shows at least this part of its time. So footage that is shown
nowhere else stays: a long interview is not dropped for a short part of it."""


@dataclass(frozen=True)
class Copy:
    """Why an identity is dropped.

    Attributes:
        kept: key of the identity that shows the footage too.
        detail: sentence for the report.
    """

    kept: str
    detail: str


def copies(keys: Sequence[str], image_bytes: Sequence[float], matches: Sequence[Match]) -> dict[str, Copy]:
    """Choose which identities are dropped because another shows their footage.

    From the best to the worst, each is kept unless one that is kept already shows `LEAST_SHOWN` of its time. The
    result does not depend on the order of the identities or the matches.

    Args:
        keys: of the identities, each once.
        image_bytes: median bytes of the stored images of each.
        matches: pairs of rows that show the same footage.

    Returns:
        The dropped ones by key, sorted.
    """
    seconds: dict[int, float] = {}
    near: dict[int, list[tuple[int, Match]]] = defaultdict(list)
    for match in matches:
        seconds |= {match.first: match.first_s, match.second: match.second_s}
        near[match.first].append((match.second, match))
        near[match.second].append((match.first, match))

    def worth(row: int) -> float:
        return math.log(max(image_bytes[row], 1.0)) + LENGTH_WEIGHT * math.log(max(seconds[row], 1e-3))

    kept: set[int] = set()
    dropped: dict[str, Copy] = {}
    for row in sorted(near, key=lambda row: (-worth(row), keys[row])):
        shown = [
            (match.shared_s, keys[other], match)
            for other, match in near[row]
            if other in kept and match.shared_s >= LEAST_SHOWN * seconds[row]
        ]
        if not shown:
            kept.add(row)
            continue
        _, key, match = min(shown, key=lambda found: (-found[0], found[1]))
        dropped[keys[row]] = Copy(key, _detail(key, seconds[row], match))
    return dict(sorted(dropped.items()))


SAME_FOOTAGE = "same footage as "


def original_in(detail: str | None) -> str | None:
    """The key of the identity that a near-duplicate's detail names."""
    if detail is None or not detail.startswith(SAME_FOOTAGE):
        return None
    return detail.removeprefix(SAME_FOOTAGE).partition(":")[0]


def _detail(kept: str, of_s: float, match: Match) -> str:
    part = min(1.0, match.shared_s / of_s)
    shifted = f", shifted by {abs(match.offset_s):.1f} s" if abs(match.offset_s) >= 0.05 else ""
    return f"{SAME_FOOTAGE}{kept}: {part:.0%} of its {of_s:.1f} s{shifted}".replace("%", " %")
