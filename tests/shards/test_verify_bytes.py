"""Damaged bytes are found, in archives, headers and padding, and the member is named."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
import shards_factory as factory
from damage import TEST, TRAIN_0, TRAIN_1, change_shard, flip, found, offset_of

from shards.findings import Check
from shards.verify import verify


def test_a_sound_dataset_has_no_errors(pristine: Path) -> None:
    seen: list[int] = []
    assert verify(pristine, seen.append) == []
    assert seen == [1, 2, 3, 4, 5]


def test_taking_a_dataset_apart_and_together_changes_nothing(root: Path) -> None:
    before = factory.snapshot(root)
    for name in (TEST, TRAIN_0, TRAIN_1):
        change_shard(root, name, lambda _: None)
    factory.reseal(root)
    assert factory.snapshot(root) == before


@pytest.mark.parametrize(
    ("member", "kind"),
    [
        ("clip-b_0.5.jpg", Check.BAD_IMAGE),
        ("clip-b_0.5.mask.png", Check.BAD_MASK),
        ("clip-b_0.landmarks.npy", Check.BAD_LANDMARKS),
    ],
)
def test_a_flipped_byte_of_an_image_names_the_member(root: Path, member: str, kind: Check) -> None:
    shard = root / TRAIN_0
    flip(shard, offset_of(shard, member)[1])
    where = f"{TRAIN_0}:{member}"
    assert found(root) == {
        (Check.FILE_DIGEST, TRAIN_0),
        (Check.MEMBER_DIGEST, where),
        (kind, where),
    }


def test_a_flipped_digit_of_a_record_names_the_member(root: Path) -> None:
    shard = root / TRAIN_0
    start = offset_of(shard, "clip-b_0.json")[1]
    place = shard.read_bytes().index(b"box_px", start) + len('box_px":[')
    data = bytearray(shard.read_bytes())
    data[place] = ord("1") + (data[place] == ord("1"))
    shard.write_bytes(data)
    assert found(root) == {
        (Check.FILE_DIGEST, TRAIN_0),
        (Check.MEMBER_DIGEST, f"{TRAIN_0}:clip-b_0.json"),
    }


@pytest.mark.parametrize("byte", [0, 130, 150, 258, 511])
def test_a_flipped_byte_of_a_header_names_the_member(root: Path, byte: int) -> None:
    shard = root / TRAIN_0
    flip(shard, offset_of(shard, "clip-b_0.5.jpg")[0] + byte)
    assert found(root) == {
        (Check.FILE_DIGEST, TRAIN_0),
        (Check.TAR_HEADER, f"{TRAIN_0}:clip-b_0.5.jpg"),
    }


def test_a_flipped_byte_of_the_padding_names_the_member(root: Path) -> None:
    shard = root / TRAIN_0
    flip(shard, offset_of(shard, "clip-b_0.5.jpg")[2])
    assert found(root) == {
        (Check.FILE_DIGEST, TRAIN_0),
        (Check.TAR_PADDING, f"{TRAIN_0}:clip-b_0.5.jpg"),
    }


@pytest.mark.parametrize("from_end", [1, 1024])
def test_a_flipped_byte_of_the_end_of_an_archive_is_found(root: Path, from_end: int) -> None:
    shard = root / TRAIN_0
    flip(shard, shard.stat().st_size - from_end)
    kinds = {kind for kind, where in found(root) if where == TRAIN_0}
    assert Check.FILE_DIGEST in kinds
    assert kinds & {Check.TAR_END, Check.TAR_HEADER}


def test_bytes_after_the_end_of_an_archive_are_found(root: Path) -> None:
    with (root / TRAIN_0).open("ab") as file:
        file.write(bytes(512))
    assert found(root) == {(Check.FILE_DIGEST, TRAIN_0), (Check.TAR_END, TRAIN_0)}


def test_a_truncated_shard_loses_only_what_was_cut(root: Path) -> None:
    shard = root / TRAIN_0
    cut = offset_of(shard, "clip-b_0.7.mask.png")[1] + 10
    with shard.open("r+b") as file:
        file.truncate(cut)
    assert found(root) >= {
        (Check.FILE_DIGEST, TRAIN_0),
        (Check.TAR_END, f"{TRAIN_0}:clip-b_0.7.mask.png"),
        (Check.MISSING_MEMBER, f"{TRAIN_0}:clip-b_0.7.mask.png"),
        (Check.MISSING_MEMBER, f"{TRAIN_0}:clip-b_0.json"),
    }
    assert not any("clip-b_0.6" in where or "clip-a" in where for _, where in found(root))


def test_a_damaged_header_of_the_last_member_loses_nothing(root: Path) -> None:
    flip(root / TRAIN_0, offset_of(root / TRAIN_0, "clip-b_0.json")[0] + 130)
    assert found(root) == {
        (Check.FILE_DIGEST, TRAIN_0),
        (Check.TAR_HEADER, f"{TRAIN_0}:clip-b_0.json"),
    }


@pytest.mark.parametrize("kind", [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE, tarfile.XHDTYPE])
def test_a_member_that_is_no_regular_file_is_named_and_the_others_are_read(root: Path, kind: bytes) -> None:
    with tarfile.open(root / TRAIN_0) as tar:
        info = tar.getmember("clip-b_0.5.jpg")
        offset = info.offset
    info.type, info.linkname = kind, "/etc/passwd"
    data = bytearray((root / TRAIN_0).read_bytes())
    data[offset : offset + 512] = info.tobuf(tarfile.USTAR_FORMAT)
    (root / TRAIN_0).write_bytes(data)
    findings = {(check, where) for check, where in found(root) if where != TRAIN_0}
    assert (Check.TAR_HEADER, f"{TRAIN_0}:clip-b_0.5.jpg") in findings
    assert {where for _, where in findings} <= {
        f"{TRAIN_0}:clip-b_0.5.jpg",
        "index-g0000.parquet:clip-b_0",
        f"{TRAIN_0}:clip-b_0",
    }


def test_a_damaged_header_without_an_index_loses_only_its_member(root: Path) -> None:
    shard = root / TRAIN_0
    flip(shard, offset_of(shard, "clip-b_0.5.jpg")[0])
    (root / "index-g0000.parquet").unlink()
    assert found(root) == {
        (Check.FILE_DIGEST, TRAIN_0),
        (Check.MISSING_FILE, "index-g0000.parquet"),
        (Check.TAR_HEADER, TRAIN_0),
        (Check.MISSING_MEMBER, f"{TRAIN_0}:clip-b_0.5.jpg"),
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [("mtime", 1), ("uid", 1000), ("gid", 5), ("mode", 0o600), ("uname", "root"), ("gname", "root")],
)
def test_a_header_field_that_is_not_canonical_is_named(root: Path, field: str, value: object) -> None:
    with tarfile.open(root / TRAIN_0) as tar:
        info = tar.getmember("clip-b_0.5.jpg")
        offset = info.offset
    setattr(info, field, value)
    data = bytearray((root / TRAIN_0).read_bytes())
    data[offset : offset + 512] = info.tobuf(tarfile.USTAR_FORMAT)
    (root / TRAIN_0).write_bytes(data)
    factory.reseal(root)
    findings = verify(root)
    assert [(finding.check, finding.where) for finding in findings] == [
        (Check.TAR_HEADER, f"{TRAIN_0}:clip-b_0.5.jpg")
    ]
    assert f"header is not canonical: {field} {value!r}" in findings[0].message
