"""The dashboard and the documentation name the metrics that exist, with the labels that they have."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pipeline.monitor.metrics import METRICS, PREFIX

REPOSITORY = Path(__file__).parents[3]
DASHBOARD = REPOSITORY / "workflows/curate/grafana-dashboard.json"
CLUSTERS = REPOSITORY / "docs/clusters.md"
OF_RAY = {"NodeAddress"}
SERIES = {
    f"{PREFIX}{metric.name}{part}": {"dataset", *metric.labels} | ({"le"} if part else set())
    for metric in METRICS
    for part in (("_bucket", "_count", "_sum") if metric.kind == "histogram" else ("",))
}


def expressions() -> list[str]:
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def documented() -> list[str]:
    """The expressions of the documentation, each a block of PromQL."""
    return re.findall(r"```promql\n(.*?)```", CLUSTERS.read_text(encoding="utf-8"), re.DOTALL)


def check(expression: str) -> None:
    names = re.findall(rf"\b{PREFIX}mfhq_\w+", expression)
    assert names
    assert set(names) <= SERIES.keys()
    known = set().union(*(SERIES[name] for name in names)) | OF_RAY
    used = re.findall(r'(\w+)\s*(?:=~|!=|!~|=)\s*"', expression)
    for labels in re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", expression):
        used += [label.strip() for label in labels.split(",")]
    assert set(used) <= known
    assert expression.count("(") == expression.count(")")


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    for expression in expressions():
        check(expression)


def test_the_dashboard_shows_what_an_operator_looks_for() -> None:
    shown = {name for expression in expressions() for name in re.findall(r"mfhq_\w+", expression)}
    assert {
        "mfhq_videos_left",
        "mfhq_videos_finished_total",
        "mfhq_node_faults_total",
        "mfhq_analysers",
    } <= shown


def test_panels_do_not_overlap_and_have_distinct_ids() -> None:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (place["x"] + right, place["y"] + down)
            for right in range(place["w"])
            for down in range(place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_the_documented_alerts_ask_for_metrics_that_exist() -> None:
    blocks = documented()
    assert len(blocks) >= 3
    for block in blocks:
        check(block)


def test_the_documented_table_lists_every_metric_with_its_labels() -> None:
    rows = re.findall(
        r"^\| `(ray_mfhq_\w+)` \| (\w+) \|([^|]*)\|", CLUSTERS.read_text(encoding="utf-8"), re.MULTILINE
    )
    found = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert found == {f"{PREFIX}{metric.name}": (metric.kind, metric.labels) for metric in METRICS}


def test_names_follow_the_conventions_of_prometheus() -> None:
    for metric in METRICS:
        assert re.fullmatch(r"mfhq_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert not set(metric.labels) & {"video", "video_id", "uri", "detail"}
