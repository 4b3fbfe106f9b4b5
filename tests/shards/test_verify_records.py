"""Records that contradict themselves, each other or their position are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import shards_factory as factory
from damage import TRAIN_0, change_record, flip, found, offset_of, replace_member

from shards.findings import Check
from shards.verify import verify


def test_a_person_in_both_splits_is_named(root: Path) -> None:
    change_record(root, TRAIN_0, "clip-b_0", person_id="p-b1")
    factory.reseal(root)
    assert found(root) == {(Check.SPLIT_LEAKAGE, "person:p-b1")}


def test_a_record_of_another_split_is_named(root: Path) -> None:
    change_record(root, TRAIN_0, "clip-b_0", split="test")
    factory.reseal(root)
    assert (Check.WRONG_SPLIT, f"{TRAIN_0}:clip-b_0.json") in found(root)


def test_a_record_of_another_key_is_named(root: Path) -> None:
    change_record(root, TRAIN_0, "clip-b_0", key="clip-x_0")
    factory.reseal(root)
    assert (Check.BAD_RECORD, f"{TRAIN_0}:clip-b_0.json") in found(root)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"format_version": "1.0"}',
        b'{"format_version": "3.0"}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"format_version": ' + b"1" * 10_000 + b"}",
    ],
)
def test_a_record_that_cannot_be_read_is_named(root: Path, data: bytes) -> None:
    replace_member(root, TRAIN_0, "clip-b_0.json", data)
    assert (Check.BAD_RECORD, f"{TRAIN_0}:clip-b_0.json") in found(root)


def test_a_record_in_another_spelling_is_named(root: Path) -> None:
    taken = factory.Shard.take_apart(root / TRAIN_0)
    record = json.loads(taken.members[taken.index("clip-b_0.json")][1])
    replace_member(root, TRAIN_0, "clip-b_0.json", json.dumps(record, sort_keys=True).encode())
    factory.reseal(root)
    assert found(root) == {(Check.BAD_RECORD, f"{TRAIN_0}:clip-b_0.json")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embedding": [0.6, 0.6, 0.0]}, "its embedding has length 0.8485, not 1"),
        ({"track_end_s": -1.0}, "its track ends before it starts"),
        ({"embedding": None}, "only some of embedder, embedding and identity_cosine are null"),
        ({"embedder": None}, "only some of embedder, embedding and identity_cosine are null"),
    ],
)
def test_a_record_that_contradicts_itself_is_named(root: Path, changes: dict[str, Any], message: str) -> None:
    change_record(root, TRAIN_0, "clip-b_0", **changes)
    factory.reseal(root)
    findings = verify(root)
    assert [(finding.check, finding.message) for finding in findings] == [(Check.BAD_RECORD, message)]


def test_a_record_whose_frames_are_not_ascending_is_named(root: Path) -> None:
    taken = factory.Shard.take_apart(root / TRAIN_0)
    images = json.loads(taken.members[taken.index("clip-b_0.json")][1])["images"]
    images[3]["frame"] = images[2]["frame"]
    change_record(root, TRAIN_0, "clip-b_0", images=images)
    factory.reseal(root)
    assert found(root) == {(Check.BAD_RECORD, f"{TRAIN_0}:clip-b_0.json")}


def test_damage_to_a_record_does_not_hide_damage_to_its_images(root: Path) -> None:
    shard = root / TRAIN_0
    flip(shard, offset_of(shard, "clip-b_0.json")[1])
    flip(shard, offset_of(shard, "clip-b_0.4.jpg")[2] - 700)
    assert found(root) >= {
        (Check.BAD_RECORD, f"{TRAIN_0}:clip-b_0.json"),
        (Check.MEMBER_DIGEST, f"{TRAIN_0}:clip-b_0.4.jpg"),
    }
