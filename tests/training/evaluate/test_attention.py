"""Attention maps are the weights that the encoder computes with, and the picture shows them by photograph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from typer.testing import CliRunner

from pipeline.demo.photographs import PEOPLE, package_file
from training.cli import app
from training.evaluate.attention import (
    SHOWN_SIDE,
    attention_maps,
    chosen_queries,
    overlay,
)
from training.models.sizes import SIZES
from training.representations.base import Inputs
from training.representations.omniid import OmniIDEncoder

SIZE = SIZES["tiny"]
ASTRONAUT, GROUP = (str(package_file(*PEOPLE[name].source)) for name in ("astronaut", "group-1"))


@pytest.fixture(scope="module")
def encoder() -> OmniIDEncoder:
    torch.manual_seed(0)
    return OmniIDEncoder(SIZE, crop_scale=1.6).eval()


@pytest.fixture
def images_MSSC() -> torch.Tensor:  # noqa: N802 - shape
    return torch.randint(
        0, 256, (3, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def test_maps_are_the_weights_of_the_encoders_attention(
    encoder: OmniIDEncoder, images_MSSC: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[torch.Tensor] = []
    attend = functional.scaled_dot_product_attention

    def noted(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any) -> torch.Tensor:
        found = attend(query, key, value, **options)
        eye = torch.eye(key.shape[2])[None, None].expand(1, key.shape[1], -1, -1)
        if query.shape[2] == SIZE.queries and key.shape[2] == 3 * SIZE.patches:
            computed.append(attend(query, key, eye)[0].mean(dim=0))
        return found

    monkeypatch.setattr(functional, "scaled_dot_product_attention", noted)
    maps = attention_maps(encoder, images_MSSC)
    assert maps.shape == (SIZE.cross_blocks, SIZE.queries, 3, SIZE.patches)
    assert torch.allclose(maps.flatten(2), torch.stack(computed[: SIZE.cross_blocks]), atol=1e-6)
    assert torch.allclose(maps.sum(dim=(2, 3)), torch.ones(SIZE.cross_blocks, SIZE.queries), atol=1e-5)


def test_maps_leave_out_the_class_token(images_MSSC: torch.Tensor) -> None:
    torch.manual_seed(0)
    encoder = OmniIDEncoder(SIZE, class_token=True).eval()
    maps = attention_maps(encoder, images_MSSC)
    assert maps.shape == (SIZE.cross_blocks, SIZE.queries, 3, SIZE.patches)
    assert 0 < float(maps.sum(dim=(2, 3)).max()) < 1


def test_the_maps_follow_their_images(encoder: OmniIDEncoder, images_MSSC: torch.Tensor) -> None:
    maps = attention_maps(encoder, images_MSSC)
    assert torch.allclose(attention_maps(encoder, images_MSSC.flip(0)).flip(2), maps, atol=1e-6)


def test_nothing_of_the_encoder_changes(encoder: OmniIDEncoder, images_MSSC: torch.Tensor) -> None:
    before = encoder.encode(Inputs(images_MSSC[None]))
    attention_maps(encoder, images_MSSC)
    assert torch.equal(encoder.encode(Inputs(images_MSSC[None])), before)


def test_focused_queries_that_differ_come_first() -> None:
    maps_LMP = torch.full((4, 1, 8), 1 / 8)
    maps_LMP[1] = torch.eye(8)[3]
    maps_LMP[2] = torch.eye(8)[3] * 0.9 + 0.1 / 8
    maps_LMP[3] = torch.eye(8)[5] * 0.8 + 0.2 / 8
    assert chosen_queries(maps_LMP, 2) == [1, 3]
    assert sorted(chosen_queries(maps_LMP, 4)) == [0, 1, 2, 3]


def test_the_brightest_place_is_the_patch_that_is_attended_to() -> None:
    map_P = np.zeros(64, np.float32)
    map_P[8 * 2 + 5] = 1.0
    shown = overlay(np.zeros((64, 64, 3), np.uint8), map_P, 1.0).astype(int).sum(axis=2)
    row, column = np.unravel_index(shown.argmax(), shown.shape)
    assert (row * 8 // SHOWN_SIDE, column * 8 // SHOWN_SIDE) == (2, 5)


def test_the_command_writes_a_row_for_each_photograph(encoder: OmniIDEncoder, tmp_path: Path) -> None:
    encoder.save_pretrained(tmp_path / "encoder")
    output = tmp_path / "attention.png"
    arguments = [
        "attention",
        ASTRONAUT,
        GROUP,
        "--encoder",
        str(tmp_path / "encoder"),
        "--output",
        str(output),
    ]
    result = CliRunner().invoke(app, [*arguments, "--query", "3", "--query", "0"])
    assert result.exit_code == 0, result.output
    one = Image.open(output)
    assert "2 of 16 queries, 2 photographs" in result.output
    CliRunner().invoke(app, [*arguments, "--count", "4"])
    assert Image.open(output).width > one.width
    for wrong, message in (
        (["--query", "16"], "--query: 16 is none of the encoder's queries 0 to 15"),
        (["--block", "2"], "--block: 2 is none of the encoder's 2 cross-attention blocks"),
        (["--output", "a.jpg"], "a.jpg is not the name of a .png file"),
    ):
        result = CliRunner().invoke(app, [*arguments, *wrong])
        assert result.exit_code == 1
        assert message in result.output
