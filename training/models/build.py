"""From a configuration to its stage, whichever that is."""

from __future__ import annotations

import torch

from training.config import Config
from training.models.sizes import SIZES
from training.models.stage import Stage


def build_stage(config: Config, dataset_sha256: str | None = None) -> Stage:
    """The stage that a configuration describes, with its initial weights, alike on every process.

    Args:
        config: of the run.
        dataset_sha256: of the data set's manifest, where there is one.

    Raises:
        ConfigError: settings do not fit one another.
        TrainingError: weights are not to be had or are not what they should be.
    """
    # diffusers takes seconds to import, and only one of the stages needs it.
    if config.stage == "flow":
        from training.models.flow_build import build_flow_stage

        return build_flow_stage(config, dataset_sha256)
    from training.models.mtd import build_stage as build_mtd_stage

    return build_mtd_stage(config)


def meta_stage(config: Config) -> Stage:
    """The same stage on the meta device: shapes without weights, to count with.

    Raises:
        TrainingError: FLUX, whose sizes stand in its folder, is not to be had.
    """
    if config.stage == "flow":
        from training.models.flow_build import meta_flow_stage

        return meta_flow_stage(config)
    from training.models.mtd import MtdStage

    with torch.device("meta"):
        return MtdStage(SIZES[config.model.size], config.mtd)


def images_side(config: Config) -> int:
    """Pixels along a side that images must at least have, for what the encoder sees and what is drawn."""
    side = SIZES[config.model.size].side
    return side if config.flow is None else max(side, config.flow.side)
