"""The encoder: any number of photographs of a person, in any order, give a fixed number of tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from tiny_models import mtd_config

from training.errors import TrainingError
from training.model import build_model
from training.models.sizes import SIZES
from training.representations.build import check_weights
from training.representations.config import RepresentationConfig
from training.representations.omniid import OmniIDEncoder

TINY = SIZES["tiny"]


@pytest.fixture
def encoder() -> OmniIDEncoder:
    torch.manual_seed(0)
    return OmniIDEncoder(TINY)


def photographs(people: int, each: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(people, each, 3, TINY.side, TINY.side, generator=generator)


@pytest.mark.parametrize("each", [1, 2, 8, 11])
def test_any_number_of_photographs_gives_as_many_tokens(encoder: OmniIDEncoder, each: int) -> None:
    assert encoder(photographs(2, each)).shape == (2, TINY.queries, TINY.width)


def test_the_order_of_photographs_makes_no_difference(encoder: OmniIDEncoder) -> None:
    pixels = photographs(2, 4)
    torch.testing.assert_close(encoder(pixels[:, [2, 0, 3, 1]]), encoder(pixels), atol=1e-5, rtol=1e-5)


def test_every_photograph_makes_a_difference(encoder: OmniIDEncoder) -> None:
    pixels = photographs(1, 3)
    for number in range(3):
        changed = pixels.clone()
        changed[:, number] = photographs(1, 1, seed=9)[:, 0]
        assert (encoder(changed) - encoder(pixels)).abs().max() > 1e-4


def test_people_do_not_see_each_other(encoder: OmniIDEncoder) -> None:
    pixels = photographs(3, 2)
    torch.testing.assert_close(encoder(pixels)[1:2], encoder(pixels[1:2]), atol=1e-5, rtol=1e-5)


def test_padding_makes_no_difference(encoder: OmniIDEncoder) -> None:
    pixels = photographs(2, 5)
    valid = torch.tensor([[True, False, True, False, False], [True, True, True, True, True]])
    mixed = encoder(pixels, valid)
    torch.testing.assert_close(mixed[:1], encoder(pixels[:1, [0, 2]]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mixed[1:], encoder(pixels[1:]), atol=1e-5, rtol=1e-5)
    pixels[0, [1, 3, 4]] = photographs(1, 3, seed=9)[0]
    torch.testing.assert_close(encoder(pixels, valid), mixed, atol=1e-6, rtol=1e-6)


def test_a_row_without_any_photograph_leaves_numbers_finite(encoder: OmniIDEncoder) -> None:
    valid = torch.tensor([[False, False], [True, True]])
    tokens = encoder(photographs(2, 2), valid)
    tokens[1].square().sum().backward()
    assert torch.isfinite(tokens).all()
    assert all(torch.isfinite(weight.grad).all() for weight in encoder.parameters())


def test_every_parameter_gets_a_gradient_from_one_photograph(encoder: OmniIDEncoder) -> None:
    weights = torch.rand(TINY.queries, TINY.width, generator=torch.Generator().manual_seed(2))
    (encoder(photographs(1, 1)) * weights).sum().backward()
    assert [name for name, weight in encoder.named_parameters() if weight.grad is None] == []
    # Biases of keys are left out: adding the same to all keys changes no attention.
    dead = [
        name
        for name, weight in encoder.named_parameters()
        if weight.grad.abs().max() < 1e-12 and not name.endswith("bias")
    ]
    assert dead == []


def test_identity_tokens_differ_from_each_other_and_between_people(encoder: OmniIDEncoder) -> None:
    tokens = encoder(photographs(2, 3))
    assert (tokens[0, 0] - tokens[0, 1]).abs().max() > 1e-3
    assert (tokens[0] - tokens[1]).abs().max() > 1e-4


def test_its_blocks_are_the_paper_s_two_and_two_behind_the_tower() -> None:
    with torch.device("meta"):
        paper = OmniIDEncoder(SIZES["paper"])
    kinds = [type(block).__name__ for block in paper.blocks()]
    assert kinds == (
        ["ResidualAttentionBlock"] * 32 + ["CrossAttentionBlock"] * 2 + ["SelfAttentionBlock"] * 2
    )
    tower = sum(weight.numel() for weight in paper.clip.parameters())
    # ViT-H-14's tower of 632.1 million less its projection of 1280 x 1024.
    assert tower == 632_076_800 - 1280 * 1024


def test_where_all_inputs_are_real_no_mask_is_made_and_the_loss_is_the_same(make_batch) -> None:
    model = build_model(mtd_config())
    masks: list[object] = []
    model.representation.cross[0].register_forward_pre_hook(lambda _m, inputs: masks.append(inputs[2]))
    batch = make_batch(people=2, inputs=3)
    plain = model(replace(batch, input_valid_BM=None))
    torch.testing.assert_close(plain, model(batch), rtol=1e-5, atol=1e-5)
    assert masks[0] is None
    assert isinstance(masks[1], torch.Tensor)


def test_the_class_token_is_one_more_key_and_value_of_each_photograph() -> None:
    torch.manual_seed(0)
    plain = OmniIDEncoder(TINY)
    more = OmniIDEncoder(TINY, class_token=True)
    more.load_state_dict(plain.state_dict())  # no parameter of its own
    pixels = photographs(2, 3)
    seen: list[torch.Tensor] = []
    more.cross[0].register_forward_pre_hook(lambda _, arguments: seen.append(arguments[1]))
    found = more(pixels)
    assert seen[0].shape == (2, 3 * (1 + TINY.patches), TINY.width)
    assert found.shape == (2, TINY.queries, TINY.width)
    assert (found - plain(pixels)).abs().max() > 1e-4
    valid = torch.tensor([[True, False, True], [True, True, True]])
    torch.testing.assert_close(more(pixels, valid)[:1], more(pixels[:1, [0, 2]]), atol=1e-5, rtol=1e-5)


def test_an_encoder_with_the_class_token_is_loaded_as_one_and_only_as_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = OmniIDEncoder(TINY, class_token=True).eval()
    encoder.save_pretrained(tmp_path)
    loaded = OmniIDEncoder.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(photographs(1, 2)), encoder(photographs(1, 2)))
    assert RepresentationConfig(size="tiny", weights=str(tmp_path), class_token=True).class_token
    with pytest.raises(TrainingError, match=r"trained with class_token=True, and .* is False"):
        check_weights(RepresentationConfig(size="tiny", weights=str(tmp_path)))
    with pytest.raises(ValidationError, match=r"class_token: representation\.kind=arcface has"):
        RepresentationConfig(size="tiny", kind="arcface", class_token=True)
