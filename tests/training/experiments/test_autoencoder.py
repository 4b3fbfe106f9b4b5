"""The autoencoder for a scratch flow transformer: from shards to a directory that a run takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch

from training.models.flux_latents import VaeCodec

pytestmark = pytest.mark.slow

MODULE = "training.experiments.autoencoder"


def called(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", MODULE, *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_shards_become_an_autoencoder_that_diffusers_reads_and_nothing_is_overwritten(
    launched_data: Path, tmp_path: Path
) -> None:
    few = ("--side", 16, "--channels", 3, "--steps", 2, "--batch", 2)
    result = called(launched_data, tmp_path / "vae", *few)
    assert result.returncode == 0, result.stderr
    assert f"decoders.flow.scratch.vae={tmp_path / 'vae'} decoders.flow.side=16" in result.stdout
    codec = VaeCodec.load(tmp_path / "vae", torch.float32)
    latents = codec.encode(torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    assert latents.shape == (2, 3, 4, 4)
    assert codec.decode(latents).shape == (2, 3, 16, 16)
    assert cv2.imread(str(tmp_path / "vae" / "held_out.png")) is not None

    again = called(launched_data, tmp_path / "vae", *few)
    assert again.returncode == 1
    assert "exists and is not empty. Pass a new directory" in " ".join(again.stderr.split())

    before = (tmp_path / "vae" / "config.json").stat().st_mtime_ns
    continued = called(launched_data, tmp_path / "vae", *few, "--continue")
    assert continued.returncode == 0, continued.stderr
    assert continued.stdout == f"{tmp_path / 'vae'} is finished: nothing to do\n"
    assert (tmp_path / "vae" / "config.json").stat().st_mtime_ns == before

    (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").unlink()  # as if it had been interrupted
    continued = called(launched_data, tmp_path / "vae", *few, "--continue")
    assert continued.returncode == 0, continued.stderr
    VaeCodec.load(tmp_path / "vae", torch.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere", "out"), "error: nowhere is no finished dataset"),
        (("nowhere", "out", "--side", "24"), "invalid choice"),
        (("nowhere", "out", "--steps", "0"), "0 is too small"),
    ],
)
def test_user_errors_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = called(*arguments)
    assert result.returncode in {1, 2}
    assert message in result.stderr
    assert "Traceback" not in result.stderr
