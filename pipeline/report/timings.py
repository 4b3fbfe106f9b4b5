"""The time of a build by step: stored beside the report, because the dataset itself contains no times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError

from shards.atomic import write_bytes
from shards.canonical import compact_json
from shards.metadata import DatasetError, brief
from storage.path import AnyPath

Seconds = Mapping[str, Mapping[str, float]]
"""Video -> step -> seconds."""

STEPS = (
    "fetch",
    "probe",
    "decode",
    "detect",
    "landmarks",
    "filter",
    "embed",
    "crop",
    "track",
    "select",
    "score",
)
"""The order in which a video goes through the steps; others come after these, by name."""

_KEPT = TypeAdapter(dict[str, dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]])


@dataclass(frozen=True)
class Timings:
    """Seconds of V videos in S steps.

    Attributes:
        steps: names, in the order in which a video goes through them.
        videos: ids.
        seconds: (V, S); 0 where a video did not reach a step.
    """

    steps: list[str]
    videos: list[str]
    seconds: NDArray[np.float64]

    @property
    def totals(self) -> NDArray[np.float64]:
        """(S,) seconds of all videos."""
        totals: NDArray[np.float64] = self.seconds.sum(axis=0)
        return totals

    def slowest(self, count: int) -> NDArray[np.int64]:
        """Rows of the slowest videos, the slowest first."""
        return np.argsort(-self.seconds.sum(axis=1), kind="stable")[:count]


def keep(path: AnyPath, seconds: Seconds) -> None:
    """Write the timings, to the millisecond, for later reports.

    Raises:
        OutOfSpace: the disk is full.
    """
    rounded = {video: {step: round(s, 3) for step, s in steps.items()} for video, steps in seconds.items()}
    write_bytes(path, compact_json(rounded))


def kept(path: AnyPath) -> Seconds | None:
    """The timings that an earlier report stored, if there are any.

    Raises:
        DatasetError: the file is damaged.
    """
    try:
        return _KEPT.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise DatasetError(
            f"{path} cannot be read: {brief(error)}. Without the file, the report is made without timings"
        ) from error


def tabulate(seconds: Seconds, videos: list[str]) -> Timings | None:
    """The timings of a dataset's videos as a table; None when there are none.

    Args:
        seconds: may name further videos, such as those erased since.
        videos: ids of the dataset.
    """
    timed = [video for video in videos if seconds.get(video)]
    names = {step for video in timed for step in seconds[video]}
    steps = [step for step in STEPS if step in names] + sorted(names.difference(STEPS))
    if not timed:
        return None
    table = np.array([[seconds[video].get(step, 0.0) for step in steps] for video in timed])
    return Timings(steps, timed, table)
