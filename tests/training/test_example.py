"""examples/flux_pipeline.py, run as it stands there."""

from __future__ import annotations

import ast
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flow_runs import SIDE, as_trained, flow_config, flow_stage, write_run
from PIL import Image

from training.config import Config
from training.export import export

EXAMPLE = Path(__file__).parents[2] / "examples" / "flux_pipeline.py"
GUIDED = {"identity_dropout": 0.1}
Draw = Callable[..., np.ndarray]


def exported(config: Config, folder: Path) -> Path:
    """The export of a run of a configuration."""
    run = write_run(folder / "run", config, as_trained(flow_stage(config)))
    export(run, folder / "omniid")
    return folder / "omniid"


@pytest.fixture
def draw(tiny_flux: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Draw:
    """Runs the example on a grey photograph."""

    def drawn(source: Path, grey: int, *options: object) -> np.ndarray:
        crop, output = tmp_path / f"{grey}.jpg", tmp_path / "person.png"
        Image.fromarray(np.full((512, 512, 3), grey, dtype=np.uint8)).save(crop)
        arguments = [source, crop, "--flux", tiny_flux, "--steps", 2, "--size", SIDE, "--output", output]
        monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *map(str, [*arguments, *options])])
        runpy.run_path(str(EXAMPLE), run_name="__main__")
        return np.asarray(Image.open(output)).astype(int)

    return drawn


def test_it_knows_nothing_but_diffusers_and_the_encoder() -> None:
    ours = {
        node.module
        for node in ast.walk(ast.parse(EXAMPLE.read_text()))
        if isinstance(node, ast.ImportFrom)
        and node.module
        and node.module.startswith(("training", "faces", "shards"))
    }
    assert ours == {"training.models.encoder"}


def test_it_draws_who_is_shown_and_exaggerates_it(draw: Draw, tiny_flux: Path, tmp_path: Path) -> None:
    source = exported(flow_config(tiny_flux, tmp_path, GUIDED), tmp_path)
    dark = draw(source, 40)
    assert dark.shape == (SIDE, SIDE, 3)
    assert np.array_equal(dark, draw(source, 40, "--identity-guidance", 1))
    assert np.abs(dark - draw(source, 200)).max() > 1
    assert np.abs(dark - draw(source, 40, "--identity-guidance", 4)).max() > 1


def test_what_it_cannot_use_it_says(
    draw: Draw, tiny_flux: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = exported(flow_config(tiny_flux, tmp_path), tmp_path / "plain")
    guided = exported(flow_config(tiny_flux, tmp_path, GUIDED), tmp_path / "guided")
    own = exported(flow_config(None, None), tmp_path / "own")
    for arguments, message in (
        ((tmp_path, 40), "is no export: it has no omniid.json"),
        ((own, 40), "holds no adapter for FLUX"),
        ((plain, 40, "--identity-guidance", 4), "was trained without flow.identity_dropout"),
        ((guided, 40, "--identity-guidance", 0.5), "diffusers guides from 1 upwards"),
    ):
        with pytest.raises(SystemExit):
            draw(*arguments)
        assert message in capsys.readouterr().err
