"""Pulling models from a real web server on this machine."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from faces.download import pull
from faces.registry import WeightsUnavailable, load_weights

WEIGHTS = bytes(range(256)) * 5000


def zipped(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


class Site:
    """A web server with a few files, which records the requests."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.redirections: dict[str, str] = {}
        self.cut_short: set[str] = set()
        self.asked: list[str] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                if self.path in site.redirections:
                    self.send_response(302)
                    self.send_header("Location", site.redirections[self.path])
                    self.end_headers()
                elif self.path in site.files:
                    body = site.files[self.path]
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body[: len(body) // 2] if self.path in site.cut_short else body)
                else:
                    self.send_error(404)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.root = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    thread = threading.Thread(target=site.server.serve_forever, daemon=True)
    thread.start()
    yield site
    site.server.shutdown()
    site.server.server_close()
    thread.join()


def offer(folder: Path, entries: dict[str, dict[str, object]], content: bytes = WEIGHTS) -> None:
    """Write models.json with entries that expect `content`."""
    digest = hashlib.sha256(content).hexdigest()
    common = {"kind": "scrfd", "sha256": digest, "license": "own"}
    full = {name: common | {"file": f"{name}.onnx"} | entry for name, entry in entries.items()}
    (folder / "models.json").write_text(json.dumps(full), encoding="utf-8")


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "models.json")


def test_a_pulled_file_is_what_resolve_then_finds(site: Site, tmp_path: Path):
    site.files["/net.onnx"] = WEIGHTS
    offer(tmp_path, {"net": {"url": f"{site.root}/net.onnx"}})
    seen: list[tuple[str, int, int | None]] = []
    assert pull(["net", "piqe"], tmp_path, lambda *step: seen.append(step)) == {"net": tmp_path / "net.onnx"}
    assert load_weights(["net"], tmp_path)["net"].path.read_bytes() == WEIGHTS
    assert left_in(tmp_path) == ["net.onnx"]
    assert seen[-1] == ("net", len(WEIGHTS), len(WEIGHTS))


def test_members_of_one_archive_cost_one_download(site: Site, tmp_path: Path):
    site.files["/pack.zip"] = zipped({"det.onnx": WEIGHTS, "pack/rec.onnx": WEIGHTS, "other.onnx": b"x"})
    offer(
        tmp_path,
        {
            "det": {"url": f"{site.root}/pack.zip", "member": "det.onnx"},
            "rec": {"url": f"{site.root}/pack.zip", "member": "rec.onnx"},
        },
    )
    pull(["det", "rec"], tmp_path)
    assert left_in(tmp_path) == ["det.onnx", "rec.onnx"]
    assert (tmp_path / "rec.onnx").read_bytes() == WEIGHTS
    assert site.asked == ["/pack.zip"]


def test_what_is_there_already_is_not_fetched_again(site: Site, tmp_path: Path):
    (tmp_path / "net.onnx").write_bytes(WEIGHTS)
    offer(tmp_path, {"net": {"url": f"{site.root}/net.onnx"}})
    pull(["net"], tmp_path)
    assert site.asked == []


def test_a_file_with_another_digest_is_rejected_and_leaves_nothing(site: Site, tmp_path: Path):
    site.files["/net.onnx"] = b"tampered"
    offer(tmp_path, {"net": {"url": f"{site.root}/net.onnx"}})
    with pytest.raises(WeightsUnavailable) as error:
        pull(["net"], tmp_path)
    assert hashlib.sha256(b"tampered").hexdigest() in str(error.value)
    assert hashlib.sha256(WEIGHTS).hexdigest() in str(error.value)
    assert left_in(tmp_path) == []


def test_a_file_of_the_users_is_not_overwritten(site: Site, tmp_path: Path):
    site.files["/net.onnx"] = WEIGHTS
    (tmp_path / "net.onnx").write_bytes(b"mine")
    offer(tmp_path, {"net": {"url": f"{site.root}/net.onnx"}})
    with pytest.raises(WeightsUnavailable, match="not overwritten"):
        pull(["net"], tmp_path)
    assert (tmp_path / "net.onnx").read_bytes() == b"mine"


def test_one_failure_does_not_keep_the_others_away_and_all_failures_are_listed(site: Site, tmp_path: Path):
    site.files |= {"/good.onnx": WEIGHTS, "/short.onnx": WEIGHTS, "/no.zip": b"no archive"}
    site.files["/pack.zip"] = zipped({"other.onnx": WEIGHTS})
    site.cut_short.add("/short.onnx")
    offer(
        tmp_path,
        {
            "gone": {"url": f"{site.root}/gone.onnx"},
            "short": {"url": f"{site.root}/short.onnx"},
            "broken": {"url": f"{site.root}/no.zip", "member": "broken.onnx"},
            "absent": {"url": f"{site.root}/pack.zip", "member": "absent.onnx"},
            "nowhere": {},
            "unserved": {"url": "http://127.0.0.1:9/net.onnx"},
            "good": {"url": f"{site.root}/good.onnx"},
        },
    )
    names = ["gone", "short", "broken", "absent", "nowhere", "unserved", "good"]
    with pytest.raises(WeightsUnavailable) as error:
        pull(names, tmp_path)
    reasons = ["404", "bytes", "not a zip file", "holds 0 members", "no URL", "refused"]
    assert len(error.value.errors) == len(reasons)
    for message, reason in zip(error.value.errors, reasons, strict=True):
        assert reason in message
    assert left_in(tmp_path) == ["good.onnx"]


def test_a_redirection_within_the_web_is_followed_and_one_out_of_it_is_not(site: Site, tmp_path: Path):
    site.files["/net.onnx"] = WEIGHTS
    site.redirections = {
        "/moved.onnx": f"{site.root}/net.onnx",
        "/evil.onnx": f"ftp://127.0.0.1{tmp_path}/secret",
    }
    offer(tmp_path, {"moved": {"url": f"{site.root}/moved.onnx"}, "evil": {"url": f"{site.root}/evil.onnx"}})
    with pytest.raises(WeightsUnavailable, match="rejected the redirect") as error:
        pull(["moved", "evil"], tmp_path)
    assert len(error.value.errors) == 1
    assert left_in(tmp_path) == ["moved.onnx"]


def test_a_model_that_ships_in_a_wheel_is_copied_from_it(tmp_path: Path) -> None:
    shipped = load_weights(["yunet"], None)["yunet"]
    (path,) = pull(["yunet"], tmp_path / "weights").values()
    assert path == tmp_path / "weights" / shipped.model.file
    assert path.read_bytes() == shipped.path.read_bytes()
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
