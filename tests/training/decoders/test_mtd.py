"""The masked transformer decoder: its loss, its visible patches, and that all of its parameters learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from batches import rows_of
from safetensors.torch import save_file
from tiny_models import TINY, mtd_config, mtd_model

from training.data.batch import Batch
from training.data.needs import Needs
from training.decoders.mtd import MtdConfig, Reconstruction, grid_positions
from training.model import IdentityModel, build_model, meta_model
from training.models.clip import patches_shown


@pytest.fixture
def model() -> IdentityModel:
    return build_model(mtd_config())


def reconstructed(model: IdentityModel, batch: Batch) -> Reconstruction:
    found: Reconstruction = model.decoder("mtd").reconstruct(batch, model.encode(batch))
    return found


def test_the_loss_is_the_mean_difference_over_the_face_summed_over_targets(model, make_batch) -> None:
    batch = make_batch(people=2, targets=3)
    found = reconstructed(model, batch)
    expected = 0.0
    for row in range(2):
        for number, image in enumerate(batch.targets_BN[row].tolist()):
            face = batch.masks_BKSS[row, image] == 255
            target = batch.images_BKSSC[row, image].permute(2, 0, 1) / 255
            difference = (found.pred_BNCSS[row, number] - target).abs()
            expected += difference[:, face].mean().item()
    assert model(batch).item() == pytest.approx(expected, rel=1e-5)
    assert batch.target_count == 6


def test_pixels_outside_the_face_do_not_count(model, make_batch) -> None:
    batch = make_batch()
    found = reconstructed(model, batch)
    found.pred_BNCSS.retain_grad()
    found.loss_BN.sum().backward()
    beside = (batch.masks_BKSS[0, 7] == 0).expand(3, -1, -1)
    assert found.pred_BNCSS.grad[0, 1][beside].abs().max() == 0
    assert found.pred_BNCSS.grad[0, 1][~beside].abs().min() > 0


def test_the_loss_does_not_depend_on_the_area_of_the_face(model, make_batch) -> None:
    batch = make_batch(people=1, targets=1)
    black = replace(batch, images_BKSSC=torch.zeros_like(batch.images_BKSSC))
    whole = replace(black, masks_BKSS=torch.full_like(batch.masks_BKSS, 255))
    error = reconstructed(model, whole).pred_BNCSS.abs().mean().item()
    assert model(whole).item() == pytest.approx(error, rel=1e-5)
    assert 0.5 < model(black).item() / model(whole).item() < 2


def test_damaged_samples_count_for_nothing(model, make_batch) -> None:
    batch = make_batch(people=3)
    images = batch.images_BKSSC.clone()
    images[1] = 0
    damaged = replace(
        batch,
        images_BKSSC=images,
        masks_BKSS=batch.masks_BKSS * torch.tensor([1, 0, 1], dtype=torch.uint8)[:, None, None, None],
        valid_B=torch.tensor([True, False, True]),
    )
    alone = rows_of(batch, [0, 2])
    assert damaged.target_count == alone.target_count == 4
    assert model(damaged).item() == pytest.approx(model(alone).item(), rel=1e-5)


def test_a_target_without_a_face_counts_as_a_target_with_loss_0(model, make_batch) -> None:
    batch = make_batch(people=1)
    batch.masks_BKSS[0, 6] = 0
    loss_BN = reconstructed(model, batch).loss_BN
    assert loss_BN[0, 0] == 0
    assert loss_BN[0, 1] > 0
    assert batch.target_count == 2
    loss_BN.sum().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters())


def test_a_batch_of_damaged_samples_alone_has_no_loss_and_finite_gradients(model, make_batch) -> None:
    batch = make_batch(people=2)
    nothing = replace(
        batch, valid_B=torch.zeros(2, dtype=torch.bool), input_valid_BM=torch.zeros_like(batch.input_valid_BM)
    )
    loss = model(nothing)
    loss.backward()
    assert loss.item() == 0
    assert nothing.target_count == 0
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters())


def test_every_parameter_gets_a_gradient_in_one_step(model, make_batch) -> None:
    model(make_batch()).backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []
    # Biases of keys are left out: adding the same to all keys changes no attention.
    dead = [
        name
        for name, weight in model.named_parameters()
        if weight.grad.abs().max() < 1e-12 and not name.endswith("bias")
    ]
    assert dead == []


def test_hidden_patches_of_the_targets_cannot_leak_into_the_reconstruction(model, make_batch) -> None:
    batch = make_batch(people=2, inputs=3, targets=2)
    before = reconstructed(model, batch)
    images = batch.images_BKSSC.clone()
    for row in range(2):
        for number, image in enumerate(batch.targets_BN[row].tolist()):
            hidden = patches_shown(before.visible_BNV[row, number][None], TINY)[0] == 0
            images[row, image][hidden] = 255 - images[row, image][hidden]
    after = reconstructed(model, replace(batch, images_BKSSC=images))
    assert torch.equal(after.pred_BNCSS, before.pred_BNCSS)
    assert not torch.equal(after.loss_BN, before.loss_BN)


def test_the_identity_reaches_every_pixel_and_every_input_counts(model, make_batch) -> None:
    batch = make_batch(people=1)
    before = reconstructed(model, batch).pred_BNCSS
    for image in batch.inputs_BM[0].tolist():
        images = batch.images_BKSSC.clone()
        images[0, image] = 255 - images[0, image]
        after = reconstructed(model, replace(batch, images_BKSSC=images)).pred_BNCSS
        assert ((after - before).abs() > 0).float().mean() > 0.99


def test_targets_do_not_see_each_other(model, make_batch) -> None:
    batch = make_batch(people=2, targets=3)
    together = reconstructed(model, batch).pred_BNCSS
    last = reconstructed(model, replace(batch, targets_BN=batch.targets_BN[:, 2:])).pred_BNCSS
    torch.testing.assert_close(together[:, 2:], last, atol=1e-5, rtol=1e-5)


def test_padded_inputs_change_nothing(model, make_batch) -> None:
    batch = make_batch(people=2, inputs=2)
    padded = replace(
        batch,
        inputs_BM=torch.tensor([[0, 1, 0], [0, 1, 0]]),
        input_valid_BM=torch.tensor([[True, True, False]] * 2),
    )
    torch.testing.assert_close(model(padded), model(batch), atol=1e-5, rtol=1e-5)


def test_most_inputs_limits_the_inputs_to_the_first(model, make_batch) -> None:
    batch = make_batch(people=2, inputs=3)
    first = make_batch(people=2, inputs=1)
    assert torch.equal(model.encode(batch, most_inputs=1), model.encode(first))


def test_needs_are_targets_and_their_masks(model) -> None:
    assert model.needs == Needs(TINY.side, targets=True, masks=True)


def test_larger_images_are_resized_for_the_networks(model, make_batch) -> None:
    found = reconstructed(model, make_batch(people=1, side=80))
    assert found.targets_BNCSS.shape == (1, 2, 3, TINY.side, TINY.side)
    assert found.face_BNSS.shape == (1, 2, TINY.side, TINY.side)


def test_the_mask_ratio_gives_the_number_of_visible_patches(make_batch) -> None:
    for ratio, kept in ((0.95, 3), (0.5, 32)):
        model = mtd_model(mask_ratio=ratio)
        assert reconstructed(model, make_batch(people=1)).visible_BNV.shape == (1, 2, kept)


def test_the_first_reconstruction_is_nearly_clip_s_mean_colour(model, make_batch) -> None:
    first = reconstructed(model, make_batch()).pred_BNCSS
    assert (first.mean(dim=(0, 1, 3, 4)) - torch.tensor([0.4815, 0.4578, 0.4082])).abs().max() < 0.02
    assert first.std() < 0.1


def test_position_embeddings_differ_and_those_of_neighbours_are_similar() -> None:
    positions = grid_positions(8, 128)
    assert positions.shape == (64, 128)
    distances = torch.cdist(positions, positions)
    assert distances.fill_diagonal_(torch.inf).min() > 1
    here, right, below, far = (positions[number] for number in (9, 10, 17, 63))
    assert (here - right).norm() == pytest.approx((here - below).norm())
    assert (here - far).norm() > 2 * (here - right).norm()


def test_signals_keep_their_scale_at_any_width(make_batch) -> None:
    for size in (TINY, TINY.model_copy(update={"width": 512, "layers": 1})):
        model = mtd_model(size)
        batch = make_batch(people=4)
        tokens = model.encode(batch)
        differences = (tokens - tokens.mean(dim=0)).std() / tokens.std()
        assert 0.01 < differences < 1
        assert 0.02 < reconstructed(model, batch).pred_BNCSS.std() < 0.1


def test_initial_weights_depend_only_on_the_seed() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one, same, other = (build_model(mtd_config(seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    pairs = list(zip(one.state_dict().values(), same.state_dict().values(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(one.representation.query_LD, other.representation.query_LD)


def test_clip_s_weights_go_into_both_towers(tmp_path: Path) -> None:
    weights = mtd_model().representation.clip.visual.state_dict()
    save_file(weights, tmp_path / "clip.safetensors")
    given = {"size": "tiny", "clip": str(tmp_path / "clip.safetensors")}
    model = build_model(mtd_config(representation=given))
    for tower in (model.representation.clip, model.decoder("mtd").clip):
        assert all(torch.equal(value, weights[key]) for key, value in tower.visual.state_dict().items())


@pytest.mark.slow
def test_it_learns_to_distinguish_two_identities(make_batch) -> None:
    """Flat colours, one an identity: only the tokens say how to fill a face of which a corner is seen."""
    model = build_model(mtd_config())
    batch = make_batch(people=2, inputs=2, targets=2)
    colours = torch.tensor([[200, 60, 60], [60, 60, 200]], dtype=torch.uint8)
    images = batch.images_BKSSC.clone()
    images[:] = colours[:, None, None, None, :]
    images[:, 6:] = 128
    images[:, 6:, 16:48, 16:48] = colours[:, None, None, None, :]
    masks = torch.zeros_like(batch.masks_BKSS)
    masks[:, :, 16:48, 16:48] = 255
    batch = replace(batch, images_BKSSC=images, masks_BKSS=masks)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(60):
        loss = model(replace(batch, seeds_B=torch.tensor([step, -step]))) / batch.target_count
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    tokens = model.encode(batch)
    own, swapped = (model.losses("mtd", batch, given).mean() for given in (tokens, tokens.flip(0)))
    assert own < 0.05
    assert swapped > 3 * own


def test_a_step_does_not_synchronise_with_the_device(make_batch) -> None:
    # The meta device has no values: a branch on one, or a shape that follows from one, fails there.
    model = meta_model(mtd_config(representation={"size": "paper"}))
    loss = model(make_batch(people=2, inputs=3, targets=8, side=256).to(torch.device("meta")))
    loss.backward()
    assert loss.shape == (1,)
    assert model.representation.query_LD.grad.shape == (256, 1280)


def test_every_block_is_one_graph_for_the_compiler(model, make_batch) -> None:
    batch = make_batch(people=1)
    expected = model(batch)
    blocks = list(model.blocks())
    assert len(blocks) == 2 * (TINY.layers + 4)
    for block in blocks:
        block.forward = torch.compile(block.forward, backend="eager", fullgraph=True)
    loss = model(batch)
    loss.backward()
    assert torch.equal(loss, expected)


def test_bfloat16_is_close_and_the_loss_is_float32(model, make_batch) -> None:
    batch = make_batch()
    exact = model(batch)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(batch)
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=0.01)
    # As FSDP computes it: the weights themselves are rounded.
    rounded = model.bfloat16()(batch)
    assert rounded.dtype == torch.float32
    assert rounded.item() == pytest.approx(exact.item(), rel=0.01)


def test_all_positions_may_pass_the_tower_and_masked_pixels_are_still_not_seen(model, make_batch) -> None:
    batch, config = make_batch(people=2, targets=3), mtd_config()
    config = config.model_copy(
        update={"decoders": config.decoders.model_copy(update={"mtd": MtdConfig(tower="all")})}
    )
    whole = build_model(config)
    assert whole.decoder("mtd").state_dict().keys() == model.decoder("mtd").state_dict().keys()
    lengths: list[int] = []
    block = whole.decoder("mtd").clip.visual.transformer.resblocks[0]
    block.register_forward_pre_hook(lambda _, arguments: lengths.append(arguments[0].shape[1]))
    found = reconstructed(whole, batch)
    assert lengths == [1 + TINY.patches]
    hidden_BNSS = 1 - torch.stack([patches_shown(row, TINY) for row in found.visible_BNV])
    tokens = whole.encode(batch)

    def predicted(targets: torch.Tensor) -> torch.Tensor:
        return whole.decoder("mtd")(targets, found.visible_BNV, tokens)

    targets = found.targets_BNCSS
    torch.testing.assert_close(predicted(targets), found.pred_BNCSS)
    noise = torch.rand_like(targets)
    assert torch.equal(predicted(targets + hidden_BNSS[:, :, None] * noise), predicted(targets))
    assert (predicted(targets + noise) - predicted(targets)).abs().max() > 1e-5
    whole(batch).backward()
    assert not [name for name, weight in whole.named_parameters() if weight.grad is None]
