"""A dataset in its official layout is built from downloads, by its time spans and boxes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import av
import pytest
from builds import Cluster, build, mfhq

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


def four_trees(root: Path, clips: Path, metadata: Path) -> list[str]:
    """The four datasets as they are downloaded, with their genuine annotations and other people's videos."""
    excerpt = metadata / "celebv-hq" / "celebvhq_info.excerpt_M2Ohb0FAaJU_1.json"
    frames = root / "vfhq" / "Clip+XZ2qCoO0gbU+P0+C2+F157105-157607"
    places = {
        "celebv-hq/downloaded_celebvhq/processed/M2Ohb0FAaJU_1.mp4": "lp_d14.mp4",
        "celebv-text/sp_0002/oC9r-CTbToE_0_0.mp4.mp4": "st_aoc.mp4",
        "celebv-text/sp_0002/oC9r-CTbToE_0_1.mp4.mp4": "st_aoc.mp4",
        "talkinghead-1kh/small/1min_clips/--Y9imYnfBw_0000.mp4": "sr_2.mp4",
    }
    for place, clip in places.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clips / clip, root / place)
    shutil.copy(excerpt, root / "celebv-hq" / "celebvhq_info.json")
    shutil.copy(
        metadata / "celebv-text" / "celebvtext_info.sample.json",
        root / "celebv-text" / "celebvtext_info.json",
    )
    shutil.copy(metadata / "talkinghead-1kh" / "small_video_tubes.txt", root / "talkinghead-1kh")
    frames.mkdir(parents=True)
    with av.open(str(clips / "mead_M003.mp4")) as container:
        for number, frame in enumerate(container.decode(video=0)):
            frame.to_image().save(frames / f"{number:08d}.jpg", quality=95)
    names = ("celebv-hq", "vfhq", "talkinghead-1kh", "celebv-text")
    return [f"sources.{name}.path={root / name}" for name in names]


def test_the_four_datasets_are_planned_and_built_together(
    cluster: Cluster, clips: Path, metadata: Path, tmp_path: Path
) -> None:
    output = tmp_path / "mfhq"
    embedded = [
        "models.detector=yunet",
        "models.embedder=sface",
        "models.quality=piqe",
        "faces.min_crop_px=220",
    ]
    arguments = ["workflows/curate_mfhq.yaml", *four_trees(tmp_path / "trees", clips, metadata), *embedded]

    planned = mfhq(cluster, "plan", *arguments, "--json")
    assert planned.returncode == 0, planned.stderr
    plan = json.loads(planned.stdout)["sources"]
    assert {name: (source["listed"], source["found"]) for name, source in plan.items()} == {
        "celebv-hq": (1, 1),
        "vfhq": (1, 1),
        "talkinghead-1kh": (4, 2),
        "celebv-text": (43, 2),
    }

    made = mfhq(cluster, "build", *arguments, f"output={output}")

    assert made.returncode == 0, made.stderr
    assert verify(output) == []
    dataset = Dataset.open(output)
    outcomes = {video.video_id: video for video in dataset.videos()}
    print(planned.stdout, made.stdout)
    assert {video_id: (str(video.status), video.reason) for video_id, video in outcomes.items()} == {
        "celebv-hq/M2Ohb0FAaJU_1": ("accepted", None),
        "celebv-text/oC9r-CTbToE_0_0": ("accepted", None),
        "celebv-text/oC9r-CTbToE_0_1": ("rejected", "duplicate_video"),
        "talkinghead-1kh/--Y9imYnfBw_0000_S0_E271_L504_T63_R792_B351": ("accepted", None),
        "talkinghead-1kh/--Y9imYnfBw_0000_S1015_E1107_L488_T23_R824_B359": ("rejected", "too_short"),
        "vfhq/Clip+XZ2qCoO0gbU+P0+C2+F157105-157607": ("accepted", None),
    }
    frames = outcomes["vfhq/Clip+XZ2qCoO0gbU+P0+C2+F157105-157607"]
    assert (frames.container, frames.frames, frames.fps, frames.origin, frames.source_person) == (
        "frames",
        118,
        25,
        "XZ2qCoO0gbU",
        "P0",
    )
    tube = outcomes["talkinghead-1kh/--Y9imYnfBw_0000_S0_E271_L504_T63_R792_B351"]
    assert tube.license == "CC BY 3.0 by the authors of the videos"
    assert tube.span_s == (0, 10.88)
    lines = (output / "report" / "not_accepted.tsv").read_text().splitlines()
    assert sum(line.startswith("missing\t") for line in lines) == 2 + 41
