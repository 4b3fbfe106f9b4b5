"""What is written is read back, in canonical order, and only whole datasets are opened."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import shards_factory as factory

from shards.metadata import DatasetError, ShardLimits, encode_metadata
from shards.reader import Dataset
from shards.schema import Split, Status
from shards.writer import write_dataset


def test_every_sample_reads_back_as_it_was_written(pristine: Path) -> None:
    dataset = Dataset.open(pristine)
    written = {sample.record.key: sample for sample in factory.samples()}
    keys = dataset.keys()
    assert {key: dataset.sample(key) for key in keys} == written
    assert list(dataset.samples()) == factory.samples()


def test_keys_come_sorted_within_their_split(pristine: Path) -> None:
    dataset = Dataset.open(pristine)
    assert dataset.keys(Split.TRAIN) == list(factory.TRAIN_KEYS)
    assert dataset.keys(Split.TEST) == list(factory.TEST_KEYS)
    assert dataset.keys() == [*factory.TEST_KEYS, *factory.TRAIN_KEYS]


def test_video_outcomes_read_back_sorted(pristine: Path) -> None:
    expected = sorted(factory.videos(), key=lambda video: video.video_id)
    assert list(Dataset.open(pristine).videos()) == expected


def test_the_image_table_has_one_row_an_image(pristine: Path) -> None:
    table = Dataset.open(pristine).images()
    assert table.num_rows == 40
    assert table["index"].to_pylist() == list(range(8)) * 5
    third = factory.samples()[1].record.images[3]
    row = table.slice(8 + 3, 1).to_pylist()[0]
    assert (row["key"], row["split"], row["yaw"]) == ("clip-a_0", "train", third.pose.yaw)
    assert (row["crop_side_px"], row["quality"], row["sha256"]) == (600.0, 31.5, third.sha256)


def test_the_manifest_counts_what_was_written(pristine: Path) -> None:
    metadata = Dataset.open(pristine).metadata
    assert metadata.counts.videos == {Status.ACCEPTED: 4, Status.REJECTED: 1, Status.FAILED: 1}
    assert metadata.counts.identities == {Split.TRAIN: 4, Split.TEST: 1}
    assert (metadata.counts.images, metadata.counts.persons) == (40, 5)
    assert [(shard.name, shard.samples) for shard in metadata.shards] == [
        ("test/mfhq-test-000000-g0000.tar", 1),
        ("train/mfhq-train-000000-g0000.tar", 2),
        ("train/mfhq-train-000001-g0000.tar", 2),
    ]
    assert {role: (table.name, table.rows) for role, table in metadata.tables.items()} == {
        "images": ("images-g0000.parquet", 40),
        "index": ("index-g0000.parquet", 5),
        "videos": ("videos-g0000.parquet", 6),
    }
    assert (metadata.version, metadata.generation) == ("1.0.0", 0)
    assert metadata.provenance == factory.PROVENANCE


def test_shards_are_cut_before_the_sample_that_would_pass_the_byte_limit(tmp_path: Path) -> None:
    whole = factory.build(tmp_path / "whole", ShardLimits(max_samples=100))
    train = next(shard for shard in whole.shards if shard.split is Split.TRAIN)
    assert train.samples == 4
    exact = factory.build(tmp_path / "exact", ShardLimits(max_bytes=train.bytes))
    assert [shard.samples for shard in exact.shards] == [1, 4]
    tight = factory.build(tmp_path / "tight", ShardLimits(max_bytes=train.bytes - 1))
    assert [shard.samples for shard in tight.shards] == [1, 3, 1]
    assert all(shard.bytes <= train.bytes - 1 for shard in tight.shards)
    alone = factory.build(tmp_path / "alone", ShardLimits(max_bytes=1))
    assert [shard.samples for shard in alone.shards] == [1] * 5


def test_the_manifest_sizes_are_those_of_the_files(pristine: Path) -> None:
    metadata = Dataset.open(pristine).metadata
    sizes = {entry.name: entry.bytes for entry in metadata.shards}
    sizes |= {entry.name: entry.bytes for entry in metadata.tables.values()}
    assert sizes == {name: (pristine / name).stat().st_size for name in sizes}


def test_a_dataset_without_samples_is_whole(tmp_path: Path) -> None:
    lost = [video for video in factory.videos() if video.status is not Status.ACCEPTED]
    write_dataset(tmp_path, [], lost, factory.PROVENANCE, factory.LIMITS)
    dataset = Dataset.open(tmp_path)
    assert dataset.keys() == []
    assert [video.video_id for video in dataset.videos()] == ["clip-broken", "clip-noface"]


def test_progress_counts_the_samples_written(tmp_path: Path) -> None:
    seen: list[int] = []
    write_dataset(
        tmp_path,
        factory.samples(),
        factory.videos(),
        factory.PROVENANCE,
        factory.LIMITS,
        progress=seen.append,
    )
    assert seen == [1, 2, 3, 4, 5]


def test_a_folder_without_its_manifest_is_no_dataset(root: Path) -> None:
    (root / "dataset.json").unlink()
    with pytest.raises(DatasetError, match="is no finished dataset"):
        Dataset.open(root)


def test_an_unknown_key_is_named(pristine: Path) -> None:
    with pytest.raises(KeyError, match="no sample 'nobody_0'"):
        Dataset.open(pristine).sample("nobody_0")


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("4.0", "update this software"),
        ("1.0", "rebuild it or read it with older software"),
        ("one", "expected"),
    ],
)
def test_another_major_version_is_rejected(root: Path, version: str, message: str) -> None:
    metadata = Dataset.open(root).metadata.model_copy(update={"format_version": version})
    (root / "dataset.json").write_bytes(encode_metadata(metadata))
    with pytest.raises(DatasetError, match=message):
        Dataset.open(root)


def test_a_newer_major_version_is_named_even_when_the_rest_is_unknown(root: Path) -> None:
    (root / "dataset.json").write_text(json.dumps({"format_version": "7.3", "parts": []}))
    with pytest.raises(DatasetError, match=r"format version 7\.3; this software reads 3\.x"):
        Dataset.open(root)


def test_a_damaged_member_is_named_when_its_sample_is_read(root: Path) -> None:
    shard = root / "train" / "mfhq-train-000000-g0000.tar"
    with tarfile.open(shard) as tar:
        offset = tar.getmember("clip-b_0.3.jpg").offset_data
    data = bytearray(shard.read_bytes())
    data[offset + 100] ^= 1
    shard.write_bytes(data)
    dataset = Dataset.open(root)
    with pytest.raises(DatasetError, match=r"clip-b_0\.3\.jpg is damaged"):
        dataset.sample("clip-b_0")
    assert dataset.sample("clip-a_0") == factory.samples()[1]


def _write_index(root: Path, **changes: object) -> None:
    table = pq.read_table(root / "index-g0000.parquet")
    rows = table.to_pylist()
    rows[1].update(changes)
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), root / "index-g0000.parquet")


@pytest.mark.parametrize(
    "shard",
    [
        "/etc/passwd",
        "../outside.tar",
        "train/../../outside.tar",
        "train/mfhq-train-000000-g0000.tar/../../../x",
        "train/mfhq-train-000009-g0000.tar",
        "train/mfhq-train-000000-g0000.tar\n",
    ],
)
def test_an_index_that_leads_out_of_the_dataset_is_rejected(root: Path, shard: str) -> None:
    _write_index(root, shard=shard)
    with pytest.raises(DatasetError, match="does not list"):
        Dataset.open(root).sample("clip-a_0")


@pytest.mark.parametrize(
    "changes", [{"offset": -512}, {"length": 2**40}, {"length": 0}, {"offset": 2**40}, {"length": 2**63 - 1}]
)
def test_an_index_that_leads_out_of_its_shard_is_rejected(root: Path, changes: dict[str, int]) -> None:
    _write_index(root, **changes)
    with pytest.raises(DatasetError, match="outside"):
        Dataset.open(root).sample("clip-a_0")


def test_metadata_that_list_a_path_outside_is_rejected(root: Path) -> None:
    metadata = Dataset.open(root).metadata
    entry = metadata.shards[0].model_copy(update={"name": "../outside.tar"})
    bad = metadata.model_copy(update={"shards": [entry]})
    (root / "dataset.json").write_bytes(encode_metadata(bad))
    with pytest.raises(DatasetError, match="does not follow the format"):
        Dataset.open(root)
