"""Histograms of values that are all in memory, to compare those of batches with."""

from __future__ import annotations

from pipeline.report.distributions import Extent, Histogram, HistogramCounter, PoseCounter, PoseMap, Values


def histogram(values: Values, *, step: float | None = None) -> Histogram | None:
    """Bins of round width over all values; None when there are none.

    Args:
        values: (N,), finite.
        step: width of a bin; chosen from the values when not given.
    """
    if len(values) == 0:
        return None
    extent = Extent()
    extent.add(values)
    counter = HistogramCounter(extent, step)
    counter.add(values)
    return counter.histogram()


def pose_map(yaw: Values, pitch: Values) -> PoseMap:
    """The map of images that are all in memory: (N,) yaw and pitch in degrees."""
    extents = Extent(), Extent()
    extents[0].add(yaw)
    extents[1].add(pitch)
    counter = PoseCounter(*extents)
    counter.add(yaw, pitch)
    return counter.map()
