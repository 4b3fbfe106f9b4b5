"""Paths into a real object store behave as those of a directory do."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_proxy import FAULTS, spoiling
from seaweed import S3Server

from shards.atomic import open_atomic, remove_file, write_bytes
from storage.errors import NoSuchFile, StorageError, UrlError
from storage.path import AnyPath, ObjectPath, local_copy, path_of, read_range
from storage.store import CHUNK

pytestmark = pytest.mark.usefixtures("credentials", "impatient")
LARGE = bytes(range(256)) * (CHUNK // 256) * 2 + b"end"


@pytest.fixture(params=["folder", "bucket"])
def root(request: pytest.FixtureRequest, tmp_path: Path, s3: S3Server) -> AnyPath:
    """A directory, and a bucket."""
    if request.param == "folder":
        return path_of(str(tmp_path / "root"))
    name = "".join(character for character in tmp_path.name.lower() if character.isalnum())[-40:]
    found = path_of(f"s3://{name}0bucket")
    write_bytes(found / "elsewhere", b"so that there is a bucket")
    return found / "some/root"


def test_what_was_written_is_read_and_listed(root: AnyPath) -> None:
    assert not root.exists()
    for name in ("a.txt", "ab/1.parquet", "ab/2.parquet", "abc/3.txt", "ab.json"):
        write_bytes(root / name, name.encode())
    assert (root / "ab/1.parquet").read_bytes() == b"ab/1.parquet"
    assert sorted(path.name for path in root.iterdir()) == ["a.txt", "ab", "ab.json", "abc"]
    assert sorted(str(path.relative_to(root)) for path in root.glob("??/*.parquet")) == [
        "ab/1.parquet",
        "ab/2.parquet",
    ]
    assert [path.name for path in root.glob("ab.json")] == ["ab.json"]
    assert [path.name for path in root.glob("ab")] in ([], ["ab"])
    assert ((root / "ab").is_dir(), (root / "ab").is_file()) == (True, False)
    assert ((root / "a.txt").is_dir(), (root / "a.txt").is_file()) == (False, True)
    assert not (root / "a").exists()
    (root / "a.txt").unlink()
    remove_file(root / "ab.json")
    remove_file(root / "never.json")
    assert sorted(path.name for path in root.iterdir()) == ["ab", "abc"]


def test_a_large_file_is_read_in_ranges(root: AnyPath, tmp_path: Path) -> None:
    with open_atomic(root / "large") as file:
        file.write(LARGE[:100])
        file.write(LARGE[100:])
    assert (root / "large").read_bytes() == LARGE
    assert read_range(root / "large", CHUNK - 3, 7) == LARGE[CHUNK - 3 : CHUNK + 4]
    with (root / "large").open("rb") as file:
        file.seek(-3, 2)
        assert file.read() == b"end"
        file.seek(5)
        assert file.read(4) == LARGE[5:9]
    with local_copy(root / "large", tmp_path) as copy:
        assert copy.read_bytes() == LARGE
    assert copy.exists() == isinstance(root, Path)


def test_an_error_while_writing_leaves_the_file_as_it_was(root: AnyPath) -> None:
    write_bytes(root / "file", b"before")

    def interrupted() -> None:
        with open_atomic(root / "file") as file:
            file.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert (root / "file").read_bytes() == b"before"
    assert [path.name for path in root.iterdir()] == ["file"]


def test_a_file_that_is_not_there_is_named(root: AnyPath) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        (root / "none").read_bytes()
    assert "root/none" in str(caught.value)


def test_a_path_travels_to_other_processes(root: AnyPath) -> None:
    write_bytes(root / "file", b"content")
    assert pickle.loads(pickle.dumps(root / "file")).read_bytes() == b"content"  # noqa: S301 - our own


@pytest.fixture
def bucket(s3: S3Server) -> Iterator[ObjectPath]:
    found = path_of("s3://conditional/place")
    assert isinstance(found, ObjectPath)
    yield found
    found.bucket.delete([entry.path for entry in found.bucket.entries("place")])


def test_only_one_of_two_writers_creates(bucket: ObjectPath) -> None:
    store, key = bucket.bucket, f"{bucket.key}/dataset.json"
    assert store.create(key, b"first")
    assert not store.create(key, b"second")
    assert store.create(key, b"first")  # as after an answer that was lost
    assert store.whole(key) == b"first"


def test_a_version_is_replaced_once(bucket: ObjectPath) -> None:
    store, key = bucket.bucket, f"{bucket.key}/lock"
    assert store.version(key) is None
    store.write(key, b"1")
    version = store.version(key)
    assert version is not None
    assert store.replace(key, b"2", version)
    assert not store.replace(key, b"3", version)
    assert store.whole(key) == b"2"


def test_spoiled_requests_lose_nothing(
    bucket: ObjectPath, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with spoiling(s3.port, share=0.1, faults=FAULTS, seed=3, stall_s=2) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        from storage.bucket import Bucket

        store = Bucket(bucket.root, retry_s=60)
        (tmp_path / "large").write_bytes(LARGE * 5)
        store.write("place/large", tmp_path / "large")
        for number in range(60):
            store.write(f"place/{number}", b"%d" % number)
        assert len(list(store.entries("place"))) == 61
        assert [store.whole(f"place/{number}") for number in range(60)] == [b"%d" % n for n in range(60)]
        store.fetch("place/large", tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == LARGE * 5
        assert all(proxy.counts[fault] for fault in FAULTS), proxy.counts


def test_an_address_stays_in_its_root() -> None:
    with pytest.raises(UrlError):
        ObjectPath("s3://bucket", "root") / "../other"


def test_a_bucket_that_does_not_exist_is_named() -> None:
    with pytest.raises(StorageError, match="s3://no-such-bucket: there is no such bucket"):
        path_of("s3://no-such-bucket/x").read_bytes()
    with pytest.raises(NoSuchFile):
        path_of("s3://conditional/none").read_bytes()


@pytest.mark.parametrize("value", ["", "127.0.0.1:9", "ftp://host", "http://"])
def test_an_endpoint_that_is_no_address_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", value)
    from storage.bucket import Bucket

    with pytest.raises(StorageError, match="AWS_ENDPOINT_URL"):
        Bucket("s3://bucket")


def test_the_first_request_is_not_tried_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.store.FIRST_S", 0.5)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    from storage.bucket import Bucket

    with pytest.raises(
        StorageError, match=r"for 0 s: .*no connection.*AWS_ENDPOINT_URL=http://127\.0\.0\.1:9"
    ):
        Bucket("s3://bucket", retry_s=300).whole("x")
