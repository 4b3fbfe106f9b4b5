"""`omniid encode`: photos of one person become identity tokens in a file."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from typer.testing import CliRunner, Result

from faces.photograph import read_photograph
from faces.portraits import PortraitFinder
from pipeline.demo.photographs import PEOPLE, STILL_LIFE, package_file
from training.cli import app
from training.encode.command import find_encoder
from training.errors import TrainingError
from training.models.pretrained import encoder_folder
from training.models.sizes import SIZES
from training.representations.omniid import OmniIDEncoder

TINY = SIZES["tiny"]


@pytest.fixture(scope="module")
def finder() -> PortraitFinder:
    return PortraitFinder.load("embedded")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a training on tight crops."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("export") / "encoder"
    OmniIDEncoder(TINY, crop_scale=1.1).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def astronaut() -> Path:
    return package_file(*PEOPLE["astronaut"].source)


@pytest.fixture(scope="module")
def group() -> Path:
    return package_file(*PEOPLE["group-1"].source)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A photo without a face."""
    (package, path), (left, top, right, bottom) = STILL_LIFE
    file = tmp_path / "table.png"
    Image.fromarray(read_photograph(package_file(package, path))[top:bottom, left:right]).save(file)
    return file


def encoded(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["encode", *map(str, arguments)])


def read(path: Path) -> tuple[torch.Tensor, dict]:
    with safe_open(path, "pt") as file:
        assert list(file.keys()) == ["tokens"]
        return file.get_tensor("tokens"), json.loads(file.metadata()["omniid"])


def test_the_tokens_are_those_of_crops_as_in_training_and_the_file_says_of_what(
    encoder: Path, astronaut: Path, group: Path, finder: PortraitFinder, tmp_path: Path
) -> None:
    output = tmp_path / "new" / "anna.safetensors"
    result = encoded(astronaut, group, "--encoder", encoder, "-o", output)
    assert result.exit_code == 0, result.output
    tokens, facts = read(output)
    network = OmniIDEncoder.from_pretrained(encoder).eval()
    portraits = [finder.find(read_photograph(path), 1.1)[0] for path in (astronaut, group)]
    assert tokens.shape == (TINY.queries, TINY.width)
    assert torch.equal(tokens, network.encode_portraits(portraits))
    assert facts == {
        "format_version": "1.1",
        "kind": "omniid-tokens",
        "representation": "omniid",
        "encoder_sha256": hashlib.sha256((encoder / "model.safetensors").read_bytes()).hexdigest(),
        "crop_scale": 1.1,
        "profile": "embedded",
        "photos": [
            {
                "file": path.name,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "face_px": round(portrait.face_px),
            }
            for path, portrait in zip((astronaut, group), portraits, strict=True)
        ],
    }
    assert f"{group} shows 6 faces. The largest is used, {portraits[1].place}; ignored:" in result.output
    assert f"{output}: 16 identity tokens of 128 channels, from 2 photographs" in result.output


@pytest.mark.slow
def test_another_process_writes_the_same_bytes(encoder: Path, astronaut: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    assert encoded(astronaut, "--encoder", encoder, "--device", "cpu", "-o", first).exit_code == 0
    code = "from training.cli import main; main()"
    command = [sys.executable, "-c", code, "encode", str(astronaut), "--encoder", str(encoder)]
    subprocess.run([*command, "--device", "cpu", "-o", str(second)], check=True)
    assert first.read_bytes() == second.read_bytes()


def test_portraits_of_another_crop_scale_are_rejected(
    encoder: Path, astronaut: Path, finder: PortraitFinder
) -> None:
    network = OmniIDEncoder.from_pretrained(encoder)
    tight, wide = (finder.find(read_photograph(astronaut), scale)[0] for scale in (1.1, 1.6))
    with pytest.raises(ValueError, match=r"cut with crop_scale 1\.6, the encoder was trained on 1\.1"):
        network.encode_portraits([tight, wide])
    assert network.encode_portraits([tight]).isfinite().all()
    with pytest.raises(ValueError, match="no image is given"):
        network.encode_portraits([])
    assert OmniIDEncoder(TINY).encode_portraits([tight, wide]).shape == (TINY.queries, TINY.width)


def test_another_crop_scale_than_in_training_is_an_error_and_writes_nothing(
    encoder: Path, astronaut: Path, tmp_path: Path
) -> None:
    output = tmp_path / "anna.safetensors"
    result = encoded(astronaut, "--encoder", encoder, "-o", output, "--crop-scale", 1.6)
    assert result.exit_code == 1
    assert "--crop-scale: the portraits were cut with crop_scale 1.6, the encoder was trained on 1.1" in (
        result.output
    )
    assert not output.exists()


def test_an_encoder_that_does_not_say_its_crop_scale_gives_a_warning_or_takes_the_users(
    astronaut: Path, tmp_path: Path
) -> None:
    OmniIDEncoder(TINY).save_pretrained(tmp_path / "encoder")
    found = {}
    for options in ((), ("--crop-scale", 1.6), ("--crop-scale", 1.1)):
        output = tmp_path / "anna.safetensors"
        result = encoded(astronaut, "--encoder", tmp_path / "encoder", "-o", output, *options)
        assert result.exit_code == 0, result.output
        assert ("does not say which crops it was trained on; 1.6 is assumed" in result.output) == (
            not options
        )
        found[options[1:]], facts = read(output)
        assert facts["crop_scale"] == (options[1] if options else 1.6)
    assert torch.equal(found[()], found[(1.6,)])
    assert not torch.equal(found[()], found[(1.1,)])


def test_every_photo_that_cannot_be_used_is_named_with_its_reason_and_can_be_skipped(
    encoder: Path, astronaut: Path, table: Path, tmp_path: Path
) -> None:
    folder, output = tmp_path / "anna", tmp_path / "anna.safetensors"
    folder.mkdir()
    (folder / "b-letter.jpg").write_text("Dear Anna")
    shutil.copy(table, folder / "c-table.png")
    image = read_photograph(astronaut)
    Image.fromarray(image).save(folder / "d-whole.jpg")
    whole = (folder / "d-whole.jpg").read_bytes()
    (folder / "e-cut.jpg").write_bytes(whole[: len(whole) // 3])
    (folder / "notes.txt").write_text("…")
    (folder / ".hidden.jpg").write_text("…")
    arguments = (folder, folder / "missing.jpg", "--encoder", encoder, "-o", output)
    result = encoded(*arguments)
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert "Ignored 1 files of" in result.output
    assert "(.txt: 1)" in result.output
    listed = [line for line in result.output.splitlines() if line.startswith("- ")]
    assert "4 of 5 photographs cannot be used:" in result.output
    for line, (name, reason) in zip(
        listed,
        [
            ("b-letter.jpg", "is no JPEG"),
            ("c-table.png", "shows no face"),
            ("e-cut.jpg", "cannot be decoded"),
            ("missing.jpg", "does not exist"),
        ],
        strict=True,
    ):
        assert line.startswith(f"- {folder / name} {reason}")
    assert not output.exists()

    result = encoded(*arguments, "--skip-unusable")
    assert result.exit_code == 0, result.output
    assert result.output.count("Skipped: ") == 4
    assert [photo["file"] for photo in read(output)[1]["photos"]] == ["d-whole.jpg"]


def test_skipping_all_photos_is_an_error(encoder: Path, table: Path, tmp_path: Path) -> None:
    result = encoded(table, "--encoder", encoder, "--skip-unusable", "-o", tmp_path / "x.safetensors")
    assert result.exit_code == 1
    assert f"error: {table} shows no face" in result.output


def test_a_directory_without_photos_and_an_output_that_is_no_tokens_file_are_errors(
    encoder: Path, astronaut: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    result = encoded(tmp_path / "empty", "--encoder", encoder, "-o", tmp_path / "x.safetensors")
    assert result.exit_code == 1
    assert "holds no photograph" in result.output
    mine = tmp_path / "anna.png"
    shutil.copy(astronaut, mine)
    result = encoded(mine, "--encoder", encoder, "-o", mine)
    assert result.exit_code == 1
    assert "is not the name of a .safetensors file" in result.output
    assert mine.read_bytes() == astronaut.read_bytes()


def test_the_order_of_photos_makes_no_difference_and_a_photo_counts_once(
    encoder: Path, astronaut: Path, group: Path, tmp_path: Path
) -> None:
    found = []
    for number, photos in enumerate(((astronaut, group), (group, astronaut), (astronaut, group, astronaut))):
        output = tmp_path / f"{number}.safetensors"
        assert encoded(*photos, "--encoder", encoder, "-o", output).exit_code == 0
        found.append(read(output)[0].numpy())
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)
    assert np.array_equal(found[0], found[2])


def test_an_encoder_is_found_in_an_export_and_in_the_output_of_a_run(encoder: Path, tmp_path: Path) -> None:
    assert find_encoder(str(encoder)) == encoder
    assert find_encoder(str(encoder.parent)) == encoder_folder(encoder)
    with pytest.raises(TrainingError, match="there is no directory"):
        find_encoder(str(tmp_path / "none"))


def test_a_directory_that_holds_no_encoder_is_named(astronaut: Path, tmp_path: Path) -> None:
    result = encoded(astronaut, "--encoder", tmp_path, "-o", tmp_path / "x.safetensors")
    assert result.exit_code == 1
    assert f"{tmp_path} holds no finished encoder" in result.output
