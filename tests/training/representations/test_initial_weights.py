"""A representation from a configuration: which weights it starts from, what is refused, and what frozen means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from flow_runs import flow_config
from safetensors.torch import save_file
from tiny_models import TINY, mtd_config

from training.errors import TrainingError
from training.model import build_model, meta_model
from training.models.clip import ClipTower
from training.representations.omniid import OmniIDEncoder


@pytest.fixture
def encoder() -> OmniIDEncoder:
    torch.manual_seed(5)
    return OmniIDEncoder(TINY)


def starting_from(folder: Path | str, **more: Any) -> dict[str, Any]:
    """The section `representation` that names a directory of weights."""
    return {"size": "tiny", "weights": str(folder)} | more


def assert_has_weights_of(encoder: OmniIDEncoder, other: OmniIDEncoder) -> None:
    pairs = zip(encoder.state_dict().values(), other.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_it_starts_from_an_encoder_that_another_run_trained(encoder: OmniIDEncoder, tmp_path: Path) -> None:
    encoder.save_pretrained(tmp_path)
    section = starting_from(tmp_path)
    for config in (mtd_config(representation=section), flow_config(None, None, representation=section)):
        model = build_model(config)
        assert_has_weights_of(model.representation, encoder)
        assert not model.frozen
        assert all(weight.requires_grad for weight in model.representation.parameters())
        assert model.frozen_digests == {}


def test_clip_s_weights_go_into_the_towers_that_the_encoder_does_not_hold(
    encoder: OmniIDEncoder, tmp_path: Path
) -> None:
    encoder.save_pretrained(tmp_path / "encoder")
    torch.manual_seed(6)
    tower = ClipTower(TINY).visual.state_dict()
    save_file(tower, tmp_path / "clip.safetensors")
    section = starting_from(tmp_path / "encoder", clip=str(tmp_path / "clip.safetensors"))
    model = build_model(mtd_config(representation=section))
    assert_has_weights_of(model.representation, encoder)
    found = model.decoder("mtd").clip.visual.state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in tower.items())


def test_the_digest_of_a_frozen_tower_says_which_weights_it_has(tmp_path: Path) -> None:
    """No checkpoint holds it: a resumed run would not notice another one."""
    digests = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        OmniIDEncoder(TINY).save_pretrained(tmp_path)
        model = build_model(mtd_config(representation=starting_from(tmp_path, frozen_tower=True)))
        assert not model.frozen
        assert not any(weight.requires_grad for weight in model.representation.clip.parameters())
        assert model.representation.query_LD.requires_grad
        digests.append(model.frozen_digests.get("representation"))
    assert digests[0] == digests[1] != digests[2]


def test_frozen_it_needs_no_gradient_and_its_digest_says_which_weights_it_has(
    encoder: OmniIDEncoder, tmp_path: Path
) -> None:
    encoder.save_pretrained(tmp_path / "one")
    torch.manual_seed(7)
    OmniIDEncoder(TINY).save_pretrained(tmp_path / "other")
    digests = []
    for name in ("one", "one", "other"):
        model = build_model(mtd_config(representation=starting_from(tmp_path / name, frozen=True)))
        assert model.frozen
        assert not any(weight.requires_grad for weight in model.representation.parameters())
        assert all(weight.requires_grad for weight in model.decoders.parameters())
        digests.append(model.frozen_digests["representation"])
    assert digests[0] == digests[1] != digests[2]
    assert meta_model(mtd_config(representation=starting_from(tmp_path / "one", frozen=True))).frozen


def test_frozen_it_gets_no_gradient_and_its_decoders_do(
    encoder: OmniIDEncoder, tmp_path: Path, make_batch
) -> None:
    encoder.save_pretrained(tmp_path)
    model = build_model(mtd_config(representation=starting_from(tmp_path, frozen=True)))
    model(make_batch(people=2)).sum().backward()
    assert all(weight.grad is None for weight in model.representation.parameters())
    assert all(weight.grad is not None for weight in model.decoders.parameters())


def test_frozen_it_must_have_weights() -> None:
    with pytest.raises(ValueError, match=r"frozen: .*Set representation\.weights to a trained one"):
        mtd_config(representation={"size": "tiny", "frozen": True})


def test_an_encoder_of_another_size_is_refused_and_the_difference_named(tmp_path: Path) -> None:
    OmniIDEncoder(TINY.model_copy(update={"queries": 32})).save_pretrained(tmp_path)
    message = r"representation\.weights: .* queries 32 instead of 16\. Set representation\.size"
    with pytest.raises(TrainingError, match=message):
        build_model(mtd_config(representation=starting_from(tmp_path)))


@pytest.mark.parametrize(
    ("size", "folder", "message"),
    [
        ("small", "run/encoder", r"is of another size than representation\.size=small"),
        ("tiny", "run", r"holds no finished encoder.*Did you mean .*/run/encoder\?"),
    ],
    ids=["size", "folder"],
)
def test_an_unsuitable_encoder_is_refused_before_flux_is_looked_for(
    tmp_path: Path, encoder: OmniIDEncoder, size: str, folder: str, message: str
) -> None:
    encoder.save_pretrained(tmp_path / "run" / "encoder")
    section = starting_from(tmp_path / folder, size=size)
    config = flow_config(tmp_path / "nowhere", tmp_path / "prompts", representation=section)
    for build in (build_model, meta_model):
        with pytest.raises(TrainingError, match=message):
            build(config)


def test_an_encoder_that_is_not_there_is_named_with_its_key(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"representation\.weights: there is no directory .*nowhere"):
        build_model(mtd_config(representation=starting_from(tmp_path / "nowhere")))
