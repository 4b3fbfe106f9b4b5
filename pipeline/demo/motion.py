"""How a demo head moves: a wandering pose, blinks and a talking mouth, all as functions of time.

Every function takes the (N,) presentation times in seconds and a random generator and returns values for
those times, so that clips of constant and of variable frame rate move alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from faces.types import HeadPose
from pipeline.demo.render import HeadState

Values = NDArray[np.float64]

BLINK_EVERY_S = 2.4
_CLOSING_S, _CLOSED_S, _OPENING_S = 0.1, 0.08, 0.16


@dataclass(frozen=True)
class PoseRange:
    """Where a head's pose wanders: (lowest, highest) of each angle in degrees."""

    yaw: tuple[float, float]
    pitch: tuple[float, float]
    roll: tuple[float, float]


def wander(times: Values, rng: np.random.Generator, low: float, high: float) -> Values:
    """A smooth random walk that reaches both `low` and `high`: slow swings of unrelated periods."""
    periods = rng.uniform([4.0, 2.2, 1.3], [6.0, 3.2, 1.8])
    phases = rng.uniform(0, 2 * np.pi, 3)
    swings = np.array([1.0, 0.6, 0.25])
    path = (swings * np.sin(2 * np.pi * times[:, None] / periods + phases)).sum(axis=1)
    return np.asarray(low + (high - low) * (path - path.min()) / np.ptp(path), np.float64)


def blinks(times: Values, rng: np.random.Generator) -> Values:
    """Eye opening, 1 to 0: a blink every few seconds."""
    opening = np.ones_like(times)
    start = times[0] + rng.uniform(0.6, BLINK_EVERY_S)
    while start < times[-1]:
        into = times - start
        shut_at, open_at = _CLOSING_S, _CLOSING_S + _CLOSED_S
        blink = np.interp(into, [0, shut_at, open_at, open_at + _OPENING_S], [1.0, 0.0, 0.0, 1.0])
        opening = np.minimum(opening, blink)
        start += rng.uniform(0.7, 1.3) * BLINK_EVERY_S
    return opening


def speech(times: Values, rng: np.random.Generator, widest: float = 0.55) -> Values:
    """Mouth opening, 0 to `widest`: syllables in phrases with pauses."""
    syllables = np.abs(np.sin(np.pi * rng.uniform(2.4, 3.2) * times + rng.uniform(0, np.pi)))
    stress = 0.6 + 0.4 * np.sin(2 * np.pi * times / rng.uniform(0.9, 1.3) + rng.uniform(0, 2 * np.pi))
    phrase = np.sin(2 * np.pi * times / rng.uniform(2.6, 3.4) + rng.uniform(0, 2 * np.pi))
    return np.asarray(widest * syllables * stress * np.clip(4 * phrase + 2, 0, 1), np.float64)


def there_and_back(times: Values) -> Values:
    """Times whose second half runs backwards: a head repeats after the middle every pose from before it.

    A clip in which a pose occurs twice can spoil it once and leave it sound the other time.
    """
    middle = (times[0] + times[-1]) / 2
    return np.asarray(middle - np.abs(times - middle), np.float64)


def talking_head(times: Values, rng: np.random.Generator, poses: PoseRange) -> list[HeadState]:
    """One state per time; the times need not rise."""
    order = np.unique(times)
    where = np.searchsorted(order, times)
    yaw, pitch, roll = (wander(order, rng, *span) for span in (poses.yaw, poses.pitch, poses.roll))
    right, down = (wander(order, rng, -extent, extent) for extent in (6.0, 3.0))
    eyes, mouth = blinks(order, rng), speech(order, rng)
    return [
        HeadState(
            pose=HeadPose(float(yaw[i]), float(pitch[i]), float(roll[i])),
            eyes_open=float(eyes[i]),
            mouth_open=float(mouth[i]),
            shift_px=(float(right[i]), float(down[i])),
        )
        for i in where.tolist()
    ]
