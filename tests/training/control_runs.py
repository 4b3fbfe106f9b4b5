"""Directories of control runs, written with the trainer's own parts but without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from flow_runs import SIDE, as_trained, write_run

from training.config import Config
from training.model import IdentityModel, build_model


def control_run(folder: Path, base: dict[str, Any], flow: Config) -> tuple[Path, IdentityModel]:
    """A run of a flow decoder and one of a control decoder after it, with weights as after many steps."""
    flow_model = as_trained(build_model(flow))
    flow_run = write_run(folder / "flow", flow, flow_model)
    flow_model.representation.save_pretrained(flow_run / "encoder")
    config = Config.model_validate(
        {
            "output": str(folder / "out"),
            "data": {"root": "root"},
            "representation": {"size": "tiny", "weights": str(flow_run / "encoder"), "frozen": True},
            "decoders": {"control": base | {"side": SIDE, "layers": 1, "adapter": str(flow_run)}},
            "run": {"precision": "fp32"},
        }
    )
    model = build_model(config)
    generator = torch.Generator().manual_seed(7)
    for name, weight in model.named_parameters():
        if weight.requires_grad and ("controlnet_blocks" in name or "controlnet_x_embedder" in name):
            torch.nn.init.normal_(weight, std=0.3, generator=generator)
    return write_run(folder / "control", config, model), model.eval()
