"""What a rank holds is counted on shapes as it is held with weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from flow_runs import flow_config
from tiny_models import mtd_config

from training.engine.memory import held_bytes
from training.model import build_model, meta_model


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_frozen_weights_count_in_the_dtype_that_they_are_kept_in(
    tiny_flux: Path, prompts: Path, precision: str
) -> None:
    config = flow_config(tiny_flux, prompts, run={"precision": precision})
    held = held_bytes(config, meta_model(config))
    assert held == held_bytes(config, build_model(config))
    transformer = meta_model(config).decoder("flow").transformer
    frozen = sum(weight.numel() for weight in transformer.parameters() if not weight.requires_grad)
    assert held["frozen weights"] >= frozen * {"bf16": 2, "fp32": 4}[precision]
    assert held["frozen weights"] < frozen * {"bf16": 2, "fp32": 4}[precision] + 100_000


def test_shards_share_parameters_and_a_run_without_ema_has_none() -> None:
    config = mtd_config(optimiser={"ema_decay": 0})
    model = meta_model(config)
    trained = 4 * sum(weight.numel() for weight in model.parameters())
    whole, half = held_bytes(config, model), held_bytes(config, model, shards=2)
    buffers = whole.pop("frozen weights")
    assert whole == {"weights": trained, "gradients": trained, "optimiser": 2 * trained}
    assert half == {name: size / 2 for name, size in whole.items()} | {"frozen weights": buffers}
