"""A dataset in its official layout is built from downloads, by its time spans and boxes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from builds import Cluster, build

from shards.reader import Dataset
from shards.schema import Attribute
from shards.verify import verify

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ORIGIN = "-abcdefghi_"


def entry(start: float, end: float, left: float, right: float) -> dict[str, Any]:
    return {
        "ytb_id": ORIGIN,
        "duration": {"start_sec": start, "end_sec": end},
        "bbox": {"top": 0.0, "bottom": 1.0, "left": left, "right": right},
        "attributes": {"appearance": [1], "action": [0], "emotion": {"sep_flag": False, "labels": "neutral"}},
    }


def test_two_people_of_one_download_are_two_clips(cluster: Cluster, demo_clips: Path, tmp_path: Path) -> None:
    root = tmp_path / "celebv-hq"
    (root / "raw").mkdir(parents=True)
    shutil.copy(demo_clips / "two-people.webm", root / "raw" / f"{ORIGIN}.webm")
    clips = {
        f"{ORIGIN}_0": entry(0, 60, 0.0, 0.5),
        f"{ORIGIN}_1": entry(0, 60, 0.5, 1.0),
        f"{ORIGIN}_2": entry(0.5, 0.6, 0.0, 1.0),
        "ABCDEFGHIJK_0": entry(0, 60, 0, 1) | {"ytb_id": "ABCDEFGHIJK"},
    }
    names = {"appearance_mapping": ["young"], "action_mapping": ["talk"]}
    (tmp_path / "celebvhq_info.json").write_text(json.dumps({"meta_info": names, "clips": clips}))
    output = tmp_path / "mfhq"

    made = build(cluster, root, output, "source.kind=celebv-hq", "source.license=research only")

    assert made.returncode == 0, made.stderr
    assert "1 of 4 annotated clips have no file: ABCDEFGHIJK_0." in made.stderr
    assert verify(output) == []
    dataset = Dataset.open(output)
    outcomes = {video.video_id.rpartition("/")[2]: video for video in dataset.videos()}
    assert {key: video.identities for key, video in outcomes.items()} == {
        f"{ORIGIN}_0": 1,
        f"{ORIGIN}_1": 1,
        f"{ORIGIN}_2": 0,
    }
    assert outcomes[f"{ORIGIN}_2"].reason == "too_short"
    records = {sample.record.video_id: sample.record for sample in dataset.samples()}
    left, right = records[f"demo/{ORIGIN}_0"], records[f"demo/{ORIGIN}_1"]
    assert left.annotated_box == (0.0, 0.0, 0.5, 1.0)
    assert (left.origin, left.license, left.span_s) == (ORIGIN, "research only", (0, 60))
    assert Attribute(name="appearance", value="young") in left.attributes
    assert left.person_id != right.person_id
    assert max(image.box_px[0] for image in left.images) < min(image.box_px[0] for image in right.images)
