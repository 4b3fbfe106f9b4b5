"""Directories of flow runs, written with the trainer's own parts but without training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from training.config import Config
from training.decoders.flow import FlowDecoder
from training.decoders.flow_config import Scratch
from training.decoders.flow_networks import scratch_transformer
from training.engine.checkpoint import SavedState
from training.engine.dcp import write_tensors
from training.model import IdentityModel, build_model
from training.models.flux_folder import WEIGHTS_FILE

SCRATCH = {"layers": 2, "single_layers": 1, "heads": 2, "head_width": 16, "patch": 4}
SIDE = 64


def flow_config(
    flux: Path | None, prompts: Path | None, flow: dict[str, object] | None = None, **changes: object
) -> Config:
    """A configuration on a directory of FLUX, or on a scratch transformer when there is none."""
    base = (
        {"base": str(flux), "prompt_cache": str(prompts), "text_tokens": 16} if flux else {"scratch": SCRATCH}
    )
    values: dict[str, object] = {
        "output": "out",
        "data": {"root": "root"},
        "representation": {"size": "tiny"},
        "decoders": {"flow": base | {"side": SIDE} | (flow or {})},
        "run": {"precision": "fp32"},
    }
    return Config.model_validate(values | changes)


def write_transformer(folder: Path, *, seed: int = 0) -> Path:
    """A directory as `training.experiments.transformer` writes it, of `SCRATCH`'s size."""
    torch.manual_seed(seed)
    network = scratch_transformer(Scratch.model_validate(SCRATCH), 3 * SCRATCH["patch"] ** 2)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.05)
    network.save_config(folder)
    save_file(network.state_dict(), folder / WEIGHTS_FILE)
    return folder


def flow_decoder(config: Config) -> FlowDecoder:
    """The flow decoder of a configuration, with its initial weights."""
    return decoder_of(build_model(config))


def decoder_of(model: IdentityModel) -> FlowDecoder:
    """The flow decoder of a model."""
    decoder = model.decoder("flow")
    assert isinstance(decoder, FlowDecoder)
    return decoder


def as_trained(model: IdentityModel) -> IdentityModel:
    """The same model, in evaluation, with an adapter whose output is not zero, as after many steps."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "to_v_ip" in name or name.startswith("decoders.flow.projection.proj"):
                weight.normal_(std=0.5, generator=generator)
            elif (
                weight.requires_grad
                and ".transformer." in name
                and "decoders.flow" in name
                and "_ip." not in name
            ):
                weight.normal_(std=0.05, generator=generator)
    return model.eval()


def write_run(output: Path, config: Config, model: IdentityModel, step: int = 3, ema: bool = True) -> Path:
    """The output of a run after a number of steps; with `ema`, the weights outside of the EMA are zeros."""
    trained = {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}
    tensors = {f"ema.{name}": weight for name, weight in trained.items()} if ema else {}
    tensors |= {
        f"weights.{name}": torch.zeros_like(weight) if ema else weight for name, weight in trained.items()
    }
    folder = output / "checkpoints" / f"step-{step:09}"
    write_tensors(folder, tensors | {"optimiser.skipped": torch.zeros(())}, None)
    (folder / "state.json").write_text(saved_state(config, model, step=step).model_dump_json())
    (output / "run.json").write_text(json.dumps({"config": config.model_dump(mode="json")}))
    return output


def saved_state(config: Config, model: IdentityModel, **changes: Any) -> SavedState:
    """What the checkpoint of such a run says about itself."""
    values = {
        "code": "0",
        "step": 3,
        "config": config.defining(),
        "dataset_sha256": "0" * 64,
        "frozen_digests": model.frozen_digests,
        "damaged": {},
        "world_size": 1,
        "torch": "0",
    }
    return SavedState(**values | changes)
