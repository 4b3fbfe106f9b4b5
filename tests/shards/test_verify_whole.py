"""Manifests and versions, any damage to any file, and that no finding hides another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shards_factory as factory
from damage import TEST, TRAIN_0, TRAIN_1, change_record, flip, found, offset_of

from shards.atomic import write_parquet
from shards.findings import Check
from shards.metadata import DatasetError, encode_metadata
from shards.reader import Dataset
from shards.schema import Split
from shards.verify import verify


def test_without_a_manifest_the_rest_is_still_checked(root: Path) -> None:
    (root / "dataset.json").unlink()
    flip(root / TRAIN_0, offset_of(root / TRAIN_0, "clip-b_0.5.jpg")[2] - 700)
    assert (Check.BAD_METADATA, "dataset.json") in found(root)
    assert (Check.MEMBER_DIGEST, f"{TRAIN_0}:clip-b_0.5.jpg") in found(root)


def test_a_dataset_of_a_newer_major_version_is_only_named(root: Path) -> None:
    (root / "dataset.json").write_text('{"format_version": "4.0"}')
    assert [str(finding) for finding in verify(root)] == [
        (
            "unsupported_version: dataset.json: the dataset has format version 4.0; "
            "this software reads 3.x: update this software"
        )
    ]


def test_what_a_newer_minor_version_added_is_ignored(root: Path) -> None:
    change_record(root, TRAIN_0, "clip-b_0", format_version="3.7", hair_colour="green")
    factory.reseal(root)
    table = pq.read_table(root / "videos-g0000.parquet")
    added = table.append_column("weather", pa.array(["fair"] * table.num_rows))
    write_parquet(root / "videos-g0000.parquet", added)
    factory.reseal_metadata(root)
    unsealed = json.loads((root / "dataset.json").read_bytes())
    del unsealed["metadata_sha256"]
    unsealed |= {"format_version": "3.7", "weather": []}
    compact = json.dumps(unsealed, sort_keys=True, separators=(",", ":")).encode()
    sealed = {**unsealed, "metadata_sha256": factory.sha256(compact)}
    (root / "dataset.json").write_text(json.dumps(sealed, sort_keys=True, indent=2) + "\n")
    dataset = Dataset.open(root)
    assert dataset.sample("clip-b_0").record.images == factory.samples()[2].record.images
    assert len(list(dataset.videos())) == 6
    assert verify(root) == []


def test_an_unknown_field_of_this_version_is_a_fault(root: Path) -> None:
    change_record(root, TRAIN_0, "clip-b_0", hair_colour="green")
    assert (Check.BAD_RECORD, f"{TRAIN_0}:clip-b_0.json") in found(root)
    with pytest.raises(DatasetError, match="clip-b_0"):
        Dataset.open(root).sample("clip-b_0")


def test_files_of_other_generations_and_of_killed_processes_are_no_fault(root: Path) -> None:
    (root / "train/mfhq-train-000000-g0001.tar").write_bytes(b"of a take-down that was killed")
    (root / "train/.mfhq-train-000001-g0001.tar.tmp-0123456789abcdef").write_bytes(b"likewise")
    (root / "index-g0001.parquet").write_bytes(b"likewise")
    assert verify(root) == []
    assert list(Dataset.open(root).samples()) == factory.samples()


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"tables": {"index": "images-g0000.parquet"}}, "the table index is named images-g0000.parquet"),
        ({"tables": {"index": "index-g0001.parquet"}}, "is of a later generation than the dataset, 0"),
        ({"shards": [1, 0, 2]}, "its shards are not sorted by name, each number once a split"),
        ({"shards": [0, 0, 1, 2]}, "its shards are not sorted by name, each number once a split"),
        ({"splits": Split.TRAIN}, "test/mfhq-test-000000-g0000.tar is listed as train"),
    ],
)
def test_names_that_contradict_the_metadata_are_rejected(
    root: Path, update: dict[str, Any], message: str
) -> None:
    metadata = Dataset.open(root).metadata
    tables = {
        role: entry.model_copy(update={"name": update.get("tables", {}).get(role, entry.name)})
        for role, entry in metadata.tables.items()
    }
    shards = [metadata.shards[number] for number in update.get("shards", range(3))]
    if "splits" in update:
        shards[0] = shards[0].model_copy(update={"split": update["splits"]})
    changed = metadata.model_copy(update={"tables": tables, "shards": shards})
    (root / "dataset.json").write_bytes(encode_metadata(changed))
    with pytest.raises(DatasetError, match=message):
        Dataset.open(root)
    assert (Check.BAD_METADATA, "dataset.json") in found(root)


@pytest.mark.parametrize(
    "name", ["../index-g0000.parquet", "/etc/passwd", "index.parquet", "index-g0000.parquet\n"]
)
def test_a_table_outside_of_the_dataset_is_rejected(root: Path, name: str) -> None:
    metadata = Dataset.open(root).metadata
    entry = metadata.tables["index"].model_copy(update={"name": name})
    changed = metadata.model_copy(update={"tables": {**metadata.tables, "index": entry}})
    (root / "dataset.json").write_bytes(encode_metadata(changed))
    with pytest.raises(DatasetError, match="does not follow the format"):
        Dataset.open(root)


def test_a_number_that_a_build_skips_is_named(root: Path) -> None:
    metadata = Dataset.open(root).metadata
    (root / "dataset.json").write_bytes(
        encode_metadata(metadata.model_copy(update={"shards": [metadata.shards[0], metadata.shards[2]]}))
    )
    assert (Check.BAD_METADATA, TRAIN_0) in found(root)


def test_an_empty_or_missing_folder_is_reported(tmp_path: Path) -> None:
    assert (Check.BAD_METADATA, "dataset.json") in found(tmp_path)
    assert (Check.BAD_METADATA, "dataset.json") in found(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "name",
    ["dataset.json", "images-g0000.parquet", "index-g0000.parquet", "videos-g0000.parquet", TEST, TRAIN_0],
)
def test_any_flipped_byte_of_any_file_is_found(tiny: Path, name: str) -> None:
    path = tiny / name
    data = path.read_bytes()
    random = np.random.default_rng(len(data))
    for place in random.integers(0, len(data), 4).tolist():
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        assert any(name in finding.where for finding in verify(tiny)), f"byte {place}"


@pytest.mark.parametrize(
    "name",
    ["dataset.json", "images-g0000.parquet", "index-g0000.parquet", "videos-g0000.parquet", TEST, TRAIN_0],
)
def test_any_truncated_file_is_found(tiny: Path, name: str) -> None:
    path = tiny / name
    data = path.read_bytes()
    for length in [0, 511, len(data) // 2, len(data) - 1]:
        path.write_bytes(data[:length])
        assert any(name in finding.where for finding in verify(tiny)), f"{length} bytes"


def test_many_errors_are_all_reported_at_once(root: Path) -> None:
    flip(root / TRAIN_0, offset_of(root / TRAIN_0, "clip-a_0.0.jpg")[2] - 700)
    flip(root / TRAIN_0, offset_of(root / TRAIN_0, "clip-b_0.7.mask.png")[0])
    flip(root / TRAIN_1, offset_of(root / TRAIN_1, "clip-c_0.json")[2])
    (root / TEST).unlink()
    (root / "train" / "stray.txt").write_text("x")
    factory.change_rows(root / "videos-g0000.parquet", lambda rows: rows[-1].update(status="failed"))
    assert found(root) >= {
        (Check.MEMBER_DIGEST, f"{TRAIN_0}:clip-a_0.0.jpg"),
        (Check.TAR_HEADER, f"{TRAIN_0}:clip-b_0.7.mask.png"),
        (Check.TAR_PADDING, f"{TRAIN_1}:clip-c_0.json"),
        (Check.MISSING_FILE, TEST),
        (Check.EXTRA_FILE, "train/stray.txt"),
        (Check.VIDEOS_DISAGREE, "videos-g0000.parquet:clip-noface"),
        (Check.FILE_DIGEST, "videos-g0000.parquet"),
    }
