"""The small flow transformer of experiments: from shards to a directory that a run freezes."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch
from flow_runs import flow_config

from training.config import Config
from training.decoders.flow_config import Scratch
from training.decoders.flow_networks import scratch_transformer
from training.experiments.transformer import flow_loss, train
from training.model import build_model

pytestmark = pytest.mark.slow


def called(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"training.experiments.{program}", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_shards_become_a_transformer_that_a_run_takes(launched_data: Path, tmp_path: Path) -> None:
    few = ("--side", 32, "--steps", 2, "--batch", 2)
    vae, output = tmp_path / "vae", tmp_path / "transformer"
    assert called("autoencoder", launched_data, vae, "--channels", 3, *few).returncode == 0
    size = {"layers": 1, "single_layers": 1, "heads": 2, "head_width": 16}
    options = [word for name, value in size.items() for word in (f"--{name.replace('_', '-')}", value)]
    result = called("transformer", launched_data, output, "--vae", vae, *options, *few)
    assert result.returncode == 0, result.stderr
    override = shlex.split(result.stdout.splitlines()[-1])[-1].removeprefix("decoders.flow.scratch=")
    assert json.loads(override)["transformer"] == str(output)
    assert cv2.imread(str(output / "generated.png")) is not None

    config: Config = flow_config(None, None, {"scratch": json.loads(override), "side": 32})
    own = build_model(config).decoder("flow").transformer
    assert not any(weight.requires_grad for name, weight in own.named_parameters() if "_ip." not in name)

    again = called("transformer", launched_data, output, "--vae", vae, *options, *few)
    assert again.returncode == 1
    assert "exists and is not empty. Pass a new directory" in " ".join(again.stderr.split())
    continued = called("transformer", launched_data, output, "--vae", vae, *options, *few, "--continue")
    assert continued.stdout == f"{output} is finished: nothing to do\n"


def test_it_learns_the_distribution_of_its_images() -> None:
    """Images of one colour each: the loss falls far below that of knowing nothing, which is about 2.

    The network is wider than a token has numbers, or noise could not pass through it.
    """
    torch.manual_seed(0)
    scratch = Scratch(layers=1, single_layers=1, heads=2, head_width=32, patch=4)
    transformer = scratch_transformer(scratch, 48)
    images_IQF = torch.randint(2, (64, 1, 1)).float().mul(2).sub(1).expand(64, 4, 48).contiguous()
    times_I, noise_IQF = torch.full((64,), 0.5), torch.randn_like(images_IQF)
    before = float(flow_loss(transformer, images_IQF, times_I, noise_IQF).detach())
    train(transformer, images_IQF, steps=400, batch=32)
    after = float(flow_loss(transformer, images_IQF, times_I, noise_IQF))
    assert 1.5 < before < 2.5
    assert after < 0.4 * before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere", "out", "--vae", "vae"), "vae has no config.json"),
        (("nowhere", "out"), "--vae"),
    ],
)
def test_user_errors_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = called("transformer", *arguments)
    assert result.returncode in {1, 2}
    assert message in result.stderr
    assert "Traceback" not in result.stderr
