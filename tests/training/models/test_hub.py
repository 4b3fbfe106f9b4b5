"""Downloads from the hub, against a local server that imitates it and its failures."""

from __future__ import annotations

import http.server
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny_models import mtd_config

from shards.atomic import OutOfSpace
from training.errors import TrainingError
from training.model import build_model
from training.models.clip_weights import HUB_FILE, HUB_REPOSITORY, load_clip
from training.models.hub import reason_of
from training.models.sizes import SIZES
from training.representations.config import RepresentationConfig
from training.representations.omniid import OmniIDEncoder

COMMIT = "c0ffee" + "0" * 34
OLDER = "beef" + "0" * 36


class Hub(http.server.ThreadingHTTPServer):
    """Answers what huggingface_hub asks for: the list of a repository's files, and the files."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files: dict[str, bytes] = {}
        """By revision and name."""
        self.breaks_after: int | None = None
        """Bytes of a file after which connections break."""
        self.asked: list[str] = []


class _Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self._list(parts)
            return
        revision, name = parts[3], "/".join(parts[4:])
        commit = COMMIT if revision == "main" else revision
        data = self.server.files.get(f"{commit}/{name}")
        if data is None:
            self._error("EntryNotFound")
            return
        first = int(self.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - first))
        self.send_header("ETag", f'"{hash(data) & 0xFFFFFFFF:08x}{commit[:6]}"')
        self.send_header("X-Repo-Commit", commit)
        self.end_headers()
        if self.command == "HEAD":
            return
        rest = data[first:]
        self.wfile.write(rest[: self.server.breaks_after])
        if self.server.breaks_after is not None:
            self.wfile.flush()
            # A reset instead of an orderly end, as from a machine on the way that gives up.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()

    def _list(self, parts: list[str]) -> None:
        revision = parts[5] if len(parts) > 5 else "main"
        commit = COMMIT if revision == "main" else revision
        names = [path.partition("/")[2] for path in self.server.files if path.startswith(f"{commit}/")]
        if not names:
            self._error("RevisionNotFound")
            return
        found = {
            "id": "/".join(parts[2:4]),
            "sha": commit,
            "siblings": [{"rfilename": name} for name in names],
        }
        if len(parts) > 4 and parts[4] == "tree":
            found = [{"type": "file", "path": name, "size": 1, "oid": "0"} for name in names]
        body = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _error(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing into the output of the tests."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    server = Hub()
    # Often, for it is what shutting down waits for.
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    # What HF_ENDPOINT and HF_HUB_CACHE set, which are read when huggingface_hub is imported.
    constants = "huggingface_hub.constants"
    monkeypatch.setattr(f"{constants}.ENDPOINT", url)
    monkeypatch.setattr(
        f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(f"{constants}.HF_HUB_DISABLE_XET", True)
    monkeypatch.chdir(tmp_path)
    yield server
    server.shutdown()
    server.server_close()


def put_encoder(hub: Hub, folder: Path, commit: str) -> OmniIDEncoder:
    encoder = OmniIDEncoder(SIZES["tiny"])
    encoder.save_pretrained(folder)
    for path in folder.iterdir():
        hub.files[f"{commit}/{path.name}"] = path.read_bytes()
    return encoder


def same(one: OmniIDEncoder, other: OmniIDEncoder) -> bool:
    return bool((one.query_LD == other.query_LD).all())


def test_an_encoder_is_downloaded_in_the_requested_revision(hub: Hub, tmp_path: Path) -> None:
    newest = put_encoder(hub, tmp_path / "newest", COMMIT)
    older = put_encoder(hub, tmp_path / "older", OLDER)
    assert same(OmniIDEncoder.from_pretrained("somebody/encoder"), newest)
    assert same(OmniIDEncoder.from_pretrained("somebody/encoder", OLDER), older)
    assert not same(newest, older)


def test_a_missing_revision_is_named(hub: Hub, tmp_path: Path) -> None:
    put_encoder(hub, tmp_path / "newest", COMMIT)
    with pytest.raises(
        TrainingError, match=f"no encoder of that name at revision {OLDER} .*RevisionNotFound"
    ):
        OmniIDEncoder.from_pretrained("somebody/encoder", OLDER)


def started_from(encoder: Path | str, revision: str | None) -> OmniIDEncoder:
    """The representation of a run that starts from an encoder."""
    section = {"size": "tiny", "weights": str(encoder), "revision": revision}
    return build_model(mtd_config(representation=section)).representation


def test_a_run_starts_from_the_encoder_of_the_given_commit(hub: Hub, tmp_path: Path) -> None:
    older = put_encoder(hub, tmp_path / "old", OLDER)
    newer = put_encoder(hub, tmp_path / "new", COMMIT)
    assert same(started_from("acme/omniid", OLDER), older)
    assert same(started_from("acme/omniid", COMMIT), newer)


def test_a_run_needs_a_commit_for_an_encoder_on_the_hub(hub: Hub, tmp_path: Path) -> None:
    put_encoder(hub, tmp_path / "new", COMMIT)
    with pytest.raises(
        TrainingError, match=r"no directory acme/omniid.*set representation\.revision to a commit"
    ):
        started_from("acme/omniid", None)
    assert hub.asked == []


def test_a_missing_commit_is_an_error_that_names_the_key(hub: Hub, tmp_path: Path) -> None:
    put_encoder(hub, tmp_path / "new", COMMIT)
    with pytest.raises(TrainingError, match=rf"^representation\.weights: .*acme/omniid.*{OLDER}"):
        started_from("acme/omniid", OLDER)


def test_a_revision_of_an_encoder_in_a_directory_is_an_error(tmp_path: Path) -> None:
    OmniIDEncoder(SIZES["tiny"]).save_pretrained(tmp_path / "encoder")
    with pytest.raises(TrainingError, match=r"representation\.revision: .* is a directory"):
        started_from(tmp_path / "encoder", COMMIT)


def test_a_revision_without_weights_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"revision: expected with representation\.weights"):
        RepresentationConfig(size="tiny", revision=COMMIT)


def test_a_folder_has_no_revision(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=rf"{tmp_path} is a directory, which has no revision {OLDER}"):
        OmniIDEncoder.from_pretrained(tmp_path, OLDER)


def test_a_broken_connection_is_an_error_with_its_reason(hub: Hub, tmp_path: Path) -> None:
    put_encoder(hub, tmp_path / "newest", COMMIT)
    hub.breaks_after = 50_000
    with pytest.raises(
        TrainingError, match=r"no directory somebody/encoder.*\((ReadError|RemoteProtocolError): ."
    ):
        OmniIDEncoder.from_pretrained("somebody/encoder")


def test_a_broken_download_of_clip_is_an_error_with_its_reason(hub: Hub) -> None:
    hub.files[f"1c2b8495b28150b8a4922ee1c8edee224c284c0c/{HUB_FILE}"] = bytes(1_000_000)
    hub.breaks_after = 50_000
    with pytest.raises(TrainingError, match=rf"{HUB_FILE} of {HUB_REPOSITORY} cannot be fetched.*Error: "):
        load_clip("hub", "paper")


def test_a_refused_connection_is_an_error_with_its_reason(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)  # its library waits for 23 seconds between attempts
    hub.shutdown()
    hub.server_close()
    with pytest.raises(TrainingError, match=r"\(ConnectError: .*Connection refused\)"):
        load_clip("hub", "paper")


def test_a_full_disk_is_reported_as_such_and_not_as_an_error_of_the_hub(
    hub: Hub, small_disk: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = small_disk(1_000_000)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(disk / "cache"))
    hub.files[f"1c2b8495b28150b8a4922ee1c8edee224c284c0c/{HUB_FILE}"] = bytes(3_000_000)
    with pytest.raises(OutOfSpace, match=rf"{disk}/cache: the disk is full") as caught:
        load_clip("hub", "paper")
    assert caught.value.free_bytes < 1_000_000


def test_a_reason_is_one_line_without_the_secrets_of_urls() -> None:
    error = ValueError(
        "403 for url 'https://me:word@cdn.example/file?Signature=abc&Expires=1'\nRequest ID: x"
    )
    assert reason_of(error) == "ValueError: 403 for url 'https://cdn.example/file'"
    assert reason_of(KeyError()) == "KeyError"
