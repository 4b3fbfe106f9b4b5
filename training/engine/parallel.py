"""A stage on all processes: how its activations are kept, its blocks compiled, its weights copied or sharded.

The order matters: activation checkpointing, then `torch.compile` of each block, then FSDP2 or DDP around the
result. Blocks keep their names through all of it (only their `forward` is replaced), so checkpoints of any such
combination can be read by any other.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from training.config import Run
from training.data.batch import Batch
from training.engine.processes import World
from training.models.stage import Stage

COMPILED_KINDS = 64
"""Most variants of one piece of code that are compiled. All blocks that are computed twice share the function that
does so: there is a variant for each class of block, and for each way in which what comes in is laid out in memory.
Past torch's own limit of 8, most of FLUX's blocks would silently not be compiled."""


class ParallelStage:
    """A stage whose gradients are those of all processes together.

    Args:
        stage: alike on every process; it is changed in place.
        run: how the machines run it.
        world: the processes.
    """

    def __init__(self, stage: Stage, run: Run, world: World) -> None:
        self.stage = stage
        self._run = run
        self._world = world
        module: Any = stage
        self._module = module
        if run.compile:
            torch._dynamo.config.recompile_limit = COMPILED_KINDS
        for number, block in enumerate(stage.blocks()):
            if _in_share(number, float(run.activation_checkpointing)):
                block.forward = _computed_twice(block.forward)
            if run.compile:
                # For each shape by itself: a step has few of them, and kernels for any shape would be slower.
                block.forward = torch.compile(block.forward, dynamic=False)
        self._share(module) if run.strategy == "fsdp" else self._copy(module)
        self.parameters: dict[str, nn.Parameter] = {
            name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad
        }
        """What is trained, by its name in the stage."""

    def weights(self) -> list[nn.Parameter]:
        """All weights, those that are not trained among them."""
        module: Any = self.stage
        return list(module.parameters())

    def _copy(self, stage: Any) -> None:
        stage.to(self._world.device)
        with warnings.catch_warnings():
            # What newer versions of torch call it, older ones do not know.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            # A view of the buckets saves a copy of all gradients; buffers are constants here.
            self._module = DistributedDataParallel(
                stage, gradient_as_bucket_view=True, broadcast_buffers=False
            )

    def _share(self, stage: Any) -> None:
        # Weights stay in float32; what is gathered and computed with is bfloat16, what is summed float32 again.
        # What comes into a block keeps its type, as with DDP: FLUX's tables of positions are float32.
        precision = (
            MixedPrecisionPolicy(
                param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
            )
            if self._run.precision == "bf16"
            else MixedPrecisionPolicy()
        )
        # Nothing here or in diffusers changes what a block returned in place.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
        mesh = init_device_mesh(self._world.device.type, (self._world.world_size,))
        for block in stage.blocks():
            fully_shard(block, mesh=mesh, mp_policy=precision)
        # Validation runs no backward pass; what it gathered must not be taken for the weights of the next step.
        fully_shard(stage, mesh=mesh, mp_policy=precision, reshard_after_forward=True)

    def settle(self, batch: Batch) -> None:
        """Run one batch for nothing, before the first step.

        DDP lays out what it sends after the first backward pass, and with more than two processes the layout
        decides in which order numbers are added. A run that goes on from a checkpoint would otherwise differ in
        its first step, in the last bits, from one that was never stopped.
        """
        self._backward([batch], scale=0.0)
        for parameter in self.parameters.values():
            parameter.grad = None

    def backward(self, batches: Sequence[Batch], parts: int) -> torch.Tensor:
        """Leave the gradient of the loss in the parameters.

        Args:
            batches: the micro-batches of this process, on the CPU.
            parts: how many parts the loss is a sum over, in those of all processes.

        Returns:
            The mean loss over all of them, () float32 on the device.
        """
        # DDP and FSDP take the mean over processes where the sum is wanted.
        total = self._backward(batches, scale=self._world.world_size / max(parts, 1))
        dist.all_reduce(total)
        return total / max(parts, 1)

    def _backward(self, batches: Sequence[Batch], scale: float) -> torch.Tensor:
        total = torch.zeros((), device=self._world.device)
        for number, batch in enumerate(batches, start=1):
            with self._exchanging(number == len(batches)):
                with self.precision():
                    loss = self._module(batch.to(self._world.device))
                (loss * scale).backward()
            total += loss.detach()
        return total

    def precision(self) -> AbstractContextManager[object]:
        """In bfloat16 where the configuration says so."""
        return torch.autocast(self._world.device.type, torch.bfloat16, enabled=self._run.precision == "bf16")

    @contextmanager
    def evaluating(self) -> Iterator[Stage]:
        """The stage for use without gradients; every process must do the same with it."""
        self._module.eval()
        # Sharded weights must be gathered for these calls too; in training they are made within `forward`, which
        # has gathered them already.
        gathering = self.stage.METHODS if self._run.strategy == "fsdp" else ()
        # Validation has shapes of its own. All blocks of a class share a few places for compiled code, which those
        # shapes would take from the steps, until nothing is compiled any more.
        eager = torch.compiler.set_stance("force_eager") if self._run.compile else nullcontext()
        for method in gathering:
            register_fsdp_forward_method(self._module, method)
        try:
            with torch.no_grad(), self.precision(), eager:
                yield self.stage
        finally:
            for method in gathering:
                delattr(self._module, method)  # the wrapper, which hides the method of the class
            self._module.train()

    def _exchanging(self, last: bool) -> AbstractContextManager[object]:
        """Gradients are exchanged in the last micro-batch of a step; before, they add up where they are."""
        if self._run.strategy == "fsdp":
            self._module.set_requires_gradient_sync(last)
            return nullcontext()
        return nullcontext() if last else self._module.no_sync()


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor, sharded or not, as one on the CPU; every process must ask for it."""
    gathered: torch.Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return gathered.detach().cpu()


def _in_share(number: int, share: float) -> bool:
    """Whether the block of this number belongs to an evenly spread share of all."""
    return int((number + 1) * share) > int(number * share)


def _computed_twice(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Keep only what comes in, and compute the rest again for the backward pass. Nothing in a block is random."""

    def forward_checkpointed(*args: Any, **named: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **named)

    return forward_checkpointed
