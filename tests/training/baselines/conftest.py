"""Runs of every representation, and their exports."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from exports import CASES, PHOTOS, SIZE, Exported
from flow_runs import as_trained, flow_config, write_run
from safetensors.torch import save_file

from faces.photograph import read_photograph
from faces.portraits import Portrait, PortraitFinder
from faces.registry import load_weights
from training.export import export
from training.model import build_model
from training.models.clip import ClipTower
from training.models.sizes import SIZES


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of the weights registry with a recognition network that no wheel has under this name."""
    folder = tmp_path_factory.mktemp("models")
    found = load_weights(["sface"], None)["sface"]
    shutil.copy(found.path, folder / "own.onnx")
    entry = {
        "kind": "sface",
        "file": "own.onnx",
        "sha256": found.sha256,
        "license": "own",
        "normalisation": "none",
        "same_person_cosine": 0.4,
    }
    (folder / "models.json").write_text(json.dumps({"own_net": entry}))
    return folder


@pytest.fixture(scope="module", params=CASES)
def exported(
    request: pytest.FixtureRequest,
    models_dir: Path,
    tiny_flux: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Exported]:
    """The same for each representation, on a tiny FLUX."""
    case, folder = CASES[request.param], tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "tower", SIZE)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        section = case.representation | {"size": "tower"}
        if "clip" in section["kind"]:
            torch.manual_seed(3)
            save_file(ClipTower(SIZE).visual.state_dict(), folder / "tower.safetensors")
            section["clip"] = str(folder / "tower.safetensors")
        if "arcface" in section["kind"]:
            section |= {"recogniser": "own_net", "models_dir": str(models_dir)}
        config = flow_config(tiny_flux, folder, data={"root": "root", "inputs": 2}, representation=section)
        run = write_run(folder / "run", config, as_trained(build_model(config)))
        export(run, folder / "omniid")
        yield Exported(case, run, folder / "omniid")
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def portraits() -> list[Portrait]:
    finder = PortraitFinder.load("embedded", with_embedder=True)
    return [finder.find(read_photograph(photo))[0] for photo in PHOTOS]
