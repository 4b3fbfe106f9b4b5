"""Tables and counts that disagree with the shards are found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import shards_factory as factory
from damage import TEST, TRAIN_0, TRAIN_1, flip, found, offset_of

from shards.findings import Check
from shards.metadata import decode_metadata, encode_metadata
from shards.reader import Dataset
from shards.schema import Reason, Split, Status
from shards.stored_tables import KeyedTable
from shards.verify import verify


@pytest.mark.parametrize(
    ("column", "value"),
    [("offset", 512), ("length", 1024), ("shard", TRAIN_1), ("split", "test"), ("members", [])],
)
def test_an_index_that_disagrees_with_the_shards_is_found(root: Path, column: str, value: object) -> None:
    factory.change_rows(root / "index-g0000.parquet", lambda rows: rows[2].update({column: value}))
    factory.reseal_metadata(root)
    assert (Check.INDEX_DISAGREES, "index-g0000.parquet:clip-b_0") in found(root)


def test_an_index_with_a_name_that_is_none_blames_no_shard(root: Path) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[2]["members"][0]["name"] += "\0"

    factory.change_rows(root / "index-g0000.parquet", change)
    factory.reseal_metadata(root)
    assert found(root) == {(Check.INDEX_DISAGREES, "index-g0000.parquet:clip-b_0")}


def test_rows_of_a_key_are_found_wherever_they_are() -> None:
    table = KeyedTable(pa.table({"key": ["a", "b", "a", "a", "c"], "number": [0, 1, 2, 3, 4]}), "key")
    assert [row["number"] for row in table.rows("a")] == [0, 2, 3]
    assert [row["number"] for row in table.rows("c")] == [4]
    assert table.rows("d") == []


def test_an_index_that_lacks_or_invents_a_sample_is_found(root: Path) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[4]["key"] = "clip-x_0"

    factory.change_rows(root / "index-g0000.parquet", change)
    factory.reseal_metadata(root)
    assert found(root) >= {
        (Check.INDEX_DISAGREES, "index-g0000.parquet:clip-d_0"),
        (Check.INDEX_DISAGREES, "index-g0000.parquet:clip-x_0"),
    }


@pytest.mark.parametrize(
    ("column", "value"),
    [("yaw", 1.5), ("frame", 9), ("sha256", "ab" * 32), ("license", None), ("person_id", "p")],
)
def test_an_image_table_that_disagrees_with_a_record_names_the_column(
    root: Path, column: str, value: object
) -> None:
    factory.change_rows(root / "images-g0000.parquet", lambda rows: rows[17].update({column: value}))
    factory.reseal_metadata(root)
    findings = verify(root)
    assert [(finding.check, finding.where) for finding in findings] == [
        (Check.IMAGES_DISAGREE, "images-g0000.parquet:clip-b_0")
    ]
    assert findings[0].message == f"image 1 differs from the sample's record in {column}"


def test_an_image_table_that_lacks_a_row_is_found(root: Path) -> None:
    factory.change_rows(root / "images-g0000.parquet", lambda rows: rows.pop(20))
    factory.reseal_metadata(root)
    assert (Check.IMAGES_DISAGREE, "images-g0000.parquet:clip-b_0") in found(root)


def test_an_image_table_in_another_order_is_found(root: Path) -> None:
    factory.change_rows(root / "images-g0000.parquet", lambda rows: rows.append(rows.pop(0)))
    factory.reseal_metadata(root)
    assert (Check.IMAGES_DISAGREE, "images-g0000.parquet:clip-b_1") in found(root)


@pytest.mark.parametrize(
    ("video", "changes"),
    [
        ("clip-a", {"identities": 2}),
        ("clip-a", {"identities": 0}),
        ("clip-a", {"status": Status.REJECTED}),
        ("clip-a", {"reason": Reason.NO_FACE}),
        ("clip-a", {"tracks": []}),
        ("clip-a", {"license": "other"}),
        ("clip-b", {"span_s": [1.5, 11.0]}),
        ("clip-b", {"attributes": []}),
        ("clip-noface", {"reason": None}),
        ("clip-noface", {"status": Status.FAILED}),
        ("clip-noface", {"status": Status.ACCEPTED}),
        ("clip-noface", {"identities": 1}),
        ("clip-noface", {"reason": "Bad luck"}),
        ("clip-noface", {"fps": float("nan")}),
        ("clip-broken", {"status": Status.REJECTED}),
    ],
)
def test_a_video_that_contradicts_itself_or_its_samples_is_named(
    root: Path, video: str, changes: dict[str, object]
) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        next(row for row in rows if row["video_id"] == video).update(changes)

    factory.change_rows(root / "videos-g0000.parquet", change)
    factory.reseal_metadata(root)
    assert (Check.VIDEOS_DISAGREE, f"videos-g0000.parquet:{video}") in found(root)


@pytest.mark.parametrize("status", [Status.REJECTED, Status.FAILED])
def test_a_reason_that_is_not_known_goes_with_either_status(root: Path, status: Status) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        by_id = {row["video_id"]: row for row in rows}
        by_id["clip-noface"].update(reason="eaten_by_a_dog", status=status)
        by_id["clip-a"]["tracks"][1]["reason"] = "out_of_focus_2"
        by_id["clip-a"]["frame_reasons"].append(("behind_glass", 3))

    factory.change_rows(root / "videos-g0000.parquet", change)
    counted = {Status.ACCEPTED: 4, Status.REJECTED: 0, Status.FAILED: 1}
    factory.reseal_metadata(root, counts={"videos": counted | {status: counted[status] + 1}})
    assert found(root) == set()
    videos = {video.video_id: video for video in Dataset.open(root).videos()}
    assert (videos["clip-noface"].status, videos["clip-noface"].reason) == (status, "eaten_by_a_dog")
    assert videos["clip-a"].tracks[1].reason == "out_of_focus_2"
    assert videos["clip-a"].frame_reasons == {"behind_glass": 3, Reason.BLURRED: 3, Reason.FACE_TOO_SMALL: 4}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"span_s": [5.0, 5.0]}, "its span is 5 to 5 s"),
        ({"annotated_box": [0.5, 0.1, 0.5, 0.9]}, "its annotated box is empty"),
        ({"attributes": [{"name": "b", "value": ""}, {"name": "a", "value": ""}]}, "not sorted by name"),
        ({"attributes": [{"name": "a", "value": "1"}, {"name": "a", "value": "2"}]}, "each name once"),
    ],
)
def test_what_a_source_states_is_checked(root: Path, changes: dict[str, object], message: str) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        next(row for row in rows if row["video_id"] == "clip-noface").update(changes)

    factory.change_rows(root / "videos-g0000.parquet", change)
    factory.reseal_metadata(root)
    findings = verify(root)
    assert [(finding.check, finding.where) for finding in findings] == [
        (Check.VIDEOS_DISAGREE, "videos-g0000.parquet:clip-noface")
    ]
    assert message in findings[0].message


def test_a_video_without_a_row_or_with_two_is_named(root: Path) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[0] = rows[1]

    factory.change_rows(root / "videos-g0000.parquet", change)
    factory.reseal_metadata(root)
    assert found(root) >= {
        (Check.VIDEOS_DISAGREE, "videos-g0000.parquet:clip-a"),
        (Check.VIDEOS_DISAGREE, "videos-g0000.parquet:clip-b"),
    }


@pytest.mark.parametrize("name", ["index-g0000.parquet", "images-g0000.parquet", "videos-g0000.parquet"])
def test_a_missing_table_is_named_and_the_rest_is_checked(root: Path, name: str) -> None:
    (root / name).unlink()
    flip(root / TRAIN_0, offset_of(root / TRAIN_0, "clip-b_0.5.jpg")[2] - 700)
    assert found(root) >= {
        (Check.MISSING_FILE, name),
        (Check.MEMBER_DIGEST, f"{TRAIN_0}:clip-b_0.5.jpg"),
        (Check.FILE_DIGEST, TRAIN_0),
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
    factory.reseal_metadata(root, counts=counts)
    assert found(root) == {(Check.WRONG_COUNT, f"dataset.json:counts.{next(iter(counts))}")}


def test_a_wrong_number_of_samples_or_rows_is_named(root: Path) -> None:
    metadata = decode_metadata((root / "dataset.json").read_bytes())
    shards = [metadata.shards[0].model_copy(update={"samples": 2}), *metadata.shards[1:]]
    index = metadata.tables["index"].model_copy(update={"rows": 6})
    changed = metadata.model_copy(update={"shards": shards, "tables": {**metadata.tables, "index": index}})
    (root / "dataset.json").write_bytes(encode_metadata(changed))
    assert found(root) == {(Check.WRONG_COUNT, TEST), (Check.WRONG_COUNT, "index-g0000.parquet")}
