"""The flow decoder on kept latents: the losses of latents that a step computes, without a wait for the device."""

from __future__ import annotations

import shutil
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from flow_runs import SIDE, decoder_of, flow_config
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))

from trainers import make_dataset

from training.config import Config
from training.data.batch import Batch
from training.data.dataset import StreamedDataset, open_dataset
from training.data.needs import KeptLatents, Needs
from training.data.stream import IdentityStream
from training.engine.flops import step_flops
from training.errors import RunEnded
from training.latents import compute
from training.model import IdentityModel, build_model, meta_model


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> StreamedDataset:
    return open_dataset(str(make_dataset(tmp_path_factory.mktemp("data") / "mfhq")), retry_s=1.0)


def config_of(flux: Path | None, prompts: Path, root: str, latents: str, side: int) -> Config:
    return flow_config(
        flux,
        prompts,
        {"latents": latents, "side": side},
        data={"root": root, "inputs": [1, 3], "targets": 3},
        batch=4,
        run={"precision": "fp32", "per_process": 2, "decode_threads": 1},
    )


def batches(config: Config, dataset: StreamedDataset, model: IdentityModel) -> list[Batch]:
    with closing(IdentityStream(dataset, config, model.needs, rank=0, world_size=1)) as stream:
        return [next(stream) for _ in range(3)]


@pytest.mark.slow
@pytest.mark.parametrize("codec_and_side", [("vae", 64), ("vae", 256), ("pixels", 32)])
def test_losses_are_those_of_latents_on_the_fly_to_the_bit(
    dataset: StreamedDataset, tiny_flux: Path, prompts: Path, tmp_path: Path, codec_and_side: tuple[str, int]
) -> None:
    codec, side = codec_and_side
    flux = tiny_flux if codec == "vae" else None
    kept, plain = (
        config_of(flux, prompts, dataset.root, latents, side) for latents in (str(tmp_path), "on_the_fly")
    )
    compute(kept)
    models = [build_model(config, dataset.digest) for config in (kept, plain)]
    shares = [batches(config, dataset, model) for config, model in zip((kept, plain), models, strict=True)]
    for one, other in zip(*shares, strict=True):
        assert one.latents_BNCHH is not None
        assert other.latents_BNCHH is None
        assert torch.equal(one.seeds_B, other.seeds_B)
        tokens_BLD = models[1].encode(other).detach()
        losses = [
            model.losses("flow", batch, tokens_BLD) for model, batch in zip(models, (one, other), strict=True)
        ]
        assert losses[0].min() > 0
        assert torch.equal(*losses)
        if side <= 64:
            # Inputs are decoded at the same side with and without latents, so tokens are the same, too.
            assert torch.equal(models[0](one), models[1](other))


def test_latents_that_are_not_finite_are_not_kept(
    dataset: StreamedDataset, tiny_flux: Path, prompts: Path, tmp_path: Path
) -> None:
    flux = Path(shutil.copytree(tiny_flux, tmp_path / "flux"))
    weights = next((flux / "vae").glob("*.safetensors"))
    spoilt = {name: value / 0 if "conv_in" in name else value for name, value in load_file(weights).items()}
    save_file(spoilt, weights, {"format": "pt"})
    config = config_of(flux, prompts, dataset.root, str(tmp_path / "latents"), 64)
    with pytest.raises(
        RunEnded, match=r"14 damaged identities have no latents:\n  sample \S+: its latents are not"
    ):
        compute(config)
    assert not list((tmp_path / "latents").rglob("*.safetensors"))


def test_a_configuration_decides_what_is_read(tiny_flux: Path, prompts: Path, tmp_path: Path) -> None:
    def needs(latents: str, digest: str | None = "a" * 64) -> Needs:
        model = build_model(flow_config(tiny_flux, prompts, {"latents": latents}), digest)
        return decoder_of(model).needs

    found = needs(str(tmp_path))
    assert found.latents is not None
    assert found == Needs(0, latents=found.latents)
    assert found.latents.codec.startswith("vae-")
    assert found.latents.shape == (4, SIDE // 8, SIDE // 8)
    assert needs("on_the_fly") == needs(str(tmp_path), digest=None) == Needs(SIDE, targets=True)


def test_another_precision_has_other_latents(tiny_flux: Path, prompts: Path, tmp_path: Path) -> None:
    found = []
    for precision in ("fp32", "bf16"):
        config = flow_config(tiny_flux, prompts, {"latents": str(tmp_path)}, run={"precision": precision})
        latents = decoder_of(build_model(config, "a" * 64)).needs.latents
        assert isinstance(latents, KeptLatents)
        found.append(latents)
    assert [one.dtype for one in found] == [torch.float32, torch.bfloat16]
    assert found[0].codec != found[1].codec


def test_a_step_needs_no_value_from_the_device(
    tiny_flux: Path, prompts: Path, tmp_path: Path, make_batch
) -> None:
    """On the meta device there is none, so a step that asked for one, or read a file, would fail."""
    model = meta_model(flow_config(tiny_flux, prompts, {"latents": str(tmp_path / "nowhere")}))
    latents = model.needs.latents
    assert latents is not None
    batch = make_batch(people=2, targets=3)
    batch = replace(batch, latents_BNCHH=torch.zeros(2, 3, *latents.shape)).to(torch.device("meta"))
    losses_BN = model.losses("flow", batch, model.encode(batch))
    assert losses_BN.shape == (2, 3)
    losses_BN.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)


def test_a_batch_without_latents_is_refused(
    tiny_flux: Path, prompts: Path, tmp_path: Path, make_batch
) -> None:
    model = build_model(flow_config(tiny_flux, prompts, {"latents": str(tmp_path)}), "a" * 64)
    with pytest.raises(ValueError, match="the batch has no latents"):
        model(make_batch())


def test_a_damaged_sample_counts_for_nothing(
    tiny_flux: Path, prompts: Path, tmp_path: Path, make_batch
) -> None:
    model = build_model(flow_config(tiny_flux, prompts, {"latents": str(tmp_path)}), "a" * 64)
    shape = decoder_of(model).needs.latents.shape
    latents = torch.randn(2, 2, *shape, generator=torch.Generator().manual_seed(0))
    batch = replace(
        make_batch(people=2, targets=2), latents_BNCHH=latents, valid_B=torch.tensor([True, False])
    )
    losses_BN = model.losses("flow", batch, model.encode(batch))
    assert losses_BN[0].min() > 0
    assert losses_BN[1].tolist() == [0, 0]


@pytest.mark.slow
def test_work_that_kept_latents_save_is_not_counted(tiny_flux: Path, prompts: Path, tmp_path: Path) -> None:
    def flops(latents: str) -> int:
        return step_flops(flow_config(tiny_flux, prompts, {"latents": latents}, batch=8))

    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        meta_model(flow_config(tiny_flux, prompts)).decoder("flow").codec.encode(
            torch.empty(64, 3, SIDE, SIDE)
        )
    encoding = counter.get_total_flops()
    assert encoding > 0
    assert flops("on_the_fly") - flops(str(tmp_path)) == encoding
