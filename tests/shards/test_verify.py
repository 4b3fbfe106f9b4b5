"""Every kind of problem is found, is named, and hides no other."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shards_factory as factory

from shards.atomic import write_parquet
from shards.manifest import DataSetError, decode_manifest, encode_manifest
from shards.problems import Kind
from shards.reader import Dataset
from shards.schema import Reason, Split, Status
from shards.verify import verify

TEST, TRAIN_0, TRAIN_1 = (
    "test/mfhq-test-000000.tar",
    "train/mfhq-train-000000.tar",
    "train/mfhq-train-000001.tar",
)


def found(root: Path) -> set[tuple[Kind, str]]:
    return {(problem.kind, problem.where) for problem in verify(root)}


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def offset_of(shard: Path, member: str) -> tuple[int, int, int]:
    """Offsets of a member's header, its data and its padding."""
    with tarfile.open(shard) as tar:
        info = tar.getmember(member)
    return info.offset, info.offset_data, info.offset_data + info.size


def change_shard(root: Path, name: str, change: Callable[[factory.Shard], None]) -> None:
    shard = factory.Shard.take_apart(root / name)
    change(shard)
    shard.put_together()


def replace_member(root: Path, shard: str, member: str, data: bytes) -> None:
    def change(taken: factory.Shard) -> None:
        taken.members[taken.index(member)] = (member, data)

    change_shard(root, shard, change)


def change_record(root: Path, shard: str, sample: str, /, **changes: Any) -> None:
    taken = factory.Shard.take_apart(root / shard)
    record = json.loads(taken.members[taken.index(f"{sample}.json")][1])
    record.update(changes)
    data = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    replace_member(root, shard, f"{sample}.json", data)


def test_a_sound_data_set_has_no_problems(pristine: Path) -> None:
    seen: list[int] = []
    assert verify(pristine, seen.append) == []
    assert seen == [1, 2, 3, 4, 5]


def test_taking_a_data_set_apart_and_together_changes_nothing(root: Path) -> None:
    before = factory.snapshot(root)
    for name in (TEST, TRAIN_0, TRAIN_1):
        change_shard(root, name, lambda _: None)
    factory.reseal(root)
    assert factory.snapshot(root) == before


@pytest.mark.parametrize(
    ("member", "kind"),
    [("clip-b_0.5.jpg", Kind.BAD_IMAGE), ("clip-b_0.5.mask.png", Kind.BAD_MASK)],
)
def test_a_flipped_byte_of_an_image_names_the_member(root: Path, member: str, kind: Kind) -> None:
    shard = root / TRAIN_0
    flip(shard, offset_of(shard, member)[1])
    where = f"{TRAIN_0}:{member}"
    assert found(root) == {(Kind.FILE_DIGEST, TRAIN_0), (Kind.MEMBER_DIGEST, where), (kind, where)}


def test_a_flipped_digit_of_a_record_names_the_member(root: Path) -> None:
    shard = root / TRAIN_0
    start = offset_of(shard, "clip-b_0.json")[1]
    place = shard.read_bytes().index(b"landmarks_crop_px", start) + len('landmarks_crop_px":[[')
    data = bytearray(shard.read_bytes())
    data[place] = ord("1") + (data[place] == ord("1"))
    shard.write_bytes(data)
    assert found(root) == {(Kind.FILE_DIGEST, TRAIN_0), (Kind.MEMBER_DIGEST, f"{TRAIN_0}:clip-b_0.json")}


@pytest.mark.parametrize("byte", [0, 130, 150, 258, 511])
def test_a_flipped_byte_of_a_header_names_the_member(root: Path, byte: int) -> None:
    shard = root / TRAIN_0
    flip(shard, offset_of(shard, "clip-b_0.5.jpg")[0] + byte)
    assert found(root) == {(Kind.FILE_DIGEST, TRAIN_0), (Kind.TAR_HEADER, f"{TRAIN_0}:clip-b_0.5.jpg")}


def test_a_flipped_byte_of_the_padding_names_the_member(root: Path) -> None:
    shard = root / TRAIN_0
    flip(shard, offset_of(shard, "clip-b_0.5.jpg")[2])
    assert found(root) == {(Kind.FILE_DIGEST, TRAIN_0), (Kind.TAR_PADDING, f"{TRAIN_0}:clip-b_0.5.jpg")}


@pytest.mark.parametrize("from_end", [1, 1024])
def test_a_flipped_byte_of_the_end_of_an_archive_is_found(root: Path, from_end: int) -> None:
    shard = root / TRAIN_0
    flip(shard, shard.stat().st_size - from_end)
    kinds = {kind for kind, where in found(root) if where == TRAIN_0}
    assert Kind.FILE_DIGEST in kinds
    assert kinds & {Kind.TAR_END, Kind.TAR_HEADER}


def test_bytes_after_the_end_of_an_archive_are_found(root: Path) -> None:
    with (root / TRAIN_0).open("ab") as file:
        file.write(bytes(512))
    assert found(root) == {(Kind.FILE_DIGEST, TRAIN_0), (Kind.TAR_END, TRAIN_0)}


def test_a_truncated_shard_loses_only_what_was_cut(root: Path) -> None:
    shard = root / TRAIN_0
    cut = offset_of(shard, "clip-b_0.7.mask.png")[1] + 10
    with shard.open("r+b") as file:
        file.truncate(cut)
    assert found(root) >= {
        (Kind.FILE_DIGEST, TRAIN_0),
        (Kind.TAR_END, f"{TRAIN_0}:clip-b_0.7.mask.png"),
        (Kind.MISSING_MEMBER, f"{TRAIN_0}:clip-b_0.7.mask.png"),
        (Kind.MISSING_MEMBER, f"{TRAIN_0}:clip-b_0.json"),
    }
    assert not any("clip-b_0.6" in where or "clip-a" in where for _, where in found(root))


def test_a_damaged_header_without_an_index_loses_only_its_member(root: Path) -> None:
    shard = root / TRAIN_0
    flip(shard, offset_of(shard, "clip-b_0.5.jpg")[0])
    (root / "index.parquet").unlink()
    assert found(root) == {
        (Kind.FILE_DIGEST, TRAIN_0),
        (Kind.MISSING_FILE, "index.parquet"),
        (Kind.TAR_HEADER, TRAIN_0),
        (Kind.MISSING_MEMBER, f"{TRAIN_0}:clip-b_0.5.jpg"),
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
    problems = verify(root)
    assert [(problem.kind, problem.where) for problem in problems] == [
        (Kind.TAR_HEADER, f"{TRAIN_0}:clip-b_0.5.jpg")
    ]
    names = {"uname": "user name", "gname": "group name"}
    assert f"header is not canonical: {names.get(field, field)}" in problems[0].message


def test_a_missing_member_is_named(root: Path) -> None:
    change_shard(root, TRAIN_0, lambda shard: shard.members.pop(shard.index("clip-b_0.5.jpg")))
    factory.reseal(root)
    assert found(root) == {(Kind.MISSING_MEMBER, f"{TRAIN_0}:clip-b_0.5.jpg")}


@pytest.mark.parametrize("name", ["notes.txt", "clip-b_0.8.jpg", "../evil.jpg", "/etc/x.0.png"])
def test_an_extra_member_is_named(root: Path, name: str) -> None:
    change_shard(root, TRAIN_0, lambda shard: shard.members.append((name, b"x")))
    assert found(root) == {(Kind.EXTRA_MEMBER, f"{TRAIN_0}:{name}"), (Kind.FILE_DIGEST, TRAIN_0)}


def test_a_member_that_occurs_twice_is_named(root: Path) -> None:
    def twice(shard: factory.Shard) -> None:
        at = shard.index("clip-b_0.5.jpg")
        shard.members.insert(at, shard.members[at])

    change_shard(root, TRAIN_0, twice)
    factory.reseal(root)
    assert found(root) == {(Kind.EXTRA_MEMBER, f"{TRAIN_0}:clip-b_0.5.jpg")}


def test_members_out_of_order_are_found(root: Path) -> None:
    def swap(shard: factory.Shard) -> None:
        first = shard.index("clip-b_0.5.jpg")
        shard.members[first : first + 2] = reversed(shard.members[first : first + 2])

    change_shard(root, TRAIN_0, swap)
    factory.reseal(root)
    assert found(root) == {(Kind.MEMBER_ORDER, f"{TRAIN_0}:clip-b_0")}


def test_samples_out_of_order_are_found(root: Path) -> None:
    change_shard(
        root,
        TRAIN_0,
        lambda shard: shard.members.__setitem__(slice(None), [*shard.members[17:], *shard.members[:17]]),
    )
    factory.reseal(root)
    assert found(root) == {
        (Kind.SAMPLE_ORDER, f"{TRAIN_0}:clip-a_0"),
        (Kind.INDEX_DISAGREES, "index.parquet:clip-a_0"),
    }


def test_a_missing_shard_is_named(root: Path) -> None:
    (root / TRAIN_1).unlink()
    problems = found(root)
    assert (Kind.MISSING_FILE, TRAIN_1) in problems
    assert (Kind.INDEX_DISAGREES, "index.parquet:clip-c_0") in problems
    assert (Kind.WRONG_COUNT, "dataset.json:counts.identities") in problems


@pytest.mark.parametrize(
    "name",
    ["train/mfhq-train-000002.tar", "test/more.tar", "train/.mfhq-train-000000.tar.tmp-0123456789abcdef"],
)
def test_an_extra_file_beside_the_shards_is_named(root: Path, name: str) -> None:
    shutil.copy(root / TRAIN_0, root / name)
    assert found(root) == {(Kind.EXTRA_FILE, name)}


def test_a_shard_that_is_a_folder_is_reported(root: Path) -> None:
    (root / TRAIN_1).unlink()
    (root / TRAIN_1).mkdir()
    assert (Kind.UNREADABLE_FILE, TRAIN_1) in found(root)


def test_a_key_in_two_shards_is_found(root: Path) -> None:
    taken = factory.Shard.take_apart(root / TRAIN_0)
    change_shard(root, TRAIN_1, lambda shard: shard.members.extend(taken.members[17:]))
    factory.reseal(root)
    assert (Kind.DUPLICATE_KEY, f"{TRAIN_1}:clip-b_0") in found(root)
    assert (Kind.INDEX_DISAGREES, "index.parquet:clip-b_0") in found(root)


@pytest.mark.parametrize(
    ("field", "data", "kind"),
    [
        ("2.jpg", factory.jpeg(1, (512, 511)), Kind.BAD_IMAGE),
        ("2.jpg", factory.jpeg(1, (1024, 1024)), Kind.BAD_IMAGE),
        ("2.jpg", factory.jpeg(1, mode="L"), Kind.BAD_IMAGE),
        ("2.jpg", factory.mask(1, mode="RGB"), Kind.BAD_IMAGE),
        ("2.jpg", factory.jpeg(1)[:4000], Kind.BAD_IMAGE),
        ("2.jpg", b"", Kind.BAD_IMAGE),
        ("2.mask.png", factory.mask(1, (256, 256)), Kind.BAD_MASK),
        ("2.mask.png", factory.mask(1, mode="RGB"), Kind.BAD_MASK),
        ("2.mask.png", factory.jpeg(1, mode="L"), Kind.BAD_MASK),
    ],
)
def test_an_image_of_the_wrong_kind_or_size_is_named(root: Path, field: str, data: bytes, kind: Kind) -> None:
    _store_image(root, field, data)
    assert found(root) == {(kind, f"{TRAIN_0}:clip-b_0.{field}")}


def test_a_mask_of_other_greys_than_black_and_white_is_named(root: Path) -> None:
    grey = factory.png(np.full((512, 512), 128, np.uint8))
    _store_image(root, "2.mask.png", grey)
    assert found(root) == {(Kind.BAD_MASK, f"{TRAIN_0}:clip-b_0.2.mask.png")}


def test_a_mask_of_one_bit_a_pixel_is_sound(root: Path) -> None:
    _store_image(root, "2.mask.png", factory.mask(1, mode="1"))
    assert found(root) == set()


def _store_image(root: Path, field: str, data: bytes) -> None:
    """Put an image into clip-b_0 with all digests brought up to date."""
    taken = factory.Shard.take_apart(root / TRAIN_0)
    images = json.loads(taken.members[taken.index("clip-b_0.json")][1])["images"]
    name = "mask_sha256" if field.endswith("png") else "sha256"
    images[int(field[0])][name] = factory.sha256(data)
    replace_member(root, TRAIN_0, f"clip-b_0.{field}", data)
    change_record(root, TRAIN_0, "clip-b_0", images=images)
    factory.reseal(root)


def test_a_person_in_both_splits_is_named(root: Path) -> None:
    change_record(root, TRAIN_0, "clip-b_0", person_id="p-b1")
    factory.reseal(root)
    assert found(root) == {(Kind.SPLIT_LEAKAGE, "person:p-b1")}


def test_a_record_that_says_another_split_is_named(root: Path) -> None:
    change_record(root, TRAIN_0, "clip-b_0", split="test")
    factory.reseal(root)
    assert (Kind.WRONG_SPLIT, f"{TRAIN_0}:clip-b_0.json") in found(root)


def test_a_record_of_another_key_is_named(root: Path) -> None:
    change_record(root, TRAIN_0, "clip-b_0", key="clip-x_0")
    factory.reseal(root)
    assert (Kind.BAD_RECORD, f"{TRAIN_0}:clip-b_0.json") in found(root)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"format_version": "1.0"}',
        b'{"format_version": "2.0"}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"format_version": ' + b"1" * 10_000 + b"}",
    ],
)
def test_a_record_that_cannot_be_read_is_named(root: Path, data: bytes) -> None:
    replace_member(root, TRAIN_0, "clip-b_0.json", data)
    assert (Kind.BAD_RECORD, f"{TRAIN_0}:clip-b_0.json") in found(root)


def test_a_record_in_another_spelling_is_named(root: Path) -> None:
    taken = factory.Shard.take_apart(root / TRAIN_0)
    record = json.loads(taken.members[taken.index("clip-b_0.json")][1])
    replace_member(root, TRAIN_0, "clip-b_0.json", json.dumps(record, sort_keys=True).encode())
    factory.reseal(root)
    assert found(root) == {(Kind.BAD_RECORD, f"{TRAIN_0}:clip-b_0.json")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embedding": [0.6, 0.6, 0.0]}, "its embedding has length 0.8485, not 1"),
        ({"track_end_s": -1.0}, "its track ends before it starts"),
    ],
)
def test_a_record_that_contradicts_itself_is_named(root: Path, changes: dict[str, Any], message: str) -> None:
    change_record(root, TRAIN_0, "clip-b_0", **changes)
    factory.reseal(root)
    problems = verify(root)
    assert [(problem.kind, problem.message) for problem in problems] == [(Kind.BAD_RECORD, message)]


def test_a_record_whose_frames_are_not_ascending_is_named(root: Path) -> None:
    taken = factory.Shard.take_apart(root / TRAIN_0)
    images = json.loads(taken.members[taken.index("clip-b_0.json")][1])["images"]
    images[3]["frame"] = images[2]["frame"]
    change_record(root, TRAIN_0, "clip-b_0", images=images)
    factory.reseal(root)
    assert found(root) == {(Kind.BAD_RECORD, f"{TRAIN_0}:clip-b_0.json")}


def test_damage_to_a_record_does_not_hide_damage_to_its_images(root: Path) -> None:
    shard = root / TRAIN_0
    flip(shard, offset_of(shard, "clip-b_0.json")[1])
    flip(shard, offset_of(shard, "clip-b_0.4.jpg")[2] - 700)
    assert found(root) >= {
        (Kind.BAD_RECORD, f"{TRAIN_0}:clip-b_0.json"),
        (Kind.MEMBER_DIGEST, f"{TRAIN_0}:clip-b_0.4.jpg"),
    }


@pytest.mark.parametrize(
    ("column", "value"),
    [("offset", 512), ("length", 1024), ("shard", TRAIN_1), ("split", "test"), ("members", [])],
)
def test_an_index_that_disagrees_with_the_shards_is_found(root: Path, column: str, value: object) -> None:
    factory.change_rows(root / "index.parquet", lambda rows: rows[2].update({column: value}))
    factory.reseal_manifest(root)
    assert (Kind.INDEX_DISAGREES, "index.parquet:clip-b_0") in found(root)


def test_an_index_that_lacks_or_invents_a_sample_is_found(root: Path) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[4]["key"] = "clip-x_0"

    factory.change_rows(root / "index.parquet", change)
    factory.reseal_manifest(root)
    assert found(root) >= {
        (Kind.INDEX_DISAGREES, "index.parquet:clip-d_0"),
        (Kind.INDEX_DISAGREES, "index.parquet:clip-x_0"),
    }


@pytest.mark.parametrize(
    ("column", "value"),
    [("yaw", 1.5), ("frame", 9), ("sha256", "ab" * 32), ("licence", None), ("person_id", "p")],
)
def test_an_image_table_that_disagrees_with_a_record_names_the_column(
    root: Path, column: str, value: object
) -> None:
    factory.change_rows(root / "images.parquet", lambda rows: rows[17].update({column: value}))
    factory.reseal_manifest(root)
    problems = verify(root)
    assert [(problem.kind, problem.where) for problem in problems] == [
        (Kind.IMAGES_DISAGREE, "images.parquet:clip-b_0")
    ]
    assert problems[0].message == f"image 1 differs from the sample's record in {column}"


def test_an_image_table_that_lacks_a_row_is_found(root: Path) -> None:
    factory.change_rows(root / "images.parquet", lambda rows: rows.pop(20))
    factory.reseal_manifest(root)
    assert (Kind.IMAGES_DISAGREE, "images.parquet:clip-b_0") in found(root)


def test_an_image_table_in_another_order_is_found(root: Path) -> None:
    factory.change_rows(root / "images.parquet", lambda rows: rows.append(rows.pop(0)))
    factory.reseal_manifest(root)
    assert (Kind.IMAGES_DISAGREE, "images.parquet:clip-b_1") in found(root)


@pytest.mark.parametrize(
    ("video", "changes"),
    [
        ("clip-a", {"identities": 2}),
        ("clip-a", {"identities": 0}),
        ("clip-a", {"status": Status.REJECTED}),
        ("clip-a", {"reason": Reason.NO_FACE}),
        ("clip-a", {"tracks": []}),
        ("clip-a", {"licence": "other"}),
        ("clip-nobody", {"reason": None}),
        ("clip-nobody", {"status": Status.FAILED}),
        ("clip-nobody", {"status": Status.ACCEPTED}),
        ("clip-nobody", {"identities": 1}),
        ("clip-nobody", {"reason": "bad_luck"}),
        ("clip-nobody", {"fps": float("nan")}),
        ("clip-broken", {"status": Status.REJECTED}),
    ],
)
def test_a_video_that_contradicts_itself_or_its_samples_is_named(
    root: Path, video: str, changes: dict[str, object]
) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        next(row for row in rows if row["video_id"] == video).update(changes)

    factory.change_rows(root / "videos.parquet", change)
    factory.reseal_manifest(root)
    assert (Kind.VIDEOS_DISAGREE, f"videos.parquet:{video}") in found(root)


def test_a_video_without_a_row_or_with_two_is_named(root: Path) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[0] = rows[1]

    factory.change_rows(root / "videos.parquet", change)
    factory.reseal_manifest(root)
    assert found(root) >= {
        (Kind.VIDEOS_DISAGREE, "videos.parquet:clip-a"),
        (Kind.VIDEOS_DISAGREE, "videos.parquet:clip-b"),
    }


@pytest.mark.parametrize("name", ["index.parquet", "images.parquet", "videos.parquet"])
def test_a_missing_table_is_named_and_the_rest_is_checked(root: Path, name: str) -> None:
    (root / name).unlink()
    flip(root / TRAIN_0, offset_of(root / TRAIN_0, "clip-b_0.5.jpg")[2] - 700)
    assert found(root) >= {
        (Kind.MISSING_FILE, name),
        (Kind.MEMBER_DIGEST, f"{TRAIN_0}:clip-b_0.5.jpg"),
        (Kind.FILE_DIGEST, TRAIN_0),
    }


@pytest.mark.parametrize(
    "counts",
    [
        {"identities": {Split.TRAIN: 5, Split.TEST: 1}},
        {"images": 41},
        {"persons": 4},
        {"videos": {Status.ACCEPTED: 4, Status.REJECTED: 2, Status.FAILED: 1}},
    ],
)
def test_a_wrong_count_is_named(root: Path, counts: dict[str, object]) -> None:
    factory.reseal_manifest(root, counts=counts)
    assert found(root) == {(Kind.WRONG_COUNT, f"dataset.json:counts.{next(iter(counts))}")}


def test_a_wrong_number_of_samples_or_rows_is_named(root: Path) -> None:
    manifest = decode_manifest((root / "dataset.json").read_bytes())
    shards = [manifest.shards[0].model_copy(update={"samples": 2}), *manifest.shards[1:]]
    index = manifest.tables["index.parquet"].model_copy(update={"rows": 6})
    changed = manifest.model_copy(
        update={"shards": shards, "tables": {**manifest.tables, "index.parquet": index}}
    )
    (root / "dataset.json").write_bytes(encode_manifest(changed))
    assert found(root) == {(Kind.WRONG_COUNT, TEST), (Kind.WRONG_COUNT, "index.parquet")}


def test_without_a_manifest_the_rest_is_still_checked(root: Path) -> None:
    (root / "dataset.json").unlink()
    flip(root / TRAIN_0, offset_of(root / TRAIN_0, "clip-b_0.5.jpg")[2] - 700)
    assert (Kind.BAD_MANIFEST, "dataset.json") in found(root)
    assert (Kind.MEMBER_DIGEST, f"{TRAIN_0}:clip-b_0.5.jpg") in found(root)


def test_a_data_set_of_a_newer_major_version_is_only_named(root: Path) -> None:
    (root / "dataset.json").write_text('{"format_version": "2.0"}')
    assert [str(problem) for problem in verify(root)] == [
        (
            "unsupported_version: dataset.json: the data set has format version 2.0; "
            "this software reads 1.x: update this software"
        )
    ]


def test_what_a_newer_minor_version_added_is_ignored(root: Path) -> None:
    change_record(root, TRAIN_0, "clip-b_0", format_version="1.7", hair_colour="green")
    factory.reseal(root)
    table = pq.read_table(root / "videos.parquet")
    added = table.append_column("weather", pa.array(["fair"] * table.num_rows))
    write_parquet(root / "videos.parquet", added)
    factory.reseal_manifest(root)
    unsealed = json.loads((root / "dataset.json").read_bytes())
    del unsealed["manifest_sha256"]
    unsealed |= {"format_version": "1.7", "tombstones": []}
    compact = json.dumps(unsealed, sort_keys=True, separators=(",", ":")).encode()
    sealed = {**unsealed, "manifest_sha256": factory.sha256(compact)}
    (root / "dataset.json").write_text(json.dumps(sealed, sort_keys=True, indent=2) + "\n")
    dataset = Dataset.open(root)
    assert dataset.sample("clip-b_0").record.images == factory.samples()[2].record.images
    assert len(list(dataset.videos())) == 6
    assert verify(root) == []


def test_an_unknown_field_of_this_version_is_a_fault(root: Path) -> None:
    change_record(root, TRAIN_0, "clip-b_0", hair_colour="green")
    assert (Kind.BAD_RECORD, f"{TRAIN_0}:clip-b_0.json") in found(root)
    with pytest.raises(DataSetError, match="clip-b_0"):
        Dataset.open(root).sample("clip-b_0")


def test_an_empty_or_missing_folder_is_reported(tmp_path: Path) -> None:
    assert (Kind.BAD_MANIFEST, "dataset.json") in found(tmp_path)
    assert (Kind.BAD_MANIFEST, "dataset.json") in found(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "name", ["dataset.json", "images.parquet", "index.parquet", "videos.parquet", TEST, TRAIN_0]
)
def test_any_flipped_byte_of_any_file_is_found(tiny: Path, name: str) -> None:
    path = tiny / name
    data = path.read_bytes()
    random = np.random.default_rng(len(data))
    for place in random.integers(0, len(data), 4).tolist():
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        assert any(name in problem.where for problem in verify(tiny)), f"byte {place}"


@pytest.mark.parametrize(
    "name", ["dataset.json", "images.parquet", "index.parquet", "videos.parquet", TEST, TRAIN_0]
)
def test_any_truncated_file_is_found(tiny: Path, name: str) -> None:
    path = tiny / name
    data = path.read_bytes()
    for length in [0, 511, len(data) // 2, len(data) - 1]:
        path.write_bytes(data[:length])
        assert any(name in problem.where for problem in verify(tiny)), f"{length} bytes"


def test_many_problems_are_all_reported_at_once(root: Path) -> None:
    flip(root / TRAIN_0, offset_of(root / TRAIN_0, "clip-a_0.0.jpg")[2] - 700)
    flip(root / TRAIN_0, offset_of(root / TRAIN_0, "clip-b_0.7.mask.png")[0])
    flip(root / TRAIN_1, offset_of(root / TRAIN_1, "clip-c_0.json")[2])
    (root / TEST).unlink()
    (root / "train" / "stray.txt").write_text("x")
    factory.change_rows(root / "videos.parquet", lambda rows: rows[-1].update(status="failed"))
    assert found(root) >= {
        (Kind.MEMBER_DIGEST, f"{TRAIN_0}:clip-a_0.0.jpg"),
        (Kind.TAR_HEADER, f"{TRAIN_0}:clip-b_0.7.mask.png"),
        (Kind.TAR_PADDING, f"{TRAIN_1}:clip-c_0.json"),
        (Kind.MISSING_FILE, TEST),
        (Kind.EXTRA_FILE, "train/stray.txt"),
        (Kind.VIDEOS_DISAGREE, "videos.parquet:clip-nobody"),
        (Kind.FILE_DIGEST, "videos.parquet"),
    }
