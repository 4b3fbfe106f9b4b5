"""examples/flux_pipeline.py, run as it stands there."""

from __future__ import annotations

import ast
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from control_runs import control_run
from flow_runs import SIDE, as_trained, flow_config, write_run
from PIL import Image

from pipeline.demo.photographs import PEOPLE, STILL_LIFE, package_file
from training.config import Config
from training.export import export
from training.model import build_model

EXAMPLE = Path(__file__).parents[2] / "examples" / "flux_pipeline.py"
GUIDED = {"identity_dropout": 0.1}
ASTRONAUT, GROUP = (package_file(*PEOPLE[name].source) for name in ("astronaut", "group-1"))
Generate = Callable[..., np.ndarray]


def exported(config: Config, folder: Path) -> Path:
    """The export of a run of a configuration."""
    run = write_run(folder / "run", config, as_trained(build_model(config)))
    export(run, folder / "omniid")
    return folder / "omniid"


@pytest.fixture
def generate(tiny_flux: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generate:
    """Runs the example on a photo."""

    def generated(source: Path, photo: Path, *options: object) -> np.ndarray:
        output = tmp_path / "person.png"
        arguments = [source, photo, "--flux", tiny_flux, "--steps", 2, "--size", SIDE, "--output", output]
        monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *map(str, [*arguments, *options])])
        runpy.run_path(str(EXAMPLE), run_name="__main__")
        return np.asarray(Image.open(output)).astype(int)

    return generated


def test_it_knows_nothing_but_diffusers_and_the_public_package() -> None:
    imported = {
        module.partition(".")[0]
        for node in ast.walk(ast.parse(EXAMPLE.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for module in (
            [node.module] if isinstance(node, ast.ImportFrom) else [name.name for name in node.names]
        )
        if module
    }
    assert imported - sys.stdlib_module_names == {"PIL", "diffusers", "omniid", "torch"}


def test_images_depend_on_the_photograph_and_on_guidance(
    generate: Generate, tiny_flux: Path, tmp_path: Path
) -> None:
    source = exported(flow_config(tiny_flux, tmp_path, GUIDED), tmp_path)
    image = generate(source, ASTRONAUT)
    assert image.shape == (SIDE, SIDE, 3)
    assert np.array_equal(image, generate(source, ASTRONAUT, "--identity-guidance", 1))
    assert np.abs(image - generate(source, GROUP)).max() > 1
    assert np.abs(image - generate(source, ASTRONAUT, "--identity-guidance", 4)).max() > 1


def test_an_export_of_a_control_decoder_generates_in_the_pose_of_a_photograph(
    generate: Generate, tiny_flux: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = {"base": str(tiny_flux), "prompt_cache": str(tmp_path), "text_tokens": 16}
    run, _ = control_run(tmp_path, base, flow_config(tiny_flux, tmp_path))
    export(run, tmp_path / "omniid")
    image = generate(tmp_path / "omniid", ASTRONAUT, "--pose-from", ASTRONAUT)
    assert np.abs(image - generate(tmp_path / "omniid", ASTRONAUT, "--pose-from", GROUP)).max() > 1
    assert np.abs(image - generate(tmp_path / "omniid", GROUP, "--pose-from", ASTRONAUT)).max() > 1
    with pytest.raises(SystemExit):
        generate(tmp_path / "omniid", ASTRONAUT)
    assert "--pose-from: pass it for the export of a control decoder" in capsys.readouterr().err


def test_what_it_cannot_use_is_named(
    generate: Generate, tiny_flux: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = exported(flow_config(tiny_flux, tmp_path), tmp_path / "plain")
    guided = exported(flow_config(tiny_flux, tmp_path, GUIDED), tmp_path / "guided")
    own = exported(flow_config(None, None), tmp_path / "own")
    (package, path), (left, top, right, bottom) = STILL_LIFE
    table = tmp_path / "table.png"
    Image.open(package_file(package, path)).crop((left, top, right, bottom)).save(table)
    for arguments, message in (
        ((tmp_path, ASTRONAUT), "is no export: it has no omniid.json"),
        ((own, ASTRONAUT), "holds no adapter for FLUX"),
        ((plain, ASTRONAUT, "--identity-guidance", 4), "was trained without identity_dropout"),
        ((guided, ASTRONAUT, "--identity-guidance", 0.5), "diffusers guides from 1 upwards"),
        ((plain, table), "table.png shows no face"),
    ):
        with pytest.raises(SystemExit):
            generate(*arguments)
        assert message in capsys.readouterr().err
