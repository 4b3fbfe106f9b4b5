"""Paths into Azure's blob storage, against its emulator: only where `azurite-blob` is on the PATH."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shards.atomic import open_atomic, write_bytes
from storage.errors import StorageError
from storage.path import ObjectPath, local_copy, path_of
from storage.store import CHUNK

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The emulator's own, which everybody knows."""


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("azurite-blob is not on the PATH: npm install azurite")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("azurite")
    command = [
        program,
        "--silent",
        "--disableTelemetry",
        "--skipApiVersionCheck",
        f"--blobPort={port}",
        f"--location={folder}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.2)
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def root(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectPath:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"http://127.0.0.1:{port}/{ACCOUNT}")
    name = f"c{abs(hash(tmp_path)):x}"
    _make_container(port, name)
    found = path_of(f"az://{name}/some/root")
    assert isinstance(found, ObjectPath)
    return found


def _make_container(port: int, name: str) -> None:
    """By the REST interface: obstore makes no containers."""
    import base64
    import hashlib
    import hmac
    import urllib.request
    from email.utils import formatdate

    date = formatdate(usegmt=True)
    headers = {"x-ms-date": date, "x-ms-version": "2021-08-06"}
    canonical = "\n".join(f"{key}:{value}" for key, value in sorted(headers.items()))
    resource = f"/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    kind = "application/octet-stream"
    text = "\n".join(["PUT", "", "", "", "", kind, "", "", "", "", "", "", f"{canonical}\n{resource}"])
    digest = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
    headers["Content-Type"] = kind
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}"
    address = f"http://127.0.0.1:{port}/{ACCOUNT}/{name}?restype=container"
    request = urllib.request.Request(address, method="PUT", headers=headers, data=b"")
    with urllib.request.urlopen(request):  # noqa: S310 - our own loopback address
        pass


def test_what_was_written_is_read_and_listed(root: ObjectPath, tmp_path: Path) -> None:
    for name in ("a.txt", "ab/1.parquet", "ab/2.parquet"):
        write_bytes(root / name, name.encode())
    assert sorted(path.name for path in root.iterdir()) == ["a.txt", "ab"]
    assert [entry.path for entry in root.entries()] == ["a.txt", "ab/1.parquet", "ab/2.parquet"]
    assert ((root / "ab").is_dir(), (root / "ab").is_file(), (root / "none").exists()) == (True, False, False)
    large = bytes(range(256)) * (CHUNK // 256) * 5
    with open_atomic(root / "large") as file:
        file.write(large)
    with local_copy(root / "large", tmp_path) as copy:
        assert copy.read_bytes() == large
    (root / "a.txt").unlink()
    assert not (root / "a.txt").exists()


def test_writes_are_conditional(root: ObjectPath) -> None:
    store, key = root.bucket, f"{root.key}/lock"
    assert store.create(key, b"first")
    assert not store.create(key, b"second")
    version = store.version(key)
    assert version is not None
    assert store.replace(key, b"third", version)
    assert not store.replace(key, b"fourth", version)
    assert store.whole(key) == b"third"


def test_a_wrong_key_is_named_without_its_value(root: ObjectPath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")
    from storage.bucket import Bucket

    with pytest.raises(StorageError, match="AZURE_STORAGE_ACCOUNT_KEY") as caught:
        Bucket(root.root).whole("some/root/x")
    assert "c2VjcmV0" not in str(caught.value)
