"""A data set that cannot be used is refused at once, in words that say what is wrong and what to do."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import small_data
from faulty_proxy import spoiling
from seaweed import KEY, SECRET, S3Server

from settings.section import ConfigError
from shards.canonical import indented_json, sha256_hex
from shards.metadata import DatasetError, decode_metadata, encode_metadata
from shards.schema import Split
from storage import backends, store
from training.data import dataset as dataset_module
from training.data.dataset import open_dataset
from training.errors import Stopped, TrainingError


@pytest.fixture
def copy(mfhq: Path, tmp_path: Path) -> Path:
    shutil.copytree(mfhq, tmp_path / "mfhq")
    return tmp_path / "mfhq"


@pytest.fixture
def quickly() -> Iterator[None]:
    """What is refused for good is not tried again, which would go on for `OPENING_S`."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < dataset_module.OPENING_S


def refusal(root: Path | str, error: type[Exception] = DatasetError) -> str:
    with pytest.raises(error) as caught:
        open_dataset(str(root), retry_s=300.0)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


def test_keys_and_digest_are_those_of_the_data_set(mfhq: Path) -> None:
    dataset = open_dataset(str(mfhq), retry_s=1.0)
    assert dataset.keys(Split.TRAIN) == small_data.TRAIN
    assert dataset.keys(Split.TEST) == small_data.TEST
    assert dataset.digest == json.loads((mfhq / "dataset.json").read_bytes())["metadata_sha256"]
    assert dataset.metadata.counts.identities[Split.TRAIN] == 12


def test_how_closely_faces_are_cut_out_is_known_where_the_data_set_says_it(mfhq: Path, copy: Path) -> None:
    assert open_dataset(str(mfhq), retry_s=1.0).crop_scale == 1.3
    path = copy / "dataset.json"
    metadata = decode_metadata(path.read_bytes())
    other = metadata.provenance.model_copy(update={"config": {"faces": "as usual"}})
    path.write_bytes(encode_metadata(metadata.model_copy(update={"provenance": other})))
    assert open_dataset(str(copy), retry_s=1.0).crop_scale is None


def test_a_folder_may_be_given_as_an_address(mfhq: Path) -> None:
    assert open_dataset(f"file://{mfhq}", retry_s=1.0).keys(Split.TRAIN) == small_data.TRAIN


def test_a_missing_folder(tmp_path: Path) -> None:
    assert f"{tmp_path}/no is not a directory. Check the path" in refusal(tmp_path / "no")


def test_a_folder_whose_build_has_not_finished(copy: Path) -> None:
    (copy / "dataset.json").unlink()
    assert "has no dataset.json. Finish the build or the copy" in refusal(copy)


def test_a_half_written_manifest(copy: Path) -> None:
    (copy / "dataset.json").write_bytes((copy / "dataset.json").read_bytes()[:-40])
    assert "dataset.json is not JSON" in refusal(copy)


def test_a_newer_major_version_of_the_format(copy: Path) -> None:
    value = json.loads((copy / "dataset.json").read_bytes())
    value["format_version"] = "4.0"
    (copy / "dataset.json").write_bytes(indented_json(value))
    assert "format version 4.0; this software reads 3.x: update this software" in refusal(copy)


def test_an_altered_index(copy: Path) -> None:
    small_data.flip_byte(copy / "index-g0000.parquet", 200)
    assert "index-g0000.parquet was altered: its sha256 is not the one in dataset.json" in refusal(copy)


@pytest.mark.parametrize("bytes_kept", [0, 3000])
def test_an_index_that_was_cut_off(copy: Path, bytes_kept: int) -> None:
    path = copy / "index-g0000.parquet"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:bytes_kept])
    message = refusal(copy)
    assert (
        f"index-g0000.parquet has {bytes_kept:,} bytes, dataset.json says {size:,}: it was altered" in message
    )
    assert "Copy the dataset again" in message


def test_a_missing_and_a_short_shard(copy: Path) -> None:
    (copy / "train/mfhq-train-000000-g0000.tar").unlink()
    short = copy / "train/mfhq-train-000002-g0000.tar"
    size = short.stat().st_size
    short.write_bytes(short.read_bytes()[:1000])
    message = refusal(copy)
    assert "train/mfhq-train-000000-g0000.tar is missing; " in message
    assert f"train/mfhq-train-000002-g0000.tar has 1,000 bytes instead of {size:,}" in message
    assert "Copy these shards again" in message


def test_a_data_set_whose_training_shards_are_all_missing(copy: Path) -> None:
    shutil.rmtree(copy / "train")
    assert "train/mfhq-train-000000-g0000.tar is missing" in refusal(copy)


@pytest.mark.parametrize(
    "root",
    [
        "s3://AKIA1234:hunter2@bucket/mfhq",
        "https://hunter2@example.org/mfhq",
        "https://example.org/mfhq?sig=hunter2",
        "https://example.org/mfhq#hunter2",
        "abfss://user:hunter2@account.dfs.core.windows.net/mfhq",
    ],
)
def test_an_address_with_a_secret_in_it_is_refused_without_repeating_it(root: str) -> None:
    message = refusal(root, ConfigError)
    assert "Put the credentials into the environment" in message
    assert "hunter2" not in message


def test_an_address_that_nothing_reads() -> None:
    assert "URLs begin with s3://" in refusal("ftp://example.org/mfhq", ConfigError)


def test_an_address_that_lost_a_slash_is_no_folder() -> None:
    message = refusal("s3:/bucket/mfhq", ConfigError)
    assert "data.root: s3:/bucket/mfhq: a URL has two slashes: s3://bucket/mfhq" in message


@pytest.mark.usefixtures("credentials", "quickly")
def test_wrong_credentials(uploaded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    message = refusal(uploaded, TrainingError)
    assert "access is refused (HTTP 403, SignatureDoesNotMatch). Check the credentials" in message
    assert "AWS_SECRET_ACCESS_KEY" in message
    assert not any(secret in message for secret in ("hunter2", KEY, SECRET))


@pytest.mark.usefixtures("credentials", "quickly")
def test_an_unknown_user(uploaded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDNOBODY")
    message = refusal(uploaded, TrainingError)
    assert "access is refused (HTTP 403, InvalidAccessKeyId)" in message
    assert "AKIDNOBODY" not in message


@pytest.mark.usefixtures("credentials", "quickly")
def test_a_bucket_that_does_not_exist(uploaded: str) -> None:
    assert "there is no such bucket. Check the URL" in refusal("s3://nobucket/mfhq", TrainingError)


@pytest.mark.usefixtures("credentials", "quickly")
def test_a_place_in_the_bucket_without_a_data_set(uploaded: str) -> None:
    assert "s3://bucket/other is no finished dataset" in refusal("s3://bucket/other")


@pytest.mark.usefixtures("credentials")
def test_an_endpoint_that_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_module, "OPENING_S", 1.0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    message = refusal("s3://bucket/mfhq", TrainingError)
    assert "could not be read for 1 s: HTTP error: error sending request (no connection)" in message
    assert "Check that the storage is reachable" in message


def test_an_environment_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_module, "OPENING_S", 1.0)
    monkeypatch.setattr(backends, "CONNECT_S", 0.5)
    message = refusal("s3://bucket/mfhq", TrainingError)
    assert "no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in message


@pytest.mark.usefixtures("credentials")
def test_a_shard_that_is_short_on_the_server(copy: Path, s3: S3Server) -> None:
    (copy / "train/mfhq-train-000001-g0000.tar").write_bytes(b"short")
    (copy / "train/mfhq-train-000002-g0000.tar").unlink()
    message = refusal(s3.upload(copy, "bucket", "short"))
    assert "train/mfhq-train-000001-g0000.tar has 5 bytes instead of" in message
    assert "train/mfhq-train-000002-g0000.tar is missing" in message


@pytest.mark.usefixtures("credentials")
def test_opening_lists_the_shards_instead_of_asking_for_each(
    uploaded: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with spoiling(s3.port, share=0.0) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        open_dataset(uploaded, retry_s=1.0)
    assert sum("list-type=2" in path for path in proxy.paths) == 2
    assert not any(".tar" in path for path in proxy.paths)


class _WithRanges(SimpleHTTPRequestHandler):
    """The standard library's server knows no ranges; ours needs them."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file() or not (wanted := self.headers.get("Range")):
            return super().do_GET()
        first, last = map(int, wanted.removeprefix("bytes=").split("-"))
        data = path.read_bytes()
        part = data[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(part)
        return None

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def web_server() -> Iterator[Callable[[Path], str]]:
    servers = []

    def serve(folder: Path) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_WithRanges, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_plain_web_server_will_do(mfhq: Path, web_server: Callable[[Path], str]) -> None:
    dataset = open_dataset(f"{web_server(mfhq.parent)}/mfhq", retry_s=1.0)
    here = open_dataset(str(mfhq), retry_s=1.0)
    assert dataset.read(small_data.TRAIN[3]) == here.read(small_data.TRAIN[3])


def test_a_shard_that_a_web_server_does_not_have(copy: Path, web_server: Callable[[Path], str]) -> None:
    (copy / "test/mfhq-test-000000-g0000.tar").unlink()
    assert "test/mfhq-test-000000-g0000.tar is missing" in refusal(f"{web_server(copy.parent)}/mfhq")


def test_every_sample_is_read_as_the_contract_reads_it(mfhq: Path) -> None:
    from shards.reader import Dataset

    streamed, plain = open_dataset(str(mfhq), retry_s=1.0), Dataset.open(mfhq)
    for key in [*small_data.TRAIN, *small_data.TEST]:
        sample = plain.sample(key)
        assert streamed.read(key) == sample
        pictures = streamed.pictures(streamed.fetch(key))
        assert tuple(map(bytes, pictures.images)) == sample.images
        assert tuple(map(bytes, pictures.masks)) == sample.masks


def test_a_newer_minor_version_is_read(copy: Path) -> None:
    """Records may then hold fields that this software does not know, digests among them."""
    from shards_factory import Shard, reseal

    shard = Shard.take_apart(copy / "train/mfhq-train-000000-g0000.tar")
    at = shard.index("train-00_0.json")
    record = json.loads(shard.members[at][1])
    record.update(format_version="3.7", embedding_extra={"sha256": "ab" * 32})
    shard.members[at] = (
        "train-00_0.json",
        json.dumps(record, sort_keys=True, separators=(",", ":")).encode(),
    )
    shard.put_together()
    reseal(copy)
    value = json.loads((copy / "dataset.json").read_bytes())
    del value["metadata_sha256"]
    value["format_version"] = "3.7"
    digest = sha256_hex(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())
    (copy / "dataset.json").write_bytes(indented_json({**value, "metadata_sha256": digest}))
    dataset = open_dataset(str(copy), retry_s=1.0)
    pictures = dataset.pictures(dataset.fetch("train-00_0"))
    assert tuple(map(bytes, pictures.images)) == dataset.read("train-00_0").images


def test_a_read_that_nobody_waits_for_any_more_is_not_tried_again(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    class Failing(backends.LocalDirectory):
        def range(self, path: str, offset: int, length: int) -> bytes:
            tries.append(path)
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(store, "_FIRST_WAIT_S", 1000.0)  # the first wait takes up to ten seconds
    dataset = open_dataset(str(copy), retry_s=300.0)
    dataset._store._backend = Failing(copy)
    stopped, ended = threading.Event(), []

    def read() -> None:
        with pytest.raises(Stopped) as raised:
            dataset.fetch("train-00_0", stopped)
        ended.append(raised.value)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    while not tries:
        time.sleep(0.01)
    time.sleep(0.2)
    tried = len(tries)
    stopped.set()
    thread.join(20)
    assert ended
    assert len(tries) == tried
    with pytest.raises(Stopped):
        dataset.fetch("train-00_0", stopped)
    assert len(tries) == tried
