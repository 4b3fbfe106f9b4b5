"""What tests of the trainer share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from flow_runs import as_trained, flow_config
from tiny_flux import write_tiny_flux

from training.data.batch import Batch
from training.model import IdentityModel, build_model

MakeBatch = Callable[..., Batch]


@pytest.fixture
def make_batch() -> MakeBatch:
    """Makes batches of noise, with a disc for a face; the same arguments give the same batch."""
    return noise_batch


def noise_batch(
    *, people: int = 3, inputs: int = 3, targets: int = 2, side: int = 64, seed: int = 0, keys: str = "k"
) -> Batch:
    """A batch whose rows are all valid: the first images are inputs, the last ones are targets."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (people, 8, side, side, 3), dtype=torch.uint8, generator=generator)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    disc = (rows - side / 2) ** 2 + (columns - side / 2) ** 2 < (side / 3) ** 2
    return Batch(
        images_BKSSC=images,
        masks_BKSS=(disc * 255).byte().expand(people, 8, side, side).clone(),
        keypoints_BKP2=None,
        inputs_BM=torch.arange(inputs).repeat(people, 1),
        input_valid_BM=torch.ones(people, inputs, dtype=torch.bool),
        targets_BN=torch.arange(8 - targets, 8).repeat(people, 1),
        valid_B=torch.ones(people, dtype=torch.bool),
        seeds_B=torch.randint(-(2**63), 2**63 - 1, (people,), generator=generator),
        keys=tuple(f"{keys}{number}" for number in range(people)),
    )


@pytest.fixture(scope="session")
def tiny_flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of FLUX with tiny parts, for all tests of a session; a test that damages it must copy it."""
    return write_tiny_flux(tmp_path_factory.mktemp("flux") / "tiny")


@pytest.fixture(scope="session")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of encoded prompts."""
    return tmp_path_factory.mktemp("prompts")


@pytest.fixture
def flow(tiny_flux: Path, prompts: Path) -> IdentityModel:
    """A model with a flow decoder on the tiny FLUX, before its first step."""
    return build_model(flow_config(tiny_flux, prompts))


@pytest.fixture
def trained(flow: IdentityModel) -> IdentityModel:
    """The same with an adapter whose output is not zero, as after many steps."""
    return as_trained(flow)


@pytest.fixture(scope="session")
def launched_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dataset in a directory whose name a careless shell script would cut in two."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "shards"))
    import shards_factory

    root = tmp_path_factory.mktemp("data") / "a data set"
    shards_factory.build(root)
    return root
