"""The control decoder starts as the flow decoder it copies and learns from landmark images; the rest is frozen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flow_runs import SCRATCH, SIDE, as_trained, decoder_of, flow_config, write_run

from settings.section import ConfigError
from training.config import Config
from training.data.batch import Batch
from training.decoders.control import ControlDecoder
from training.errors import TrainingError
from training.model import IdentityModel, build_model, meta_model


def control_config(tmp_path: Path, representation: Path, **control: Any) -> Config:
    return Config.model_validate(
        {
            "output": str(tmp_path / "out"),
            "data": {"root": "root"},
            "representation": {"size": "tiny", "weights": str(representation), "frozen": True},
            "decoders": {"control": {"scratch": SCRATCH, "side": SIDE, "layers": 2} | control},
            "run": {"precision": "fp32"},
        }
    )


def decoder(model: IdentityModel) -> ControlDecoder:
    found = model.decoder("control")
    assert isinstance(found, ControlDecoder)
    return found


@pytest.fixture
def flow_run(tmp_path: Path) -> tuple[Path, IdentityModel]:
    """A run of the flow decoder on a small transformer of its own, and its model."""
    config = flow_config(None, None)
    model = as_trained(build_model(config))
    run = write_run(tmp_path / "flow", config, model)
    model.representation.save_pretrained(run / "encoder")
    return run, model


@pytest.fixture
def control(tmp_path: Path, flow_run: tuple[Path, IdentityModel]) -> IdentityModel:
    run, _ = flow_run
    return build_model(control_config(tmp_path, run / "encoder", adapter=str(run)))


def with_landmarks(batch: Batch, seed: int = 0) -> Batch:
    """The same batch with landmark images of noise."""
    people, targets = batch.targets_BN.shape
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (people, targets, SIDE, SIDE, 3), dtype=torch.uint8, generator=generator)
    return replace(batch, landmark_images_BNHHC=images)


def losses(model: IdentityModel, name: str, batch: Batch) -> torch.Tensor:
    return model.losses(name, batch, model.encode(batch))


def test_it_starts_as_the_flow_decoder_that_it_copies(flow_run, control, make_batch) -> None:
    _, flow = flow_run
    batch = with_landmarks(make_batch(people=2, targets=3))
    found = losses(control.eval(), "control", batch)
    assert torch.equal(found, losses(flow, "flow", batch))
    assert torch.equal(found, losses(control, "control", with_landmarks(batch, seed=1)))


def test_the_controlnet_starts_as_a_copy_of_the_transformers_first_blocks(tmp_path, flow_run) -> None:
    run, flow = flow_run
    model = build_model(control_config(tmp_path, run / "encoder", adapter=str(run), single_layers=1))
    copied, source = decoder(model).controlnet.state_dict(), decoder_of(flow).transformer.state_dict()
    parts = ("pos_embed.", "time_text_embed.", "context_embedder.", "x_embedder.")
    blocks = ("transformer_blocks.0.", "transformer_blocks.1.", "single_transformer_blocks.0.")
    names = [name for name in source if name.startswith((*parts, *blocks)) and "_ip." not in name]
    assert {name.split(".")[0] for name in names} >= {"x_embedder", "transformer_blocks", "time_text_embed"}
    assert all(torch.equal(copied[name], source[name]) for name in names)
    zero = [value for name, value in copied.items() if name.startswith("controlnet_")]
    assert zero
    assert not any(value.any() for value in zero)


@pytest.mark.slow
def test_some_steps_make_landmarks_count_and_every_trained_weight_gets_a_gradient(
    control, make_batch
) -> None:
    batch = with_landmarks(make_batch(people=2, targets=3))
    optimiser = torch.optim.AdamW([p for p in control.parameters() if p.requires_grad], lr=0.01)
    frozen = {n: p.detach().clone() for n, p in control.named_parameters() if not p.requires_grad}
    before = losses(control.eval(), "control", batch)
    for _ in range(3):
        optimiser.zero_grad()
        losses(control, "control", batch).sum().backward()
        optimiser.step()
    without = [n for n, p in control.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    after = losses(control, "control", batch)
    assert not torch.equal(after, before)
    assert not torch.equal(losses(control, "control", with_landmarks(batch, seed=1)), after)
    for name, parameter in control.named_parameters():
        if not parameter.requires_grad:
            assert torch.equal(parameter, frozen[name])
            assert parameter.grad is None


def test_the_transformer_and_the_representation_are_frozen_and_the_rest_is_trained(control) -> None:
    trained = {name for name, parameter in control.named_parameters() if parameter.requires_grad}
    assert not any(name.startswith("representation.") for name in trained)
    parts = {name.removeprefix("decoders.control.").split(".")[0] for name in trained}
    assert parts == {"controlnet", "projection", "transformer"}
    assert all("_ip." in name for name in trained if ".transformer." in name)


def test_single_blocks_leave_no_weight_without_a_gradient(tmp_path, flow_run, make_batch) -> None:
    run, _ = flow_run
    model = build_model(control_config(tmp_path, run / "encoder", adapter=str(run), single_layers=1))
    losses(model, "control", with_landmarks(make_batch(people=1, targets=2))).sum().backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


def test_samples_depend_on_the_landmarks(control, make_batch) -> None:
    batch = with_landmarks(make_batch(people=2, targets=2))
    one = decoder(control.eval())
    torch.nn.init.normal_(one.controlnet.controlnet_x_embedder.weight, std=0.5)
    for block in one.controlnet.controlnet_blocks:
        torch.nn.init.normal_(block.weight, std=0.5)
    tokens = control.encode(batch)
    sampling = one.sampling(SIDE, 2, 1.0)

    def sampled(of: Batch) -> torch.Tensor:
        assert of.landmark_images_BNHHC is not None
        condition = one.encode_landmarks(of.landmark_images_BNHHC[:, 0])
        return one.sample(tokens, batch.seeds_B, SIDE, sampling, condition)

    assert torch.equal(sampled(batch), sampled(batch))
    assert not torch.allclose(sampled(batch), sampled(with_landmarks(batch, seed=1)), atol=1e-3)


@pytest.mark.slow
def test_the_grid_shows_landmarks_sample_and_target(control, make_batch) -> None:
    batch = with_landmarks(make_batch(people=2, targets=2))
    columns = decoder(control.eval()).columns(batch, control.encode(batch))
    assert [column.caption for column in columns] == [
        f"{what} {number}" for number in (1, 2) for what in ("landmarks", "sample", "target")
    ]
    assert {tuple(column.images_BCSS.shape) for column in columns} == {(2, 3, SIDE, SIDE)}


def test_shapes_need_no_run(tmp_path, flow_run) -> None:
    run, _ = flow_run
    model = meta_model(control_config(tmp_path, run / "encoder", adapter=str(tmp_path / "later")))
    assert model.needs.landmark_images == SIDE
    assert model.needs.targets


def test_on_flux_the_adapter_starts_from_the_flow_run_or_anew(
    tmp_path, tiny_flux, prompts, make_batch
) -> None:
    config = flow_config(tiny_flux, prompts)
    flow = as_trained(build_model(config))
    run = write_run(tmp_path / "flow", config, flow)
    flow.representation.save_pretrained(run / "encoder")
    base = {"scratch": None, "base": str(tiny_flux), "prompt_cache": str(prompts), "text_tokens": 16}
    batch = with_landmarks(make_batch(people=1, targets=2))
    model = build_model(control_config(tmp_path, run / "encoder", adapter=str(run), **base)).eval()
    assert torch.equal(losses(model, "control", batch), losses(flow, "flow", batch))
    anew = build_model(control_config(tmp_path, run / "encoder", **base)).eval()
    values = [p for n, p in anew.named_parameters() if "to_v_ip" in n]
    assert values
    assert not any(value.any() for value in values)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "adapter: a ControlNet copies a trained transformer"),
        ({"adapter": "a", "layers": 3}, "the transformer has 2 double blocks to copy, given: 3"),
        ({"adapter": "a", "single_layers": 2}, "the transformer has 1 single blocks to copy, given: 2"),
    ],
)
def test_keys_that_do_not_fit_are_refused(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        control_config(tmp_path, tmp_path, **keys)


def test_an_adapter_of_another_size_or_none_is_named(tmp_path, flow_run, tiny_flux, prompts) -> None:
    run, _ = flow_run
    with pytest.raises(TrainingError, match=r"control\.adapter: .* holds no transformer"):
        build_model(control_config(tmp_path, run / "encoder", adapter=str(tmp_path)))
    wider = SCRATCH | {"head_width": 32}
    with pytest.raises((TrainingError, ConfigError), match="has another size"):
        build_model(control_config(tmp_path, run / "encoder", adapter=str(run), scratch=wider))
    base = {"scratch": None, "base": str(tiny_flux), "prompt_cache": str(prompts), "text_tokens": 16}
    with pytest.raises(TrainingError, match="was trained for another FLUX or another representation"):
        build_model(control_config(tmp_path, run / "encoder", adapter=str(run), **base))


def test_a_transformer_may_come_without_its_adapter(tmp_path, flow_run, make_batch) -> None:
    run, flow = flow_run
    scratch = SCRATCH | {"transformer": str(run)}
    model = build_model(control_config(tmp_path, run / "encoder", scratch=scratch)).eval()
    own, its = (m.decoder(n).transformer.state_dict() for m, n in ((model, "control"), (flow, "flow")))
    assert all(torch.equal(own[name], its[name]) for name in own if "_ip." not in name)
    values = [weight for name, weight in own.items() if "to_v_ip" in name]
    assert values
    assert not any(value.any() for value in values)


def test_an_adapter_of_another_transformer_is_refused(tmp_path, flow_run) -> None:
    run, _ = flow_run
    config = flow_config(None, None).model_copy(update={"seed": 1})
    other = write_run(tmp_path / "other", config, build_model(config))
    scratch = SCRATCH | {"transformer": str(other)}
    with pytest.raises(TrainingError, match="was trained in another transformer than that of"):
        build_model(control_config(tmp_path, run / "encoder", scratch=scratch, adapter=str(run)))


def test_a_batch_without_landmark_images_is_an_error(control, make_batch) -> None:
    with pytest.raises(ValueError, match="the batch has no landmark images"):
        losses(control, "control", make_batch(people=1, targets=1))


def test_the_flow_decoder_has_no_condition(flow_run, make_batch) -> None:
    _, flow = flow_run
    decoder, batch = decoder_of(flow), make_batch(people=1, targets=1)
    assert decoder.control(batch) is None
    noise = torch.zeros(1, 256, 48)
    sampling = decoder.sampling(SIDE, 1, 1.0)
    with pytest.raises(ValueError, match="takes no condition besides the identity"):
        decoder.denoise(noise, flow.encode(batch), sampling, control_BQF=noise)
