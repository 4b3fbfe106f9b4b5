"""Reading a dataset in batches: the same rows, checks and errors as reading whole tables."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shards_factory import TEST_KEYS, TRAIN_KEYS, build

from shards.layout import IMAGES, INDEX, VIDEOS
from shards.metadata import DatasetError
from shards.reader import Dataset
from shards.streamed import StreamedDataset, rows_where, table_batches
from shards.tables import IMAGES_SCHEMA, INDEX_SCHEMA, VIDEOS_SCHEMA


@pytest.fixture
def root(tmp_path: Path) -> Path:
    build(tmp_path)
    return tmp_path


@pytest.mark.parametrize("role", [INDEX, IMAGES, VIDEOS])
def test_batches_together_are_the_table(root: Path, role: str) -> None:
    streamed = pa.concat_tables(StreamedDataset.open(root).batches(role))
    assert streamed.equals(Dataset.open(root).table(role))


@pytest.mark.parametrize("rows", [1, 3, 8, 1000])
def test_a_batch_has_no_more_rows_than_asked_for(root: Path, rows: int) -> None:
    path = root / "images-g0000.parquet"
    columns = pa.schema([IMAGES_SCHEMA.field(name) for name in ("key", "yaw")])
    batches = list(table_batches(path, columns, rows))
    assert max(map(len, batches)) <= rows
    assert pa.concat_tables(batches).equals(Dataset.open(root).table(IMAGES, ("key", "yaw")))


def test_samples_are_found_by_key_and_read_as_by_the_whole_index(root: Path) -> None:
    found = StreamedDataset.open(root).find([TRAIN_KEYS[2], "no-such-key", TEST_KEYS[0]])
    assert set(found.rows) == {TRAIN_KEYS[2], TEST_KEYS[0]}
    for key in found.rows:
        assert found.sample(key) == Dataset.open(root).sample(key)
    with pytest.raises(KeyError, match="no-such-key"):
        found.sample("no-such-key")


@pytest.mark.parametrize("group", [1, 2, 100])
def test_rows_are_found_in_any_row_group(root: Path, group: int) -> None:
    path = root / "index-g0000.parquet"
    pq.write_table(pq.read_table(path), path, row_group_size=group)
    keys = [*TEST_KEYS, *TRAIN_KEYS]
    assert [row["key"] for row in rows_where(path, INDEX_SCHEMA, "key", keys[::2])] == keys[::2]
    assert list(rows_where(path, INDEX_SCHEMA, "key", [])) == []


@pytest.mark.parametrize("place", [100, -100, None])
def test_a_damaged_or_missing_table_is_named(root: Path, place: int | None) -> None:
    path = root / "videos-g0000.parquet"
    if place is None:
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[place] ^= 0xFF
        path.write_bytes(data)
    with pytest.raises(DatasetError, match=r"videos-g0000\.parquet cannot be read"):
        list(StreamedDataset.open(root).batches(VIDEOS))


def test_a_column_that_is_missing_or_of_another_type_is_an_error_even_without_rows(root: Path) -> None:
    path = root / "images-g0000.parquet"
    empty = IMAGES_SCHEMA.empty_table()
    pq.write_table(empty.drop_columns(["yaw"]), path)
    with pytest.raises(DatasetError, match="yaw"):
        list(table_batches(path, IMAGES_SCHEMA))
    strings = empty.set_column(
        empty.schema.get_field_index("yaw"), "yaw", pa.array([], pa.list_(pa.string()))
    )
    pq.write_table(strings, path)
    with pytest.raises(DatasetError, match="cannot be read"):
        list(table_batches(path, IMAGES_SCHEMA))


def test_a_null_where_there_must_be_none_is_an_error(root: Path) -> None:
    path = root / "videos-g0000.parquet"
    table = pq.read_table(path)
    place = table.schema.get_field_index("uri")
    pq.write_table(table.set_column(place, "uri", pa.nulls(len(table), pa.string())), path)
    with pytest.raises(DatasetError, match="uri"):
        list(table_batches(path, VIDEOS_SCHEMA))
