"""Decoder 2: what its loss is, that FLUX is left as it was, and what learns when."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from flow_runs import as_trained
from flow_runs import flow_config as config
from flow_runs import flow_stage as build

from training.data.batch import Batch
from training.errors import TrainingError
from training.models.build import images_side, meta_stage
from training.models.encoder import OmniIDEncoder
from training.models.flow import FlowStage, Sampling, draw_times
from training.models.flux_adapter import attend, set_scale
from training.models.sizes import SIZES


@pytest.fixture(scope="session")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prompts")


@pytest.fixture
def stage(tiny_flux: Path, prompts: Path) -> FlowStage:
    return build(config(tiny_flux, prompts))


@pytest.fixture
def trained(stage: FlowStage) -> FlowStage:
    """With an adapter that matters, as after many steps."""
    return as_trained(stage)


def call(transformer: torch.nn.Module, stage: FlowStage, **more: object) -> torch.Tensor:
    """FLUX on fixed tensors of two images of 4 x 4 tokens."""
    noise = torch.randn(2, 16, transformer.config.in_channels, generator=torch.Generator().manual_seed(0))
    return transformer(
        hidden_states=noise,
        encoder_hidden_states=stage.prompt_1TD.expand(2, -1, -1),
        pooled_projections=stage.pooled_1D.expand(2, -1),
        timestep=torch.tensor([0.3, 0.9]),
        img_ids=torch.zeros(16, 3),
        txt_ids=torch.zeros(stage.prompt_1TD.shape[1], 3),
        guidance=torch.ones(2),
        return_dict=False,
        **more,
    )[0]


def test_at_step_0_flux_gives_what_it_gave_without_the_adapter_to_the_bit(
    stage, tiny_flux, make_batch
) -> None:
    from diffusers import FluxTransformer2DModel

    plain = FluxTransformer2DModel.from_pretrained(tiny_flux, subfolder="transformer").eval()
    tokens_BLT = stage.projection(stage.identify(make_batch(people=1)))
    with torch.no_grad():
        adapted = call(stage.transformer, stage, joint_attention_kwargs=attend(tokens_BLT, 2))
        assert torch.equal(adapted, call(plain, stage))


def test_at_step_0_only_the_values_get_a_gradient_and_everything_does_later(stage, make_batch) -> None:
    def moved() -> dict[str, bool]:
        stage.zero_grad()
        stage(make_batch()).backward()
        return {
            name: bool(parameter.grad.abs().sum() > 0)
            for name, parameter in stage.named_parameters()
            if parameter.requires_grad
        }

    first = moved()
    assert {name for name, moves in first.items() if moves} == {name for name in first if "to_v_ip" in name}
    torch.optim.SGD([p for p in stage.parameters() if p.requires_grad], lr=0.1).step()
    assert not [name for name, moves in moved().items() if not moves and "visual.ln_post.bias" not in name]


def test_nothing_of_flux_is_trained_or_kept_in_a_checkpoint(stage, tiny_flux) -> None:
    from diffusers import FluxTransformer2DModel

    names = {name for name, parameter in stage.named_parameters() if parameter.requires_grad}
    roots = {name.split(".")[0] for name in names}
    assert roots == {"encoder", "projection", "transformer"}
    plain = FluxTransformer2DModel.from_pretrained(tiny_flux, subfolder="transformer")
    assert not {name.removeprefix("transformer.") for name in names} & set(plain.state_dict())
    assert len([name for name in names if "_ip." in name]) == 8  # 2 blocks, K and V, weight and bias


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


def test_the_times_and_noise_follow_from_sample_and_target_alone(stage, make_batch) -> None:
    batch = make_batch(people=2, targets=3)
    alone = Batch(
        **{name: value[1:] for name, value in vars(batch).items() if isinstance(value, torch.Tensor)},
        keys=("k1",),
    )
    times = stage.draw(batch, stage.identify(batch)).time_BN
    assert len(set(times.flatten().tolist())) == 6
    step = stage.draw(alone, stage.identify(alone))
    assert torch.equal(step.time_BN[0], times[1])
    again = stage.draw(replace(batch, seeds_B=batch.seeds_B + 1), stage.identify(batch)).time_BN
    assert not torch.isclose(again, times).any()


def test_a_damaged_sample_counts_for_nothing(stage, make_batch) -> None:
    batch = make_batch()
    images = batch.images_BKSSC.clone()
    images[1] = 0
    damaged = replace(batch, images_BKSSC=images, valid_B=torch.tensor([True, False, True]))
    step = stage.draw(damaged, stage.identify(damaged))
    assert step.loss_BN[1].tolist() == [0, 0]
    assert stage.parts(damaged) == 4
    whole = stage.draw(batch, stage.identify(batch)).loss_BN
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


def test_more_text_or_another_guidance_is_told_to_flux(tiny_flux, prompts, make_batch) -> None:
    losses = {
        build(config(tiny_flux, prompts, flow))(make_batch()).item()
        for flow in ({}, {"text_tokens": 32}, {"guidance": 3.5}, {"prompt": "a photo"})
    }
    assert len(losses) == 4


def test_initial_weights_follow_from_the_seed_alone(tiny_flux, prompts) -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    for flux in (tiny_flux, None):
        one, same = (build(config(flux, prompts)) for _ in range(2))
        other = build(config(flux, prompts, seed=1))
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
        assert not torch.equal(one.encoder.query_LD, other.encoder.query_LD)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_encoder_goes_on_from_another_stage_s(tiny_flux, prompts, tmp_path: Path) -> None:
    torch.manual_seed(5)
    encoder = OmniIDEncoder(SIZES["tiny"])
    encoder.save_pretrained(tmp_path)
    model = {"size": "tiny", "clip": "encoder"}
    stage = build(config(tiny_flux, prompts, {"encoder": str(tmp_path)}, model=model))
    pairs = zip(stage.encoder.state_dict().values(), encoder.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert all(parameter.requires_grad for parameter in stage.encoder.parameters())


def test_an_encoder_of_another_size_is_refused_and_the_difference_named(
    tiny_flux, prompts, tmp_path: Path
) -> None:
    OmniIDEncoder(SIZES["tiny"].model_copy(update={"queries": 32})).save_pretrained(tmp_path)
    model = {"size": "tiny", "clip": "encoder"}
    with pytest.raises(TrainingError, match=r"flow\.encoder: .* queries 32 instead of 16\. Set model\.size"):
        build(config(tiny_flux, prompts, {"encoder": str(tmp_path)}, model=model))


def test_an_encoder_that_is_not_there_is_named_with_its_key(tiny_flux, prompts, tmp_path: Path) -> None:
    model = {"size": "tiny", "clip": "encoder"}
    with pytest.raises(TrainingError, match=r"flow\.encoder: there is no folder .*nowhere"):
        build(config(tiny_flux, prompts, {"encoder": str(tmp_path / "nowhere")}, model=model))


@pytest.mark.parametrize(
    ("clip", "encoder"), [("encoder", None), ("random", "somewhere")], ids=["nowhere", "two places"]
)
def test_clip_comes_from_one_place(clip: str, encoder: str | None) -> None:
    with pytest.raises(ValueError, match=r"model\.clip: expected to be encoder where flow\.encoder is set"):
        config(None, None, {"encoder": encoder}, model={"size": "tiny", "clip": clip})


@pytest.mark.slow
def test_a_transformer_of_its_own_learns_with_everything_else_who_is_who(make_batch) -> None:
    """Flat colours, one a person: in noise, only the identity says which."""
    stage = build(config(None, None, {"side": 16}))
    assert all(parameter.requires_grad for parameter in stage.parameters())
    assert stage.transformer.transformer_blocks[0].attn.processor.to_v_ip[0].weight.abs().max() > 0
    batch = make_batch(people=2, inputs=1, targets=2)
    colours = torch.tensor([[230, 30, 30], [30, 30, 230]], dtype=torch.uint8)
    batch = replace(
        batch, images_BKSSC=colours[:, None, None, None, :].expand(batch.images_BKSSC.shape).clone()
    )
    optimiser = torch.optim.AdamW(stage.parameters(), lr=2e-3)
    for step in range(60):
        loss = stage(replace(batch, seeds_B=torch.tensor([step, -step - 1]))) / stage.parts(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert all(parameter.grad is not None for parameter in stage.parameters())
    tokens = stage.identify(batch).detach()
    own, swapped = (stage.draw(batch, found).loss_BN.mean().item() for found in (tokens, tokens.flip(0)))
    assert swapped > 1.5 * own
    drawn = stage.sample(tokens, torch.tensor([3, 3]), 16, Sampling((1.0, 0.75, 0.5, 0.25, 0.0), 1.0))
    redder = drawn[:, 0].mean(dim=(1, 2)) - drawn[:, 2].mean(dim=(1, 2))
    assert redder[0] > 0.2
    assert redder[1] < -0.2


def test_images_are_decoded_large_enough_for_encoder_and_decoder(tiny_flux, prompts) -> None:
    assert images_side(config(tiny_flux, prompts, {"side": 128})) == 128
    assert images_side(config(tiny_flux, prompts, {"side": 32})) == SIZES["tiny"].side


def test_samples_follow_from_seed_and_person_and_scale_0_knows_nobody(trained, make_batch) -> None:
    tokens = trained.identify(make_batch(people=2)).detach()
    tokens = torch.stack([tokens[0], -3 * tokens[1]])
    seeds, way = torch.tensor([7, 7]), Sampling((1.0, 0.6, 0.0), 3.5)
    images = trained.sample(tokens, seeds, 32, way)
    assert images.shape == (2, 3, 32, 32)
    assert torch.allclose(images, trained.sample(tokens, seeds, 32, way))
    assert not torch.allclose(images[0], images[1], atol=1e-3)
    assert not torch.allclose(images, trained.sample(tokens, seeds + 1, 32, way), atol=1e-3)
    nobody = trained.sample(tokens, seeds, 32, replace(way, scale=0.0))
    assert torch.allclose(nobody[0], nobody[1], atol=1e-5)
    assert [block.attn.processor.scale for block in trained.transformer.transformer_blocks] == [[1.0], [1.0]]


def test_sampling_undoes_the_noise_when_the_velocity_is_known(stage, make_batch, monkeypatch) -> None:
    """Towards one known image the way is straight: any number of steps ends in it."""
    goal = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(
        stage, "_velocity", lambda image, time, _tokens, _guidance: (image - goal) / time.view(-1, 1, 1)
    )
    for times in ((1.0, 0.0), (1.0, 0.9, 0.5, 0.1, 0.0)):
        found = stage.denoise(torch.randn(1, 16, 16), torch.zeros(1, 1, 1), Sampling(times, 1.0))
        assert torch.allclose(found, goal, atol=1e-5)


def test_the_adapter_s_scale_is_linear_in_the_first_block(trained) -> None:
    tokens = torch.randn(1, 4, trained.transformer.config.joint_attention_dim)
    with torch.no_grad():
        outputs = []
        for scale in (0.0, 1.0, 2.0):
            set_scale(trained.transformer, scale)
            block = trained.transformer.transformer_blocks[0]
            outputs.append(
                block(
                    hidden_states=torch.ones(2, 16, 32),
                    encoder_hidden_states=torch.ones(2, 3, 32),
                    temb=torch.ones(2, 32),
                    joint_attention_kwargs=attend(tokens, 2),
                )[1]
            )
    assert torch.allclose(outputs[2] - outputs[1], outputs[1] - outputs[0], atol=1e-4)
    assert (outputs[1] - outputs[0]).abs().max() > 0.1


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


def test_the_encoder_runs_once_for_all_targets_of_a_person(stage, make_batch) -> None:
    seen: list[int] = []
    stage.encoder.register_forward_pre_hook(lambda _module, inputs: seen.append(len(inputs[0])))
    projected: list[int] = []
    for block in stage.transformer.transformer_blocks:
        keys = block.attn.processor.to_k_ip[0]
        keys.register_forward_hook(lambda _module, inputs, _out: projected.append(inputs[0][:, 0].shape[0]))
    drawn: list[int] = []
    stage.transformer.register_forward_pre_hook(
        lambda _module, _inputs, named: drawn.append(len(named["hidden_states"])), with_kwargs=True
    )
    stage(make_batch(people=2, targets=4))
    assert (seen, projected, drawn) == ([2], [2, 2], [8])
