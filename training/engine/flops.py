"""How many floating point operations a step takes, counted exactly, for the model FLOPs utilisation (MFU).

The model is built once more on the meta device, where tensors have shapes but no memory, and torch's counter
follows a forward and a backward pass through it. It counts what the model needs: matrix products and convolutions
with all their gradients, attention as two matrix products, and not what an implementation adds, such as
recomputed activations (activation checkpointing, flash attention's backward pass). Patches that a decoder does
not see are not computed and so not counted. Inputs that pad a batch of mixed counts are computed, and counted:
the count is that of a batch in which some identity has the most inputs.
"""

from __future__ import annotations

import torch
from torch import nn

from shards.schema import IMAGES_PER_IDENTITY
from training.config import Config
from training.data.batch import Batch
from training.data.needs import Needs


def step_flops(config: Config) -> int:
    """FLOPs of one optimiser step, forward and backward, over all ranks."""
    from training.model import meta_model

    identities, model = config.run.per_process, meta_model(config)
    flops = micro_batch_flops(model, meta_batch(config, model.needs, identities))
    return flops * config.batch // identities


def meta_batch(config: Config, needs: Needs, identities: int) -> Batch:
    """A micro-batch with shapes but no images."""
    side = needs.side
    inputs, targets = config.data.most_inputs, config.data.targets
    with torch.device("meta"):
        return Batch(
            images_BKSSC=torch.empty(identities, IMAGES_PER_IDENTITY, side, side, 3, dtype=torch.uint8),
            masks_BKSS=torch.empty(identities, IMAGES_PER_IDENTITY, side, side, dtype=torch.uint8)
            if needs.masks
            else None,
            keypoints_BKP2=torch.empty(identities, IMAGES_PER_IDENTITY, 5, 2) if needs.keypoints else None,
            latents_BNCHH=torch.empty(identities, targets, *needs.latents.shape, dtype=needs.latents.dtype)
            if needs.latents
            else None,
            landmark_images_BNHHC=torch.empty(
                identities, targets, needs.landmark_images, needs.landmark_images, 3, dtype=torch.uint8
            )
            if needs.landmark_images
            else None,
            inputs_BM=torch.empty(identities, inputs, dtype=torch.int64),
            input_valid_BM=None
            if config.data.fixed_inputs
            else torch.empty(identities, inputs, dtype=torch.bool),
            targets_BN=torch.empty(identities, targets, dtype=torch.int64),
            valid_B=torch.empty(identities, dtype=torch.bool),
            seeds_B=torch.empty(identities, dtype=torch.int64),
            keys=("",) * identities,
        )


def micro_batch_flops(model: nn.Module, batch: Batch) -> int:
    """FLOPs of a forward and a backward pass of a model on the meta device."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    # As plain products, attention is counted without what a fused kernel computes twice.
    with counter, sdpa_kernel(SDPBackend.MATH):
        model(batch).sum().backward()
    return int(counter.get_total_flops())
