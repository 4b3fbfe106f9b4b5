"""The process groups of a run on this device, and what the processes exchange through them."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from training.engine.collectives import Collectives
from training.engine.processes import World
from training.errors import RunEnded, TrainingError

ON_A_GPU = pytest.mark.parametrize("device", [pytest.param("cuda", marks=pytest.mark.gpu)], indirect=True)


def test_gradients_go_through_nccl_on_a_gpu_and_through_gloo_on_a_cpu(world: World) -> None:
    config = dict(pair.split(":") for pair in dist.get_backend_config().split(","))
    assert config[world.device.type] == ("nccl" if world.device.type == "cuda" else "gloo")
    values = torch.arange(1000.0, device=world.device)
    dist.all_reduce(values)
    gathered = [torch.empty_like(values)]
    dist.all_gather(gathered, values)
    assert gathered[0].tolist() == list(range(1000))
    assert gathered[0].device == world.device


def test_the_exchanges_of_a_run_need_no_gpu(world: World) -> None:
    collectives = Collectives(world)
    assert collectives.all_reduce([3, -4]).counts == [3, -4]
    assert collectives.all_reduce(stop=True).stop
    assert collectives.all_gather({"rank": world.rank}) == [{"rank": 0}]
    assert collectives.broadcast(lambda: "made") == "made"
    with pytest.raises(RunEnded, match="no such directory"), collectives.barrier():
        raise TrainingError("no such directory")
    assert collectives.all_reduce([1]).counts == [1]


@ON_A_GPU
def test_the_exchange_does_not_wait_for_what_the_gpu_has_to_do(world: World) -> None:
    torch.cuda._sleep(2_000_000_000)  # clock cycles: about a second
    queued = torch.cuda.Event()
    queued.record()
    Collectives(world).agree([1])
    assert not queued.query()
    queued.synchronize()
