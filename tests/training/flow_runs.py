"""Runs of the flow stage as their folders look, written with the trainer's own parts but without training."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from training.config import Config
from training.engine.checkpoint import SavedState
from training.engine.dcp import write_tensors
from training.models.build import build_stage
from training.models.flow import FlowStage

SCRATCH = {"layers": 2, "single_layers": 1, "heads": 2, "head_width": 16, "patch": 4}
SIDE = 64


def flow_config(
    flux: Path | None, prompts: Path | None, flow: dict[str, object] | None = None, **changes: object
) -> Config:
    """A configuration on a folder of FLUX, or on a transformer of its own when there is none."""
    base = (
        {"base": str(flux), "prompt_cache": str(prompts), "text_tokens": 16} if flux else {"scratch": SCRATCH}
    )
    values: dict[str, object] = {
        "stage": "flow",
        "output": "out",
        "data": {"root": "root"},
        "model": {"size": "tiny", "clip": "random"},
        "flow": base | {"side": SIDE} | (flow or {}),
        "run": {"precision": "fp32"},
    }
    return Config.model_validate(values | changes)


def flow_stage(config: Config) -> FlowStage:
    """The stage of a configuration."""
    made = build_stage(config)
    assert isinstance(made, FlowStage)
    return made


def as_trained(stage: FlowStage) -> FlowStage:
    """The same stage, with an adapter and an encoder that matter, as after many steps."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, weight in stage.named_parameters():
            if "to_v_ip" in name or name.startswith("projection.proj"):
                weight.normal_(std=0.5, generator=generator)
            elif weight.requires_grad and name.startswith("transformer.") and "_ip." not in name:
                weight.normal_(std=0.05, generator=generator)
    return stage.eval()


def write_run(output: Path, config: Config, stage: FlowStage, step: int = 3, average: bool = True) -> Path:
    """What a run of so many steps leaves behind; with `average`, its weights themselves are of no use."""
    trained = {name: weight.detach() for name, weight in stage.named_parameters() if weight.requires_grad}
    tensors = {f"average.{name}": weight for name, weight in trained.items()} if average else {}
    tensors |= {
        f"weights.{name}": torch.zeros_like(weight) if average else weight for name, weight in trained.items()
    }
    folder = output / "checkpoints" / f"step-{step:09}"
    write_tensors(folder, tensors | {"optimiser.skipped": torch.zeros(())}, None)
    state = SavedState(
        step=step,
        config=config.defining(),
        dataset_sha256="0" * 64,
        damaged={},
        world_size=1,
        torch="0",
        frozen_digest=stage.frozen_digest,
    )
    (folder / "state.json").write_text(state.model_dump_json())
    (output / "run.json").write_text(json.dumps({"config": config.model_dump(mode="json")}))
    return output
