"""What tests of the networks share: decoder 2 on a tiny FLUX."""

from __future__ import annotations

from pathlib import Path

import pytest
from flow_runs import as_trained, flow_config, flow_stage

from training.models.flow import FlowStage


@pytest.fixture(scope="session")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of encoded prompts."""
    return tmp_path_factory.mktemp("prompts")


@pytest.fixture
def flow(tiny_flux: Path, prompts: Path) -> FlowStage:
    """The stage before its first step."""
    return flow_stage(flow_config(tiny_flux, prompts))


@pytest.fixture
def trained(flow: FlowStage) -> FlowStage:
    """The stage with an adapter that matters, as after many steps."""
    return as_trained(flow)
