"""However FLUX is sharded, recomputed or compiled, it computes the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from flow_runs import SCRATCH, as_trained, flow_config, write_transformer

from training.config import Run
from training.data.batch import Batch
from training.engine.parallel import ParallelModel
from training.engine.processes import World, processes
from training.model import build_model

DEEP = {"layers": 3, "single_layers": 3, "heads": 2, "head_width": 16, "patch": 4}
"""So that there are blocks behind others of their class, which are a case of their own for the compiler."""


@pytest.fixture
def world() -> Iterator[World]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with processes(deterministic=True) as joined:
        yield joined
    torch.set_num_threads(threads)


@pytest.fixture
def parallel(world: World, tiny_flux: Path, tmp_path: Path) -> Callable[..., ParallelModel]:
    """A model on the tiny FLUX, or on a scratch transformer, run in any way; always with the same weights."""

    def made(scratch: dict[str, Any] | None = None, **run: Any) -> ParallelModel:
        flux, flow = (None, {"scratch": scratch}) if scratch else (tiny_flux, None)
        config = flow_config(flux, tmp_path / "prompts", flow, run={"precision": run["precision"]})
        return ParallelModel(as_trained(build_model(config)).train(), Run(**run), world)

    return made


def loss_of(model: ParallelModel, batch: Batch) -> float:
    loss = float(model.backward([batch], batch.target_count))
    for weight in model.parameters.values():
        weight.grad = None
    return loss


@pytest.mark.parametrize("frozen", ["flux", "small transformer"])
def test_sharded_in_bfloat16_it_has_the_loss_of_a_copy(
    parallel: Any, make_batch: Any, tmp_path: Path, frozen: str
) -> None:
    small = SCRATCH | {"transformer": str(write_transformer(tmp_path / "transformer"))}
    how = {"precision": "bf16"} | ({} if frozen == "flux" else {"scratch": small})
    batch = make_batch(people=2)
    copied = loss_of(parallel(**how), batch)
    assert loss_of(parallel(**how, strategy="fsdp"), batch) == copied


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "strategy"), [("bf16", "ddp"), ("fp32", "ddp"), ("bf16", "fsdp")])
def test_every_block_is_compiled_also_where_activations_are_computed_twice(
    parallel: Any, make_batch: Any, monkeypatch: pytest.MonkeyPatch, precision: str, strategy: str
) -> None:
    # Captured and differentiated as ever, but not turned into C++.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    batches = make_batch(people=2), make_batch(people=1)  # each of its own shape
    how = {"scratch": DEEP, "precision": precision, "strategy": strategy}
    plain = parallel(**how)
    expected = [loss_of(plain, batch) for batch in batches]
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = parallel(**how, compile=True, activation_checkpointing=True)
    losses = [loss_of(compiled, batch) for batch in batches]
    counted = torch._dynamo.utils.counters
    assert losses == pytest.approx(expected, rel=1e-2 if precision == "bf16" else 1e-5)
    assert not any("recompile" in reason for reason in counted["unimplemented"]), counted["unimplemented"]
    assert not counted["graph_break"]
    assert counted["stats"]["unique_graphs"] > 8  # the most that torch compiles by default
