"""Decoder 2: what its loss is, whom each image is drawn from, and what a step costs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from flow_runs import as_trained
from flow_runs import flow_config as config
from flow_runs import flow_stage as build

from training.data.batch import Batch
from training.models.build import meta_stage
from training.models.flow import draw_times


def test_the_loss_is_the_mean_square_over_latents_summed_over_targets(trained, make_batch) -> None:
    """Computed once more from the definition, image by image."""
    batch = make_batch(people=2, targets=3)
    step = trained.draw(batch, trained.identify(batch))
    told: list[torch.Tensor] = []
    trained.transformer.register_forward_hook(lambda _module, _inputs, out: told.append(out[0]))
    seen: list[dict[str, torch.Tensor]] = []
    trained.transformer.register_forward_pre_hook(
        lambda _m, _a, kwargs: seen.append(kwargs), with_kwargs=True
    )
    loss = trained(batch)
    clean = torch.stack(
        [
            trained.codec.encode((batch.images_BKSSC[p, n].permute(2, 0, 1) / 255)[None])[0]
            for p in range(2)
            for n in (5, 6, 7)
        ]
    )
    tokens = torch.stack(
        [
            torch.stack([x[:, r : r + 2, c : c + 2].flatten() for r in (0, 2, 4, 6) for c in (0, 2, 4, 6)])
            for x in clean
        ]
    )
    time = seen[0]["timestep"][:, None, None]
    noise = (seen[0]["hidden_states"] - (1 - time) * tokens) / time
    expected = (told[0] - (noise - tokens)).square().mean(dim=(1, 2))
    assert torch.allclose(step.loss_BN.flatten(), expected, rtol=1e-3)
    assert torch.allclose(loss, expected.sum(), rtol=1e-3)
    assert math.isclose(noise.std().item(), 1, abs_tol=0.15)


def test_the_times_and_noise_follow_from_sample_and_target_alone(flow, make_batch) -> None:
    batch = make_batch(people=2, targets=3)
    alone = Batch(
        **{name: value[1:] for name, value in vars(batch).items() if isinstance(value, torch.Tensor)},
        keys=("k1",),
    )
    times = flow.draw(batch, flow.identify(batch)).time_BN
    assert len(set(times.flatten().tolist())) == 6
    step = flow.draw(alone, flow.identify(alone))
    assert torch.equal(step.time_BN[0], times[1])
    again = flow.draw(replace(batch, seeds_B=batch.seeds_B + 1), flow.identify(batch)).time_BN
    assert not torch.isclose(again, times).any()


def test_a_damaged_sample_counts_for_nothing(flow, make_batch) -> None:
    batch = make_batch()
    images = batch.images_BKSSC.clone()
    images[1] = 0
    damaged = replace(batch, images_BKSSC=images, valid_B=torch.tensor([True, False, True]))
    step = flow.draw(damaged, flow.identify(damaged))
    assert step.loss_BN[1].tolist() == [0, 0]
    assert flow.parts(damaged) == 4
    whole = flow.draw(batch, flow.identify(batch)).loss_BN
    assert torch.allclose(step.loss_BN[[0, 2]], whole[[0, 2]], rtol=1e-4)


def test_each_person_is_drawn_from_their_own_tokens(trained, make_batch) -> None:
    """Folding targets into the batch must not mix people up."""
    batch = make_batch(people=2, targets=2)
    tokens = trained.identify(batch)
    tokens = torch.stack([tokens[0], -3 * tokens[1]])
    own, swapped = trained.draw(batch, tokens).loss_BN, trained.draw(batch, tokens.flip(0)).loss_BN
    mixed = trained.draw(batch, torch.stack([tokens[0], tokens[0]])).loss_BN
    assert torch.allclose(mixed[0], own[0], rtol=1e-4)
    assert torch.allclose(mixed[1], swapped[1], rtol=1e-4)
    assert not torch.isclose(own, swapped).any()


def test_uniform_times_fill_the_interval_and_logit_normal_ones_its_middle() -> None:
    seeds = torch.arange(20_000)
    uniform, normal = draw_times(seeds, "uniform"), draw_times(seeds, "logit_normal")
    middle = [((times > 0.25) & (times < 0.75)).float().mean().item() for times in (uniform, normal)]
    assert math.isclose(middle[0], 0.5, abs_tol=0.02)
    assert math.isclose(middle[1], 0.728, abs_tol=0.02)  # P(|z| < log 3)
    assert uniform.min() < 0.001
    assert uniform.max() > 0.999


def test_the_encoder_runs_once_for_all_targets_of_a_person(flow, make_batch) -> None:
    seen: list[int] = []
    flow.encoder.register_forward_pre_hook(lambda _module, inputs: seen.append(len(inputs[0])))
    projected: list[int] = []
    for block in flow.transformer.transformer_blocks:
        keys = block.attn.processor.to_k_ip[0]
        keys.register_forward_hook(lambda _module, inputs, _out: projected.append(inputs[0][:, 0].shape[0]))
    drawn: list[int] = []
    flow.transformer.register_forward_pre_hook(
        lambda _module, _inputs, named: drawn.append(len(named["hidden_states"])), with_kwargs=True
    )
    flow(make_batch(people=2, targets=4))
    assert (seen, projected, drawn) == ([2], [2, 2], [8])


def test_every_block_is_one_graph_for_the_compiler(trained, make_batch) -> None:
    batch = make_batch(people=1)
    expected = trained(batch)
    for block in trained.blocks():
        block.forward = torch.compile(block.forward, backend="eager", fullgraph=True)
    loss = trained(batch)
    loss.backward()
    assert torch.allclose(loss, expected)


def test_a_step_needs_no_value_from_the_device(tiny_flux, prompts, make_batch) -> None:
    """On the meta device there is none to be had: asking for one would be an error."""
    stage = meta_stage(config(tiny_flux, prompts))
    batch = make_batch(people=2).to(torch.device("meta"))
    stage(batch).backward()
    assert all(parameter.grad is not None for parameter in stage.parameters() if parameter.requires_grad)


def test_a_flux_in_half_precision_is_close_and_leaves_the_loss_whole(tiny_flux, prompts, make_batch) -> None:
    exact = as_trained(build(config(tiny_flux, prompts)))(make_batch())
    half = as_trained(build(config(tiny_flux, prompts, run={"precision": "bf16"})))
    types = {name: parameter.dtype for name, parameter in half.named_parameters()}
    assert {
        kind for name, kind in types.items() if name.startswith("transformer.") and "_ip." not in name
    } == {torch.bfloat16}
    assert {kind for name, kind in types.items() if "_ip." in name or name.startswith("encoder.")} == {
        torch.float32
    }
    with torch.autocast("cpu", torch.bfloat16):
        rough = half(make_batch())
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=0.02)
    rough.backward()
    assert all(
        parameter.grad.dtype == torch.float32 for parameter in half.parameters() if parameter.requires_grad
    )
