"""A model on all ranks: activation checkpointing, compiled blocks, replicated (DDP) or sharded (FSDP2) weights.

The order matters: activation checkpointing, then `torch.compile` of each block, then FSDP2 or DDP around the
result. Blocks keep their names through all of it (only their `forward` is replaced), so checkpoints of any such
combination can be read by any other.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from training.model import IdentityModel
from training.models.precision import bfloat16, with_plain_attention

COMPILED_KINDS = 64
"""Compiled variants of one function, at most. All blocks with activation checkpointing share a function, which
has a variant for each class of block and each memory layout of the inputs. With torch's own limit of 8, most
blocks of a large decoder would silently not be compiled."""


class ParallelModel:
    """A model whose gradients are all-reduced over the ranks.

    Args:
        model: with the same weights on every rank; changed in place.
        run: how the machines run it.
        world: the ranks.
        weights: of the decoders' losses in their sum, by name; 1 where none is given.
    """

    def __init__(
        self, model: IdentityModel, run: Run, world: World, weights: Mapping[str, float] | None = None
    ) -> None:
        self.model = model
        given = [(weights or {}).get(name, 1.0) for name in model.names]
        self.weights_R = torch.tensor(given, device=world.device)
        self._run = run
        self._world = world
        module: Any = model
        self._module = module
        if run.compile:
            torch._dynamo.config.recompile_limit = COMPILED_KINDS
        plain = run.precision == "bf16" and world.device.type == "cpu"
        for number, block in enumerate(model.blocks()):
            if plain:
                block.forward = with_plain_attention(block.forward)
            if _is_selected(number, float(run.activation_checkpointing)):
                block.forward = _checkpointed(block.forward)
            if run.compile:
                # Static shapes: a step has few of them, and kernels for dynamic shapes are slower.
                block.forward = torch.compile(block.forward, dynamic=False)
        self._shard(module) if run.strategy == "fsdp" else self._replicate(module)
        self.parameters: dict[str, nn.Parameter] = {
            name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad
        }
        """What is trained, by its name in the model."""

    def weighted(self, losses_R: torch.Tensor) -> torch.Tensor:
        """The weighted sum of the losses of all decoders, ()."""
        return (losses_R * self.weights_R).sum()

    def _replicate(self, model: Any) -> None:
        model.to(self._world.device)
        with warnings.catch_warnings():
            # The new name of this argument is unknown to older versions of torch.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            # Views of the buckets save a copy of all gradients; buffers are constants here.
            self._module = DistributedDataParallel(
                model, gradient_as_bucket_view=True, broadcast_buffers=False
            )

    def _shard(self, model: Any) -> None:
        # Weights are kept in float32, gathered and computed with in bfloat16; gradients are reduced in float32.
        # Inputs of a block keep their dtype, as with DDP: tables of positions are float32.
        precision = (
            MixedPrecisionPolicy(
                param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
            )
            if self._run.precision == "bf16"
            else MixedPrecisionPolicy()
        )
        # The output of a block is never changed in place.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
        mesh = init_device_mesh(self._world.device.type, (self._world.world_size,))
        for block in model.blocks():
            fully_shard(block, mesh=mesh, mp_policy=precision)
        # Validation runs no backward pass, so its gathered weights would stay and be used in the next step.
        fully_shard(model, mesh=mesh, mp_policy=precision, reshard_after_forward=True)

    def warm_up(self, batch: Batch) -> None:
        """Run one forward and backward pass without an update, before the first step.

        DDP rebuilds its buckets after the first backward pass, and with more than two ranks the buckets determine
        the order of additions. Otherwise the first step of a resumed run would differ in the last bits from that
        of an uninterrupted one.
        """
        self._backward([batch], scale=0.0)
        for parameter in self.parameters.values():
            parameter.grad = None

    def backward(self, batches: Sequence[Batch], targets: int) -> torch.Tensor:
        """Compute the gradient of the loss into the parameters.

        Args:
            batches: the micro-batches of this rank, on the CPU.
            targets: targets of undamaged samples, over all ranks.

        Returns:
            Each decoder's mean loss over all targets, (R,) float32 on the device.
        """
        # DDP and FSDP take the mean over ranks where the sum is needed.
        total = self._backward(batches, scale=self._world.world_size / max(targets, 1))
        dist.all_reduce(total)
        return total / max(targets, 1)

    def _backward(self, batches: Sequence[Batch], scale: float) -> torch.Tensor:
        total = torch.zeros(len(self.weights_R), device=self._world.device)
        for number, batch in enumerate(batches, start=1):
            with self._gradient_sync(number == len(batches)):
                with self.precision():
                    losses_R = self._module(batch.to(self._world.device))
                (self.weighted(losses_R) * scale).backward()
            total += losses_R.detach()
        return total

    def precision(self) -> AbstractContextManager[object]:
        """In bfloat16 where the configuration says so."""
        return bfloat16(self._world.device) if self._run.precision == "bf16" else nullcontext()

    @contextmanager
    def evaluating(self) -> Iterator[IdentityModel]:
        """The model without gradients; every rank must call the same methods."""
        self._module.eval()
        # These methods must gather sharded weights too; in training, `forward` gathers them and calls the methods.
        gathering = self.model.METHODS if self._run.strategy == "fsdp" else ()
        # Eager: the shapes of validation would fill the limit of compiled variants, which training needs.
        eager = torch.compiler.set_stance("force_eager") if self._run.compile else nullcontext()
        for method in gathering:
            register_fsdp_forward_method(self._module, method)
        try:
            with torch.no_grad(), self.precision(), eager:
                yield self.model
        finally:
            for method in gathering:
                delattr(self._module, method)  # the wrapper, which hides the method of the class
            self._module.train()

    def _gradient_sync(self, last: bool) -> AbstractContextManager[object]:
        """Gradients are accumulated locally and all-reduced in the last micro-batch of a step."""
        if self._run.strategy == "fsdp":
            self._module.set_requires_gradient_sync(last)
            return nullcontext()
        return nullcontext() if last else self._module.no_sync()


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of a tensor on the CPU, gathered when it is sharded; a collective."""
    gathered: torch.Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    # A copy even from the CPU: the EMA replaces the weights only for a while.
    return gathered.detach().to("cpu", copy=True)


def _is_selected(number: int, share: float) -> bool:
    """Whether a block belongs to the share of all blocks, evenly spread, that is checkpointed."""
    return int((number + 1) * share) > int(number * share)


def _checkpointed(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Keep only the inputs and recompute the rest in the backward pass. Blocks have no random numbers."""

    def forward_checkpointed(*args: Any, **named: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **named)

    return forward_checkpointed
