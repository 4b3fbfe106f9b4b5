"""The stage: what its loss is, what it sees, and that all of it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from training.config import Config, Mtd
from training.data.batch import Batch
from training.models.clip import patches_shown
from training.models.mtd import Drawing, MtdStage, build_stage, grid_positions
from training.models.sizes import SIZES

TINY = SIZES["tiny"]


@pytest.fixture
def stage() -> MtdStage:
    return build_stage(config())


def config(**changes: object) -> Config:
    values = {
        "stage": "mtd",
        "output": "out",
        "data": {"root": "root"},
        "model": {"size": "tiny", "clip": "random"},
    }
    return Config.model_validate(values | changes)


def drawn(stage: MtdStage, batch: Batch) -> Drawing:
    return stage.draw(batch, stage.identify(batch))


def test_the_loss_is_the_mean_difference_over_the_face_summed_over_targets(stage, make_batch) -> None:
    batch = make_batch(people=2, targets=3)
    drawing = drawn(stage, batch)
    expected = 0.0
    for row in range(2):
        for number, image in enumerate(batch.targets_BN[row].tolist()):
            face = batch.masks_BKSS[row, image] == 255
            target = batch.images_BKSSC[row, image].permute(2, 0, 1) / 255
            difference = (drawing.drawn_BNCSS[row, number] - target).abs()
            expected += difference[:, face].mean().item()
    assert stage(batch).item() == pytest.approx(expected, rel=1e-5)
    assert stage.parts(batch) == 6


def test_what_lies_beside_the_face_does_not_count(stage, make_batch) -> None:
    batch = make_batch()
    drawing = drawn(stage, batch)
    drawing.drawn_BNCSS.retain_grad()
    drawing.loss_BN.sum().backward()
    beside = (batch.masks_BKSS[0, 7] == 0).expand(3, -1, -1)
    assert drawing.drawn_BNCSS.grad[0, 1][beside].abs().max() == 0
    assert drawing.drawn_BNCSS.grad[0, 1][~beside].abs().min() > 0


def test_a_larger_face_does_not_weigh_more(stage, make_batch) -> None:
    batch = make_batch(people=1, targets=1)
    black = replace(batch, images_BKSSC=torch.zeros_like(batch.images_BKSSC))
    whole = replace(black, masks_BKSS=torch.full_like(batch.masks_BKSS, 255))
    assert stage(whole).item() == pytest.approx(drawn(stage, whole).drawn_BNCSS.abs().mean().item(), rel=1e-5)
    assert 0.5 < stage(black).item() / stage(whole).item() < 2


def test_damaged_samples_count_for_nothing(stage, make_batch) -> None:
    batch = make_batch(people=3)
    images = batch.images_BKSSC.clone()
    images[1] = 0
    damaged = replace(
        batch,
        images_BKSSC=images,
        masks_BKSS=batch.masks_BKSS * torch.tensor([1, 0, 1], dtype=torch.uint8)[:, None, None, None],
        valid_B=torch.tensor([True, False, True]),
    )
    alone = replace(
        batch,
        **{
            name: getattr(batch, name)[[0, 2]]
            for name in (
                "images_BKSSC",
                "masks_BKSS",
                "inputs_BM",
                "input_valid_BM",
                "targets_BN",
                "valid_B",
                "seeds_B",
            )
        },
    )
    assert stage.parts(damaged) == stage.parts(alone) == 4
    assert stage(damaged).item() == pytest.approx(stage(alone).item(), rel=1e-5)


def test_a_target_without_a_face_counts_as_a_part_with_no_loss(stage, make_batch) -> None:
    batch = make_batch(people=1)
    batch.masks_BKSS[0, 6] = 0
    loss_BN = drawn(stage, batch).loss_BN
    assert loss_BN[0, 0] == 0
    assert loss_BN[0, 1] > 0
    assert stage.parts(batch) == 2
    loss_BN.sum().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in stage.parameters())


def test_a_batch_of_damaged_samples_alone_has_no_loss_and_finite_gradients(stage, make_batch) -> None:
    batch = make_batch(people=2)
    nothing = replace(
        batch, valid_B=torch.zeros(2, dtype=torch.bool), input_valid_BM=torch.zeros_like(batch.input_valid_BM)
    )
    loss = stage(nothing)
    loss.backward()
    assert loss.item() == 0
    assert stage.parts(nothing) == 0
    assert all(torch.isfinite(weight.grad).all() for weight in stage.parameters())


def test_every_parameter_gets_a_gradient_in_one_step(stage, make_batch) -> None:
    stage(make_batch()).backward()
    assert [name for name, weight in stage.named_parameters() if weight.grad is None] == []
    # Biases of keys are left out: adding the same to all keys changes no attention.
    dead = [
        name
        for name, weight in stage.named_parameters()
        if weight.grad.abs().max() < 1e-12 and not name.endswith("bias")
    ]
    assert dead == []


def test_hidden_patches_of_the_targets_cannot_leak_into_the_drawing(stage, make_batch) -> None:
    batch = make_batch(people=2, inputs=3, targets=2)
    before = drawn(stage, batch)
    images = batch.images_BKSSC.clone()
    for row in range(2):
        for number, image in enumerate(batch.targets_BN[row].tolist()):
            hidden = patches_shown(before.visible_BNV[row, number][None], TINY)[0] == 0
            images[row, image][hidden] = 255 - images[row, image][hidden]
    after = drawn(stage, replace(batch, images_BKSSC=images))
    assert torch.equal(after.drawn_BNCSS, before.drawn_BNCSS)
    assert not torch.equal(after.loss_BN, before.loss_BN)


def test_the_identity_reaches_every_pixel_and_every_input_counts(stage, make_batch) -> None:
    batch = make_batch(people=1)
    before = drawn(stage, batch).drawn_BNCSS
    for image in batch.inputs_BM[0].tolist():
        images = batch.images_BKSSC.clone()
        images[0, image] = 255 - images[0, image]
        after = drawn(stage, replace(batch, images_BKSSC=images)).drawn_BNCSS
        assert ((after - before).abs() > 0).float().mean() > 0.99


def test_targets_do_not_see_each_other(stage, make_batch) -> None:
    batch = make_batch(people=2, targets=3)
    together = drawn(stage, batch).drawn_BNCSS
    last = drawn(stage, replace(batch, targets_BN=batch.targets_BN[:, 2:])).drawn_BNCSS
    torch.testing.assert_close(together[:, 2:], last, atol=1e-5, rtol=1e-5)


def test_padded_inputs_change_nothing(stage, make_batch) -> None:
    batch = make_batch(people=2, inputs=2)
    padded = replace(
        batch,
        inputs_BM=torch.tensor([[0, 1, 0], [0, 1, 0]]),
        input_valid_BM=torch.tensor([[True, True, False]] * 2),
    )
    torch.testing.assert_close(stage(padded), stage(batch), atol=1e-5, rtol=1e-5)


def test_fewer_inputs_are_the_first_ones(stage, make_batch) -> None:
    batch = make_batch(people=2, inputs=3)
    first = make_batch(people=2, inputs=1)
    assert torch.equal(stage.identify(batch, most_inputs=1), stage.identify(first))


def test_images_larger_than_the_networks_are_reduced(stage, make_batch) -> None:
    drawing = drawn(stage, make_batch(people=1, side=80))
    assert drawing.targets_BNCSS.shape == (1, 2, 3, TINY.side, TINY.side)
    assert drawing.face_BNSS.shape == (1, 2, TINY.side, TINY.side)


def test_as_many_patches_are_seen_as_the_ratio_leaves(make_batch) -> None:
    for ratio, kept in ((0.95, 3), (0.5, 32)):
        stage = MtdStage(TINY, Mtd(mask_ratio=ratio))
        assert drawn(stage, make_batch(people=1)).visible_BNV.shape == (1, 2, kept)


def test_the_first_drawing_is_nearly_clip_s_mean_colour(stage, make_batch) -> None:
    first = drawn(stage, make_batch()).drawn_BNCSS
    assert (first.mean(dim=(0, 1, 3, 4)) - torch.tensor([0.4815, 0.4578, 0.4082])).abs().max() < 0.02
    assert first.std() < 0.1


def test_positions_tell_all_patches_apart_and_neighbours_are_alike() -> None:
    positions = grid_positions(8, 128)
    assert positions.shape == (64, 128)
    distances = torch.cdist(positions, positions)
    assert distances.fill_diagonal_(torch.inf).min() > 1
    here, right, below, far = (positions[number] for number in (9, 10, 17, 63))
    assert (here - right).norm() == pytest.approx((here - below).norm())
    assert (here - far).norm() > 2 * (here - right).norm()


def test_signals_keep_their_size_whatever_the_width(make_batch) -> None:
    for size in (TINY, TINY.model_copy(update={"width": 512, "layers": 1})):
        stage = MtdStage(size, Mtd())
        batch = make_batch(people=4)
        tokens = stage.identify(batch)
        differences = (tokens - tokens.mean(dim=0)).std() / tokens.std()
        assert 0.01 < differences < 1
        assert 0.02 < drawn(stage, batch).drawn_BNCSS.std() < 0.1


def test_initial_weights_follow_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one, same, other = build_stage(config()), build_stage(config()), build_stage(config(seed=1))
    assert torch.equal(torch.random.get_rng_state(), before)
    pairs = list(zip(one.state_dict().values(), same.state_dict().values(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(one.encoder.query_LD, other.encoder.query_LD)


def test_clip_s_weights_go_into_both_towers(tmp_path: Path) -> None:
    weights = MtdStage(TINY, Mtd()).encoder.clip.visual.state_dict()
    save_file(weights, tmp_path / "clip.safetensors")
    stage = build_stage(config(model={"size": "tiny", "clip": str(tmp_path / "clip.safetensors")}))
    for tower in (stage.encoder.clip, stage.decoder.clip):
        assert all(torch.equal(value, weights[key]) for key, value in tower.visual.state_dict().items())


def test_it_learns_to_tell_two_people_apart(make_batch) -> None:
    """Flat colours, one a person: only the identity says how to fill a face of which a corner is seen."""
    stage = build_stage(config())
    batch = make_batch(people=2, inputs=2, targets=2)
    colours = torch.tensor([[200, 60, 60], [60, 60, 200]], dtype=torch.uint8)
    images = batch.images_BKSSC.clone()
    images[:] = colours[:, None, None, None, :]
    images[:, 6:] = 128
    images[:, 6:, 16:48, 16:48] = colours[:, None, None, None, :]
    masks = torch.zeros_like(batch.masks_BKSS)
    masks[:, :, 16:48, 16:48] = 255
    batch = replace(batch, images_BKSSC=images, masks_BKSS=masks)
    optimiser = torch.optim.AdamW(stage.parameters(), lr=1e-3)
    for step in range(60):
        loss = stage(replace(batch, seeds_B=torch.tensor([step, -step]))) / stage.parts(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    tokens = stage.identify(batch)
    own, swapped = stage.draw(batch, tokens).loss_BN.mean(), stage.draw(batch, tokens.flip(0)).loss_BN.mean()
    assert own < 0.05
    assert swapped > 3 * own


def test_nothing_in_a_step_waits_for_values_on_the_device(make_batch) -> None:
    # The meta device has no values: a branch on one, or a shape that follows from one, fails there.
    device = torch.device("meta")
    with device:
        stage = MtdStage(SIZES["paper"], Mtd())
    loss = stage(make_batch(people=2, inputs=3, targets=8, side=256).to(device))
    loss.backward()
    assert loss.shape == ()
    assert stage.encoder.query_LD.grad.shape == (256, 1280)


def test_every_block_is_one_graph_for_the_compiler(stage, make_batch) -> None:
    batch = make_batch(people=1)
    expected = stage(batch)
    blocks = list(stage.blocks())
    assert len(blocks) == 2 * (TINY.layers + 4)
    for block in blocks:
        block.forward = torch.compile(block.forward, backend="eager", fullgraph=True)
    loss = stage(batch)
    loss.backward()
    assert torch.equal(loss, expected)


def test_half_precision_is_close_and_leaves_the_loss_whole(stage, make_batch) -> None:
    batch = make_batch()
    exact = stage(batch)
    with torch.autocast("cpu", torch.bfloat16):
        rough = stage(batch)
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=0.01)
    # As FSDP computes it: the weights themselves are rounded.
    rounded = stage.bfloat16()(batch)
    assert rounded.dtype == torch.float32
    assert rounded.item() == pytest.approx(exact.item(), rel=0.01)
