"""The flow decoder: what its loss is, which tokens each image is conditioned on, and what a step costs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from batches import rows_of
from flow_runs import as_trained, decoder_of, flow_config

from training.data.batch import Batch
from training.data.needs import Needs
from training.decoders.flow import sample_times
from training.model import IdentityModel, build_model, meta_model


def losses(model: IdentityModel, batch: Batch) -> torch.Tensor:
    """The loss of each target, (B, N)."""
    return model.losses("flow", batch, model.encode(batch))


def times_of(model: IdentityModel, batch: Batch) -> torch.Tensor:
    """The times that a batch's targets are trained at, (B, N)."""
    seen: list[torch.Tensor] = []
    hook = decoder_of(model).transformer.register_forward_pre_hook(
        lambda _module, _inputs, named: seen.append(named["timestep"]), with_kwargs=True
    )
    with hook:
        losses(model, batch)
    return seen[0].view(batch.targets_BN.shape)


def test_the_loss_is_the_mean_square_over_latents_summed_over_targets(trained, make_batch) -> None:
    """Computed once more from the definition, image by image."""
    batch = make_batch(people=2, targets=3)
    found_BN = losses(trained, batch)
    decoder = decoder_of(trained)
    velocity: list[torch.Tensor] = []
    decoder.transformer.register_forward_hook(lambda _module, _inputs, out: velocity.append(out[0]))
    seen: list[dict[str, torch.Tensor]] = []
    decoder.transformer.register_forward_pre_hook(
        lambda _m, _a, kwargs: seen.append(kwargs), with_kwargs=True
    )
    (loss,) = trained(batch)
    clean = torch.stack(
        [
            decoder.codec.encode((batch.images_BKSSC[p, n].permute(2, 0, 1) / 255)[None])[0]
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
    expected = (velocity[0] - (noise - tokens)).square().mean(dim=(1, 2))
    assert torch.allclose(found_BN.flatten(), expected, rtol=1e-3)
    assert torch.allclose(loss, expected.sum(), rtol=1e-3)
    assert math.isclose(noise.std().item(), 1, abs_tol=0.15)


def test_the_times_and_noise_follow_from_sample_and_target_alone(flow, make_batch) -> None:
    batch = make_batch(people=2, targets=3)
    times = times_of(flow, batch)
    assert len(set(times.flatten().tolist())) == 6
    alone = rows_of(batch, [1])
    assert torch.equal(times_of(flow, alone)[0], times[1])
    assert torch.allclose(losses(flow, alone)[0], losses(flow, batch)[1], rtol=1e-4)
    again = times_of(flow, replace(batch, seeds_B=batch.seeds_B + 1))
    assert not torch.isclose(again, times).any()


def test_a_damaged_sample_counts_for_nothing(flow, make_batch) -> None:
    batch = make_batch()
    images = batch.images_BKSSC.clone()
    images[1] = 0
    damaged = replace(batch, images_BKSSC=images, valid_B=torch.tensor([True, False, True]))
    loss_BN = losses(flow, damaged)
    assert loss_BN[1].tolist() == [0, 0]
    assert damaged.target_count == 4
    assert torch.allclose(loss_BN[[0, 2]], losses(flow, batch)[[0, 2]], rtol=1e-4)


def test_each_image_is_conditioned_on_the_tokens_of_its_identity(trained, make_batch) -> None:
    """Folding targets into the batch must not mix identities up."""
    batch = make_batch(people=2, targets=2)
    tokens = trained.encode(batch)
    tokens = torch.stack([tokens[0], -3 * tokens[1]])
    own, swapped, mixed = (
        trained.losses("flow", batch, given)
        for given in (tokens, tokens.flip(0), torch.stack([tokens[0], tokens[0]]))
    )
    assert torch.allclose(mixed[0], own[0], rtol=1e-4)
    assert torch.allclose(mixed[1], swapped[1], rtol=1e-4)
    assert not torch.isclose(own, swapped).any()


def test_it_reads_targets_at_its_side_and_no_masks(flow, make_batch) -> None:
    decoder = decoder_of(flow)
    assert decoder.needs == Needs(64, targets=True)
    batch = make_batch(people=1)
    assert torch.equal(losses(flow, replace(batch, masks_BKSS=None)), losses(flow, batch))


def test_uniform_times_fill_the_interval_and_logit_normal_ones_its_middle() -> None:
    seeds = torch.arange(20_000)
    uniform, normal = sample_times(seeds, "uniform"), sample_times(seeds, "logit_normal")
    middle = [((times > 0.25) & (times < 0.75)).float().mean().item() for times in (uniform, normal)]
    assert math.isclose(middle[0], 0.5, abs_tol=0.02)
    assert math.isclose(middle[1], 0.728, abs_tol=0.02)  # P(|z| < log 3)
    assert uniform.min() < 0.001
    assert uniform.max() > 0.999


def test_the_encoder_runs_once_for_all_targets_of_an_identity(flow, make_batch) -> None:
    seen: list[int] = []
    flow.representation.norm.register_forward_pre_hook(lambda _module, inputs: seen.append(len(inputs[0])))
    projected: list[int] = []
    transformer = decoder_of(flow).transformer
    for block in transformer.transformer_blocks:
        keys = block.attn.processor.to_k_ip[0]
        keys.register_forward_hook(lambda _module, inputs, _out: projected.append(inputs[0][:, 0].shape[0]))
    denoised: list[int] = []
    transformer.register_forward_pre_hook(
        lambda _module, _inputs, named: denoised.append(len(named["hidden_states"])), with_kwargs=True
    )
    flow(make_batch(people=2, targets=4))
    assert (seen, projected, denoised) == ([2], [2, 2], [8])


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
    model = meta_model(flow_config(tiny_flux, prompts))
    batch = make_batch(people=2).to(torch.device("meta"))
    model(batch).backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)


def test_a_flux_in_half_precision_is_close_and_leaves_the_loss_whole(tiny_flux, prompts, make_batch) -> None:
    exact = as_trained(build_model(flow_config(tiny_flux, prompts)))(make_batch())
    half = as_trained(build_model(flow_config(tiny_flux, prompts, run={"precision": "bf16"})))
    types = {name: parameter.dtype for name, parameter in half.named_parameters()}
    of_flux = {name for name in types if ".transformer." in name and "flow" in name and "_ip." not in name}
    assert {types[name] for name in of_flux} == {torch.bfloat16}
    assert {types[name] for name in types.keys() - of_flux} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        rough = half(make_batch())
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=0.02)
    rough.backward()
    assert all(
        parameter.grad.dtype == torch.float32 for parameter in half.parameters() if parameter.requires_grad
    )
