"""Prometheus metrics of a build, through Ray's exporter.

Each node of a Ray cluster serves what its processes have recorded, with the prefix `ray_`; docs/clusters.md says
how to scrape it. What the driver knows is published from the state of the build, every few seconds, so that
finishing a video costs nothing. Analysers record only what the driver cannot know.

Labels have few values. No metric has the id of a video: logs and `mfhq explain` tell about single videos.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.monitor.monitor import Finished
from pipeline.monitor.state import BuildState

PREFIX = "ray_"
"""What Ray puts before each name."""
SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0, 600.0)
"""Bounds of the histogram of seconds a video."""


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        name: without the prefix.
        kind: of Prometheus.
        help: what it measures.
        labels: beside `dataset`, and those that Ray adds.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


DRIVER = (
    Metric("mfhq_videos", "gauge", "Videos of the build"),
    Metric("mfhq_videos_left", "gauge", "Videos that are not finished"),
    Metric(
        "mfhq_videos_finished_total",
        "counter",
        "Videos that this run has finished; `reason` is empty for accepted ones",
        ("status", "reason"),
    ),
    Metric("mfhq_videos_retried_total", "counter", "Finished videos that took more than one attempt"),
    Metric("mfhq_video_seconds", "histogram", "Seconds of an analyser for a finished video", ("status",)),
    Metric(
        "mfhq_stage_seconds_total", "counter", "Seconds of analysers by stage of the curation", ("stage",)
    ),
    Metric(
        "mfhq_items_total",
        "counter",
        "What finished videos hold: frames (analysed), corrupt_frames, faces, tracks, identities",
        ("item",),
    ),
    Metric("mfhq_source_bytes_total", "counter", "Bytes of the files of finished videos"),
    Metric("mfhq_passes_total", "counter", "Passes over the unfinished videos"),
    Metric("mfhq_nodes", "gauge", "Nodes that live and have room for an analyser"),
    Metric("mfhq_analyser_room", "gauge", "Analysers that the nodes have room for"),
    Metric("mfhq_analysers", "gauge", "Analysers that live"),
    Metric("mfhq_node_videos_total", "counter", "Videos that a node has finished", ("node",)),
    Metric("mfhq_node_faults_total", "counter", "Faults of a node", ("node",)),
    Metric("mfhq_operator_done", "gauge", "Units that an operator has done", ("operator",)),
    Metric("mfhq_operator_units", "gauge", "Units that an operator has in all", ("operator",)),
    Metric(
        "mfhq_operator_left_seconds",
        "gauge",
        "Estimate of the time that an operator at work still takes",
        ("operator",),
    ),
    Metric("mfhq_last_result_timestamp_seconds", "gauge", "When the last unit was done, since 1970"),
)
ANALYSER = (
    Metric("mfhq_analyser_busy", "gauge", "1 while an analyser is at work on a file, 0 while it waits"),
    Metric("mfhq_analyser_starts_total", "counter", "Processes that have started as analysers"),
)
METRICS = (*DRIVER, *ANALYSER)
"""All of them."""


class _Recorder:
    """Records metrics in Ray, from the first time on that this process is connected to a cluster."""

    def __init__(self, metrics: tuple[Metric, ...], dataset: str = "") -> None:
        from ray.util import metrics as of_ray

        kinds: dict[str, Any] = {"counter": of_ray.Counter, "gauge": of_ray.Gauge}
        self.dataset = dataset
        self._recorded: dict[str, Any] = {}
        for metric in metrics:
            tags: dict[str, Any] = {"description": metric.help, "tag_keys": ("dataset", *metric.labels)}
            self._recorded[metric.name] = (
                of_ray.Histogram(metric.name, boundaries=list(SECONDS), **tags)
                if metric.kind == "histogram"
                else kinds[metric.kind](metric.name, **tags)
            )

    def _tags(self, labels: Mapping[str, str]) -> dict[str, str]:
        return {"dataset": self.dataset, **labels}

    def set(self, name: str, value: float, **labels: str) -> None:
        self._recorded[name].set(float(value), self._tags(labels))

    def increase(self, name: str, value: float, **labels: str) -> None:
        if value > 0:
            self._recorded[name].inc(float(value), self._tags(labels))

    def observe(self, name: str, value: float, **labels: str) -> None:
        self._recorded[name].observe(float(value), self._tags(labels))


class DriverMetrics:
    """What the driver knows of a build."""

    def __init__(self) -> None:
        self._recorder: _Recorder | None = None
        self._published: defaultdict[tuple[str, ...], float] = defaultdict(float)
        self._done: dict[str, int] = {}

    @property
    def connected(self) -> bool:
        """Whether this process has joined a Ray cluster."""
        # The main thread may be importing it.
        is_initialized = getattr(sys.modules.get("ray"), "is_initialized", None)
        return is_initialized is not None and bool(is_initialized())

    def publish(self, state: BuildState, finished: Finished) -> None:
        """Record the state.

        Args:
            state: of the build.
            finished: videos of this run since the call before.
        """
        if self._recorder is None:
            self._recorder = _Recorder(DRIVER)
        record = self._recorder
        record.dataset = state.dataset
        record.set("mfhq_videos", state.videos.total)
        record.set("mfhq_videos_left", state.videos.total - state.videos.finished)
        for (status, reason), count in finished.outcomes.items():
            record.increase("mfhq_videos_finished_total", count, status=status, reason=reason)
        for status, seconds in finished.seconds:
            record.observe("mfhq_video_seconds", seconds, status=status)
        for stage, spent in state.seconds.items():
            self._grow("mfhq_stage_seconds_total", spent, stage=stage)
        for item, count in state.items.items():
            if item == "bytes":
                self._grow("mfhq_source_bytes_total", count)
            else:
                self._grow("mfhq_items_total", count, item=item)
        self._grow("mfhq_videos_retried_total", state.retried)
        self._grow("mfhq_passes_total", state.passes)
        self._nodes(state)
        self._operators(state)

    def _nodes(self, state: BuildState) -> None:
        assert self._recorder is not None  # noqa: S101 - made by the caller
        able = [node for node in state.nodes if node.alive and node.room]
        self._recorder.set("mfhq_nodes", len(able))
        self._recorder.set("mfhq_analyser_room", sum(node.room for node in able))
        self._recorder.set("mfhq_analysers", sum(node.analysers for node in able))
        for node in state.nodes:
            self._grow("mfhq_node_videos_total", node.videos, node=node.name)
            self._grow("mfhq_node_faults_total", node.faults, node=node.name)

    def _operators(self, state: BuildState) -> None:
        assert self._recorder is not None  # noqa: S101 - made by the caller
        for operator in state.operators:
            self._recorder.set("mfhq_operator_done", operator.done, operator=operator.name)
            if operator.total is not None:
                self._recorder.set("mfhq_operator_units", operator.total, operator=operator.name)
            left_s = operator.left_s if operator.name == state.operator else 0.0
            if left_s is not None:
                self._recorder.set("mfhq_operator_left_seconds", left_s, operator=operator.name)
        done = {operator.name: operator.done for operator in state.operators}
        if done != self._done:
            self._done = done
            self._recorder.set("mfhq_last_result_timestamp_seconds", time.time())

    def _grow(self, name: str, value: float, **labels: str) -> None:
        """Bring a counter to a value; one that fell stays where it was."""
        assert self._recorder is not None  # noqa: S101 - made by the caller
        key = (name, *labels.values())
        self._recorder.increase(name, value - self._published[key], **labels)
        self._published[key] = max(value, self._published[key])


class AnalyserMetrics:
    """What only an analyser knows.

    Args:
        dataset: name of the dataset.
    """

    def __init__(self, dataset: str) -> None:
        self._recorder = _Recorder(ANALYSER, dataset)
        self._recorder.increase("mfhq_analyser_starts_total", 1)
        self.busy(False)

    def busy(self, busy: bool) -> None:
        """Record whether this analyser is at work."""
        self._recorder.set("mfhq_analyser_busy", float(busy))
