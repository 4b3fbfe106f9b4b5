"""How many floating point operations a step takes, counted exactly, for the model FLOPs utilisation (MFU).

The stage is built once more on the meta device, where tensors have shapes but no memory, and torch's counter
follows a forward and a backward pass through it. That counts what the model needs: matrix products and
convolutions with all their gradients, attention as the two products that it is, and not what a way of computing
adds to them, such as activations computed a second time (activation checkpointing, flash attention's backward).
Patches that the decoder does not see are not computed and so not counted. Inputs that pad a batch of mixed
counts are computed, and counted: the count is that of a batch in which some identity has the most inputs.
"""

from __future__ import annotations

import torch
from torch import nn

from shards.schema import IMAGES_PER_IDENTITY
from training.config import Config
from training.data.batch import Batch


def step_flops(config: Config) -> int:
    """FLOPs of one optimiser step, forward and backward, over all processes together."""
    from training.models.build import meta_stage

    identities = config.run.per_process
    flops = micro_batch_flops(meta_stage(config), meta_batch(config, identities))
    return flops * config.batch // identities


def meta_batch(config: Config, identities: int) -> Batch:
    """A micro-batch with shapes but no images."""
    from training.models.build import images_side

    side = images_side(config)
    inputs, targets = config.data.most_inputs, config.data.targets
    with torch.device("meta"):
        return Batch(
            images_BKSSC=torch.empty(identities, IMAGES_PER_IDENTITY, side, side, 3, dtype=torch.uint8),
            masks_BKSS=torch.empty(identities, IMAGES_PER_IDENTITY, side, side, dtype=torch.uint8),
            inputs_BM=torch.empty(identities, inputs, dtype=torch.int64),
            input_valid_BM=torch.empty(identities, inputs, dtype=torch.bool),
            targets_BN=torch.empty(identities, targets, dtype=torch.int64),
            valid_B=torch.empty(identities, dtype=torch.bool),
            seeds_B=torch.empty(identities, dtype=torch.int64),
            keys=("",) * identities,
        )


def micro_batch_flops(stage: nn.Module, batch: Batch) -> int:
    """FLOPs of a forward and a backward pass of a stage on the meta device."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    # As plain products, attention is counted without what a fused kernel computes twice.
    with counter, sdpa_kernel(SDPBackend.MATH):
        stage(batch).backward()
    return int(counter.get_total_flops())
