"""Shards from folders of photographs: a whole data set of people, apart by split."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from shards.reader import Dataset
from shards.schema import Split
from shards.verify import verify

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "photo_shards.py"


@pytest.mark.slow
def test_people_become_samples_of_eight_and_stay_in_one_split(faces_folder: Path, tmp_path: Path) -> None:
    people = [path for path in sorted(faces_folder.iterdir()) if path.is_dir()][:4]
    (tmp_path / "people").mkdir()
    for person in people:
        (tmp_path / "people" / person.name).symlink_to(person.resolve())
    command = [sys.executable, SCRIPT, tmp_path / "people", tmp_path / "shards", "--held-out", "1"]
    subprocess.run(command, check=True, capture_output=True)

    assert verify(tmp_path / "shards") == []
    dataset = Dataset.open(tmp_path / "shards")
    test = {sample.record.person_id for sample in dataset.samples(Split.TEST)}
    train = [sample.record.person_id for sample in dataset.samples(Split.TRAIN)]
    assert len(test) == 1
    assert test | set(train) == {person.name for person in people}
    assert test.isdisjoint(train)
    photographs = sum(len(list(person.iterdir())) for person in people)
    assert 8 * len(dataset.keys()) > photographs - 8 * len(people)
    assert "not curated" in str(dataset.metadata.provenance.config["what"])


@pytest.mark.slow
def test_a_mirror_shows_other_people_to_train_on_and_nobody_who_is_held_out(tmp_path: Path) -> None:
    portrait = Image.fromarray(skimage.data.astronaut())
    for name in ("anna", "berta", "clara"):
        (tmp_path / "people" / name).mkdir(parents=True)
        for number in range(8):
            portrait.save(tmp_path / "people" / name / f"{number}.png")
    command = [
        sys.executable,
        SCRIPT,
        tmp_path / "people",
        tmp_path / "shards",
        "--held-out",
        "1",
        "--mirrored",
    ]
    subprocess.run(command, check=True, capture_output=True)

    assert verify(tmp_path / "shards") == []
    dataset = Dataset.open(tmp_path / "shards")
    (held_out,) = (sample.record.person_id for sample in dataset.samples(Split.TEST))
    seen = {sample.record.person_id: sample.record for sample in dataset.samples(Split.TRAIN)}
    people = {"anna", "berta", "clara"} - {held_out}
    assert set(seen) == people | {f"{name}_mirrored" for name in people}
    for name in people:
        left, _, right, _ = seen[name].images[0].box_px
        found = seen[f"{name}_mirrored"].images[0].box_px
        assert abs(left - (portrait.width - right)) > 30
        assert found[0] == pytest.approx(portrait.width - right, abs=15)


def test_more_people_to_hold_out_than_there_are_is_refused(tmp_path: Path) -> None:
    (tmp_path / "people" / "somebody").mkdir(parents=True)
    command = [sys.executable, SCRIPT, tmp_path / "people", tmp_path / "shards", "--held-out", "1"]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 2
    assert "has 0 people with 8 photographs or more, and 1 are to be held out" in " ".join(
        result.stderr.split()
    )


@pytest.mark.slow
def test_names_of_any_kind_become_keys_and_only_people_with_enough_are_held_out(tmp_path: Path) -> None:
    portrait = tmp_path / "astronaut.png"
    Image.fromarray(skimage.data.astronaut()).save(portrait)
    for name, photographs in (
        ("Zoë O'Neil Jr.", 8),
        ("佐藤 花子", 8),
        ("few", 7),
        ("fewer", 1),
        ("plain_one", 9),
    ):
        (tmp_path / "people" / name).mkdir(parents=True)
        for number in range(photographs):
            shutil.copy(portrait, tmp_path / "people" / name / f"{number}.png")
    command = [sys.executable, SCRIPT, tmp_path / "people", tmp_path / "shards", "--held-out", "2"]
    result = subprocess.run(command, check=True, capture_output=True, text=True)

    assert "held out: 2 people, of 2 who were drawn" in result.stdout
    assert verify(tmp_path / "shards") == []
    dataset = Dataset.open(tmp_path / "shards")
    samples = [sample for split in Split for sample in dataset.samples(split)]
    keys = {sample.record.person_id: sample.record.key for sample in samples}
    assert set(keys) == {"Zoë O'Neil Jr.", "佐藤 花子", "plain_one"}
    assert keys["plain_one"] == "plain_one_0"
    assert re.fullmatch(r"Zoe-O-Neil-Jr_[0-9a-f]{10}_0", keys["Zoë O'Neil Jr."])
    assert re.fullmatch(r"_[0-9a-f]{10}_0", keys["佐藤 花子"])
