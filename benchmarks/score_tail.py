"""False-accept rates against the threshold: counted where there are scores, extrapolated where there are none.

Beyond a high threshold u, the excesses of a distribution follow a generalised Pareto law (Pickands, Balkema, de
Haan), so FAR(t) = P(u) (1 + shape (t - u) / scale)^(-1 / shape). A shape of zero is the exponential law, which
is the safe side for cosines: they are bounded, so the fitted shape comes out below zero. Intervals come from a
bootstrap over persons, since pairs that share a person are not independent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
BINS = 2000
LEAST_EXCESSES = 10
LEAST_SHAPE = -0.5
"""Below it the likelihood has no regular maximum."""
TAIL = 0.02
"""Share of the pairs of persons that the law is fitted to."""


@dataclass(frozen=True)
class Tail:
    """The upper tail of impostor cosines.

    Attributes:
        start: the threshold u beyond which the law holds.
        share: P(cosine > u).
        scale: of the law, in cosines.
        shape: of the law; 0 for the exponential one.
    """

    start: float
    share: float
    scale: float
    shape: float

    def far(self, cosine: Doubles) -> Doubles:
        """(N,) false-accept rate at (N,) thresholds, at or above `start`."""
        excess = (np.asarray(cosine, np.float64) - self.start) / self.scale
        if abs(self.shape) < 1e-9:
            return self.share * np.exp(-excess)
        return np.asarray(self.share * np.maximum(1 + self.shape * excess, 0.0) ** (-1 / self.shape))

    def cosine(self, far: float) -> float:
        """The threshold with this false-accept rate, at most `share`."""
        ratio = self.share / far
        if abs(self.shape) < 1e-9:
            return float(self.start + self.scale * np.log(ratio))
        return float(self.start + self.scale * (ratio**self.shape - 1) / self.shape)


def weighted_quantile(values: Doubles, weights: Doubles, quantile: float) -> float:
    """The least value with at least this share of the weight at or below it."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(reached, quantile * reached[-1]).clip(max=len(values) - 1)])


def share_at_or_above(values: Doubles, weights: Doubles, cosine: float) -> float:
    """Share of the weight at or above a threshold."""
    return float(weights[values >= cosine].sum() / weights.sum())


def fit_tail(values: Doubles, weights: Doubles, share: float = TAIL, exponential: bool = False) -> Tail:
    """Fit the law to the largest values, by weighted maximum likelihood.

    Args:
        values: (N,) impostor cosines.
        weights: (N,) of them.
        share: part of the weight that is the tail.
        exponential: fix the shape at zero.

    Raises:
        ValueError: fewer than LEAST_EXCESSES values are in the tail.
    """
    start = weighted_quantile(values, weights, 1 - share)
    above = values > start
    excess, weight = (values[above] - start).astype(np.float64), weights[above]
    if np.count_nonzero(weight) < LEAST_EXCESSES:
        raise ValueError(
            f"{np.count_nonzero(weight)} values are in the tail; expected {LEAST_EXCESSES} or more"
        )
    # Ties at the quantile are below it, so the share is counted again.
    reached, weight = float(weight.sum() / weights.sum()), weight / weight.sum()
    mean = float(weight @ excess)
    if exponential:
        return Tail(start, reached, mean, 0.0)
    return Tail(start, reached, *_pareto(excess, weight, mean))


def _pareto(excess: Doubles, weight: Doubles, mean: float) -> tuple[float, float]:
    """Scale and shape. The likelihood is maximal along a curve that one number, shape / scale, describes.

    Source: Grimshaw, "Computing maximum likelihood estimates for the generalized Pareto distribution", 1993.
    """

    def at(ratio: np.float64) -> tuple[float, float, float]:
        shape = float(weight @ np.log1p(ratio * excess))
        scale = shape / ratio
        return -float(np.log(scale)) - shape - 1, float(scale), shape

    ends = (-1 / float(excess.max()), 1 / mean)
    excess, weight = _binned(excess, weight)
    ratios = np.concatenate([ends[0] * np.geomspace(0.98, 1e-3, 40), ends[1] * np.geomspace(1e-3, 5.0, 40)])
    fits: list[tuple[float, float, float]] = []
    for _ in range(2):
        fits += [fit for fit in map(at, ratios) if fit[2] > LEAST_SHAPE]
        _, scale, shape = max(fits)
        ratios = shape / scale * np.geomspace(0.8, 1.25, 41)
        ratios = ratios[ratios > ends[0]]
    return max(fits)[1:]


def _binned(excess: Doubles, weight: Doubles) -> tuple[Doubles, Doubles]:
    """Means and weights of narrow bins: hundreds of fits to 100,000 values each would take minutes."""
    place = (excess * (BINS / excess.max())).astype(np.int64)
    total = np.asarray(np.bincount(place, weight), np.float64)
    means = np.bincount(place, weight * excess)[total > 0] / total[total > 0]
    return means, total[total > 0]
