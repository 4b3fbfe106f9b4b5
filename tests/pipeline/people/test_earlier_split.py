"""The split of an earlier dataset is read from its tables, local or in a bucket; faults are named at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import report_factory
from seaweed import S3Server

from pipeline.config import Split
from pipeline.errors import BuildError
from pipeline.people.earlier_split import read_earlier_split
from pipeline.people.split_inputs import read_split_inputs
from shards.canonical import sha256_hex
from shards.metadata import DIGEST_FIELD, decode_metadata, encode_metadata
from storage.path import path_of


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("earlier") / "mfhq"
    report_factory.build(root, accepted=4)
    return root


@pytest.fixture
def root(built: Path, tmp_path: Path) -> Path:
    """A copy without shards."""
    copy = tmp_path / "mfhq"
    shutil.copytree(built, copy, ignore=shutil.ignore_patterns("*.tar"))
    return copy


EXPECTED = [
    {"key": "key_000", "video_id": "video-0", "origin": None, "test": True},
    {"key": "key_001", "video_id": "video-1", "origin": None, "test": False},
    {"key": "key_002", "video_id": "video-2", "origin": None, "test": False},
    {"key": "key_003", "video_id": "video-3", "origin": None, "test": False},
]


def test_the_tables_alone_say_who_was_held_out(root: Path) -> None:
    found = read_earlier_split(root)
    assert found.identities.drop_columns(["content"]).to_pylist() == EXPECTED
    metadata = decode_metadata((root / "dataset.json").read_bytes())
    assert found.name == f"{metadata.name} {metadata.version}"
    assert found.sha256 == sha256_hex((root / "dataset.json").read_bytes())


@pytest.mark.usefixtures("credentials")
def test_the_earlier_dataset_may_be_in_a_bucket(root: Path, s3: S3Server) -> None:
    place = path_of("s3://earlier-split/mfhq")
    for path in root.iterdir():
        if path.is_file():
            (place / path.name).write_bytes(path.read_bytes())
    assert read_earlier_split(place).identities.drop_columns(["content"]).to_pylist() == EXPECTED
    with pytest.raises(BuildError, match=r"split\.from: s3://earlier-split/other is no finished dataset"):
        read_earlier_split(path_of("s3://earlier-split/other"))


def test_what_is_no_dataset_is_an_error_with_the_key_and_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "none", tmp_path / "file"):
        with pytest.raises(BuildError) as error:
            read_earlier_split(path)
        assert str(error.value) == (
            f"split.from: {path} is no finished dataset: it has no dataset.json. Give the directory of an "
            "earlier dataset, or leave the key out"
        )


@pytest.mark.parametrize("name", ["dataset.json", "images-g0000.parquet", "videos-g0000.parquet"])
def test_a_damaged_dataset_is_an_error_with_the_key_and_the_remedy(root: Path, name: str) -> None:
    data = (root / name).read_bytes()
    (root / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(BuildError) as error:
        read_earlier_split(root)
    assert str(error.value).startswith(f"split.from: {root} is damaged: {name}")
    assert "Restore it from a copy" in str(error.value)


def test_a_missing_table_is_damage(root: Path) -> None:
    (root / "images-g0000.parquet").unlink()
    with pytest.raises(BuildError, match=r"is damaged: images-g0000\.parquet cannot be read"):
        read_earlier_split(root)


def test_another_version_of_the_format_is_an_error_that_names_both(root: Path) -> None:
    value = json.loads((root / "dataset.json").read_bytes())
    value["format_version"] = "2.1"
    del value[DIGEST_FIELD]
    (root / "dataset.json").write_text(json.dumps(value))
    with pytest.raises(BuildError) as error:
        read_earlier_split(root)
    assert str(error.value).startswith(
        f"split.from: {root}: the dataset has format version 2.1; this software reads 3.x"
    )
    assert "pin the held-out videos by split.test_list" in str(error.value)


def test_digests_follow_the_content_and_not_the_path(root: Path, tmp_path: Path) -> None:
    assert read_split_inputs(Split()).digests == {}
    lists = [tmp_path / name for name in ("a.txt", "b.txt")]
    for path in lists:
        path.write_text("x.mp4\n")

    def digests(path: Path) -> dict[str, str]:
        return read_split_inputs(Split.model_validate({"from": str(root), "test_list": str(path)})).digests

    same = digests(lists[0])
    assert digests(lists[1]) == same
    lists[1].write_text("y.mp4\n")
    assert digests(lists[1])["test_list"] != same["test_list"]
    metadata = decode_metadata((root / "dataset.json").read_bytes())
    (root / "dataset.json").write_bytes(encode_metadata(metadata.model_copy(update={"name": "other"})))
    assert digests(lists[0])["from"] != same["from"]
