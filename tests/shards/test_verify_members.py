"""Members, samples and shards that are missing, too many, out of order or of the wrong kind are named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import shards_factory as factory
from damage import TRAIN_0, TRAIN_1, change_record, change_shard, found, replace_member

from shards.findings import Check
from shards.landmarks import HEADER, SIZE
from shards.layout import LANDMARKS_FIELD
from shards.reader import Dataset
from shards.tar import members
from shards.verify import verify


def with_damaged_scan(jpeg: bytes) -> bytes:
    """Damage that only a decoder notices: FFmpeg's and Pillow's go on with grey blocks."""
    middle = len(jpeg) // 2
    return jpeg[:middle] + bytes(200) + jpeg[middle + 200 :]


def with_odd_sampling(jpeg: bytes) -> bytes:
    """A frame header with a chroma subsampling that simplejpeg has no name for."""
    at = jpeg.index(b"\xff\xc0") + 11
    return jpeg[:at] + b"\x14" + jpeg[at + 1 :]


def test_a_missing_member_is_named(root: Path) -> None:
    change_shard(root, TRAIN_0, lambda shard: shard.members.pop(shard.index("clip-b_0.5.jpg")))
    factory.reseal(root)
    assert found(root) == {(Check.MISSING_MEMBER, f"{TRAIN_0}:clip-b_0.5.jpg")}


@pytest.mark.parametrize("name", ["notes.txt", "clip-b_0.8.jpg", "../evil.jpg", "/etc/x.0.png"])
def test_an_extra_member_is_named(root: Path, name: str) -> None:
    change_shard(root, TRAIN_0, lambda shard: shard.members.append((name, b"x")))
    assert found(root) == {
        (Check.EXTRA_MEMBER, f"{TRAIN_0}:{name}"),
        (Check.FILE_DIGEST, TRAIN_0),
    }


def test_a_member_that_occurs_twice_is_named(root: Path) -> None:
    def twice(shard: factory.Shard) -> None:
        at = shard.index("clip-b_0.5.jpg")
        shard.members.insert(at, shard.members[at])

    change_shard(root, TRAIN_0, twice)
    factory.reseal(root)
    assert found(root) == {(Check.EXTRA_MEMBER, f"{TRAIN_0}:clip-b_0.5.jpg")}


def test_members_out_of_order_are_found(root: Path) -> None:
    def swap(shard: factory.Shard) -> None:
        first = shard.index("clip-b_0.5.jpg")
        shard.members[first : first + 2] = reversed(shard.members[first : first + 2])

    change_shard(root, TRAIN_0, swap)
    factory.reseal(root)
    assert found(root) == {(Check.MEMBER_ORDER, f"{TRAIN_0}:clip-b_0")}


def test_samples_out_of_order_are_found(root: Path) -> None:
    change_shard(
        root,
        TRAIN_0,
        lambda shard: shard.members.__setitem__(slice(None), [*shard.members[18:], *shard.members[:18]]),
    )
    factory.reseal(root)
    assert found(root) == {
        (Check.SAMPLE_ORDER, f"{TRAIN_0}:clip-a_0"),
        (Check.INDEX_DISAGREES, "index-g0000.parquet:clip-a_0"),
    }


def test_a_missing_shard_is_named(root: Path) -> None:
    (root / TRAIN_1).unlink()
    findings = found(root)
    assert (Check.MISSING_FILE, TRAIN_1) in findings
    assert (Check.INDEX_DISAGREES, "index-g0000.parquet:clip-c_0") in findings
    assert (Check.WRONG_COUNT, "dataset.json:counts.identities") in findings


@pytest.mark.parametrize(
    "name",
    [
        "train/mfhq-train-000002-g0000.tar",
        "test/more.tar",
        "train/.hidden",
    ],
)
def test_an_extra_file_beside_the_shards_is_named(root: Path, name: str) -> None:
    shutil.copy(root / TRAIN_0, root / name)
    assert found(root) == {(Check.EXTRA_FILE, name)}


def test_a_shard_that_is_a_folder_is_reported(root: Path) -> None:
    (root / TRAIN_1).unlink()
    (root / TRAIN_1).mkdir()
    assert (Check.UNREADABLE_FILE, TRAIN_1) in found(root)


def test_a_key_in_two_shards_is_found(root: Path) -> None:
    taken = factory.Shard.take_apart(root / TRAIN_0)
    change_shard(root, TRAIN_1, lambda shard: shard.members.extend(taken.members[17:]))
    factory.reseal(root)
    assert (Check.DUPLICATE_KEY, f"{TRAIN_1}:clip-b_0") in found(root)
    assert (Check.INDEX_DISAGREES, "index-g0000.parquet:clip-b_0") in found(root)


@pytest.mark.parametrize(
    ("field", "data", "kind"),
    [
        ("2.jpg", factory.jpeg(1, (512, 511)), Check.BAD_IMAGE),
        ("2.jpg", factory.jpeg(1, (1024, 1024)), Check.BAD_IMAGE),
        ("2.jpg", factory.jpeg(1, mode="L"), Check.BAD_IMAGE),
        ("2.jpg", factory.mask(1, mode="RGB"), Check.BAD_IMAGE),
        ("2.jpg", factory.jpeg(1)[:4000], Check.BAD_IMAGE),
        ("2.jpg", with_damaged_scan(factory.jpeg(1)), Check.BAD_IMAGE),
        ("2.jpg", with_odd_sampling(factory.jpeg(1)), Check.BAD_IMAGE),
        ("2.jpg", b"", Check.BAD_IMAGE),
        ("2.mask.png", factory.mask(1, (256, 256)), Check.BAD_MASK),
        ("2.mask.png", factory.mask(1, mode="RGB"), Check.BAD_MASK),
        ("2.mask.png", factory.jpeg(1, mode="L"), Check.BAD_MASK),
        ("landmarks.npy", HEADER, Check.BAD_LANDMARKS),
        ("landmarks.npy", HEADER.replace(b"<f4", b"<i4").ljust(SIZE), Check.BAD_LANDMARKS),
        ("landmarks.npy", HEADER + b"\xff" * (SIZE - len(HEADER)), Check.BAD_LANDMARKS),
    ],
)
def test_a_member_of_the_wrong_kind_or_size_is_named(
    root: Path, field: str, data: bytes, kind: Check
) -> None:
    _store_member(root, field, data)
    assert found(root) == {(kind, f"{TRAIN_0}:clip-b_0.{field}")}


def test_a_mask_of_other_greys_than_black_and_white_is_named(root: Path) -> None:
    grey = factory.png(np.full((512, 512), 128, np.uint8))
    _store_member(root, "2.mask.png", grey)
    assert found(root) == {(Check.BAD_MASK, f"{TRAIN_0}:clip-b_0.2.mask.png")}


def test_a_mask_of_one_bit_a_pixel_is_sound(root: Path) -> None:
    _store_member(root, "2.mask.png", factory.mask(1, mode="1"))
    assert found(root) == set()


def test_findings_are_in_the_order_of_the_samples(root: Path) -> None:
    _store_member(root, "2.jpg", factory.jpeg(1, (512, 511)), sample="clip-a_0")
    change_record(root, TRAIN_0, "clip-b_0", person_id="")
    assert [finding.where for finding in verify(root) if finding.where.startswith(f"{TRAIN_0}:")] == [
        f"{TRAIN_0}:clip-a_0.2.jpg",
        f"{TRAIN_0}:clip-b_0.json",
    ]


def test_a_shard_that_agrees_with_its_index_is_read_as_without_one(root: Path) -> None:
    index = Dataset.open(root)._index
    known = {
        offset: (f"{key}.{field}", size)
        for key in ("clip-a_0", "clip-b_0")
        for field, (offset, size) in index.locate(key).members.items()
    }
    with (root / TRAIN_0).open("rb") as file:
        plain = list(members(file, {}))
        assert list(members(file, known)) == plain
        assert len(plain) == len(known) == 36
        for offset, (name, size) in known.items():
            for wrong in ((f"{name}x", size), (f"{name}\0", size), (name, size + 1), (name, 2**40), ("", 0)):
                assert list(members(file, known | {offset: wrong})) == plain


def _store_member(root: Path, field: str, data: bytes, sample: str = "clip-b_0") -> None:
    """Put a member into a sample with all digests brought up to date."""
    taken = factory.Shard.take_apart(root / TRAIN_0)
    record = json.loads(taken.members[taken.index(f"{sample}.json")][1])
    if field == LANDMARKS_FIELD:
        changed = {"landmarks_sha256": factory.sha256(data)}
    else:
        name = "mask_sha256" if field.endswith("png") else "sha256"
        record["images"][int(field[0])][name] = factory.sha256(data)
        changed = {"images": record["images"]}
    replace_member(root, TRAIN_0, f"{sample}.{field}", data)
    change_record(root, TRAIN_0, sample, **changed)
    factory.reseal(root)
