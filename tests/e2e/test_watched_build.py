"""A build on a cluster is seen while it runs: by `mfhq status`, in Prometheus metrics and in its workers' logs."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from builds import Cluster, mfhq, start_build
from prometheus_client.parser import text_string_to_metric_families

from pipeline.monitor.metrics import METRICS, PREFIX
from pipeline.report import timings
from shards.reader import Dataset

pytestmark = [pytest.mark.ray, pytest.mark.slow]
NAME = "watched"
FACTS = (
    "import json, ray; ray.init(log_to_driver=False); node = ray.nodes()[0]\n"
    "print(json.dumps({'url': f\"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics\","
    " 'logs': ray._private.worker._global_node.get_logs_dir_path()}))"
)
OF_RAY = {"Component", "NodeAddress", "SessionName", "Version", "WorkerId"}
"""Labels that Ray adds; those of its exporter begin with `otel_`."""


@dataclass(frozen=True)
class Watched:
    """A build and what was seen of it.

    Attributes:
        output: of the build.
        seen: each status while it ran.
        log: its standard error.
        workers: lines of the workers' logs.
        samples: of each metric: labels and value.
        kinds: of each metric.
    """

    output: Path
    seen: list[dict[str, Any]]
    log: list[dict[str, Any]]
    workers: list[dict[str, Any]]
    samples: Mapping[str, list[tuple[dict[str, str], float]]]
    kinds: Mapping[str, str]


@pytest.fixture(scope="module")
def watched(cluster: Cluster, demo_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    folder = tmp_path_factory.mktemp("watched")
    output, log = folder / "mfhq", folder / "log"
    asked = subprocess.run(
        [sys.executable, "-c", FACTS], env=cluster.environment, capture_output=True, text=True, check=True
    )
    facts = json.loads(asked.stdout.splitlines()[-1])
    slower = "frames.per_second=30"  # it lasts long enough to be seen at work
    build = start_build(cluster, demo_clips, output, f"name={NAME}", slower, "--log-format=json", log=log)
    seen = []
    samples: dict[str, list[tuple[dict[str, str], float]]] = {}
    kinds: dict[str, str] = {}
    ended = threading.Event()

    def scrape_often() -> None:
        while not ended.wait(0.3):  # gauges end soon after the driver
            scrape(facts["url"], samples, kinds)

    scraper = threading.Thread(target=scrape_often, daemon=True)
    scraper.start()
    while build.poll() is None:
        if (output / ".staging").is_dir():
            found = mfhq(cluster, "status", str(output), "--json")
            assert found.returncode == 0, found.stderr
            seen.append(json.loads(found.stdout))
        time.sleep(1)
    assert build.returncode == 0, log.read_text()
    time.sleep(3)  # a process hands its metrics on once a second here
    ended.set()
    scraper.join()
    scrape(facts["url"], samples, kinds)
    workers = [
        json.loads(line)
        for path in Path(facts["logs"]).glob("worker-*.err")
        for line in path.read_text(errors="replace").splitlines()
        if line.startswith('{"time"')
    ]
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return Watched(output, seen, lines, workers, samples, kinds)


def scrape(url: str, samples: dict[str, list[tuple[dict[str, str], float]]], kinds: dict[str, str]) -> None:
    """Update the metrics of the build, without what Ray adds to names and labels."""
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - our own loopback address
        text = answer.read().decode()
    found: defaultdict[str, list[tuple[dict[str, str], float]]] = defaultdict(list)
    for family in text_string_to_metric_families(text):
        if not family.name.startswith(f"{PREFIX}mfhq_"):
            continue
        kinds[family.name.removeprefix(PREFIX)] = family.type
        for sample in family.samples:
            if sample.labels.get("dataset") == NAME:
                own = {
                    name: value
                    for name, value in sample.labels.items()
                    if name not in OF_RAY and not name.startswith("otel_")
                }
                del own["dataset"]
                found[sample.name.removeprefix(PREFIX)].append((own, sample.value))
    samples |= found


def test_the_status_follows_the_build(watched: Watched) -> None:
    builds = [status["build"] for status in watched.seen if status["build"] and status["state"] == "running"]
    assert builds
    finished = [build["videos"]["finished"] for build in builds]
    assert finished == sorted(finished)
    assert any(0 < count < 15 for count in finished)
    assert any(node["analysers"] for build in builds for node in build["nodes"])
    assert all(build["pid"] == builds[0]["pid"] for build in builds)
    curating = [each for build in builds for each in build["operators"] if each["name"] == "curate"]
    assert any(each["left_s"] for each in curating)


def test_metrics_have_the_counts_of_the_dataset(watched: Watched) -> None:
    videos = list(Dataset.open(watched.output).videos())
    found = {
        (labels["status"], labels["reason"]): value
        for labels, value in watched.samples["mfhq_videos_finished_total"]
    }
    assert found == Counter((video.status.value, str(video.reason or "")) for video in videos)
    items = {labels["item"]: value for labels, value in watched.samples["mfhq_items_total"]}
    assert items["frames"] == sum(video.analysed_frames for video in videos)
    assert items["faces"] == sum(video.faces_seen for video in videos)
    assert items["identities"] == sum(video.identities for video in videos)
    assert watched.samples["mfhq_source_bytes_total"] == [({}, sum(video.bytes for video in videos))]
    assert watched.samples["mfhq_videos"] == [({}, 15)]
    assert watched.samples["mfhq_videos_left"] == [({}, 0)]
    seconds: Counter[str] = Counter()
    timed = 0
    for batch in timings.kept(watched.output / "report/timings.parquet") or ():
        for steps in batch["seconds"].to_pylist():
            timed += bool(steps)
            seconds.update({row["step"]: row["seconds"] for row in steps})
    assert sum(value for _, value in watched.samples["mfhq_video_seconds_count"]) == timed
    for labels, value in watched.samples["mfhq_stage_seconds_total"]:
        assert value == pytest.approx(seconds[labels["stage"]], abs=0.1)


def test_metrics_are_those_that_are_declared_and_none_names_a_video(watched: Watched) -> None:
    declared = {metric.name.removesuffix("_total"): metric for metric in METRICS}
    only_when_something_fails = {"mfhq_node_faults", "mfhq_videos_retried"}
    assert declared.keys() - only_when_something_fails <= watched.kinds.keys() <= declared.keys()
    for name, kind in watched.kinds.items():
        assert kind == declared[name].kind
    ids = {video.video_id for video in Dataset.open(watched.output).videos()}
    for name, samples in watched.samples.items():
        base = name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum").removesuffix("_total")
        for labels, _ in samples:
            assert labels.keys() - {"le"} == set(declared[base].labels)
            assert not ids & set(labels.values())


def test_each_finished_video_is_one_line_of_a_worker_with_its_outcome(watched: Watched) -> None:
    build = {line["build"] for line in watched.workers if line["event"] == "worker_start"}
    assert build
    videos = {video.video_id: video for video in Dataset.open(watched.output).videos()}
    # The cluster's logs hold the builds of other tests as well.
    by_build: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in watched.workers:
        by_build[line["build"]].append(line)
    last = max(by_build.values(), key=lambda lines: lines[0]["time"])
    lines = [line for line in last if line["event"] == "video"]
    assert sorted(line["video_id"] for line in lines) == sorted(videos)
    for line in lines:
        video = videos[line["video_id"]]
        assert (line["status"], line["reason"], line["detail"]) == (video.status, video.reason, video.detail)
        assert line["attempt"] == 1
        assert line["node"]
        assert line["seconds"] == pytest.approx(sum(line["stages"].values()), abs=0.01)


def test_the_driver_logs_json_and_no_line_for_each_video(watched: Watched) -> None:
    events = Counter(line["event"] for line in watched.log)
    assert events["progress"] >= 10
    assert "video" not in events
    operators = {line["operator"] for line in watched.log if line["event"] == "progress"}
    assert {"curate", "collect", "pack", "verify", "report"} <= operators
    curate = [line for line in watched.log if line.get("operator") == "curate"]
    assert (curate[-1]["done"], curate[-1]["total"]) == (15, 15)
    assert curate[-1]["statuses"] == {"accepted": 9, "rejected": 4, "failed": 2}
    assert curate[-1]["reasons"]["rejected"] == {"crop_too_small": 2, "face_cut_off": 1, "no_face": 1}


def test_the_status_of_the_finished_build_is_that_of_the_dataset(watched: Watched, cluster: Cluster) -> None:
    found = mfhq(cluster, "status", str(watched.output))
    assert found.returncode == 0, found.stderr
    assert f"{watched.output}: finished" in found.stdout
    assert "videos      15: 9 accepted  4 rejected  2 failed" in found.stdout
    assert "rejected    2 crop_too_small, 1 face_cut_off, 1 no_face" in found.stdout
