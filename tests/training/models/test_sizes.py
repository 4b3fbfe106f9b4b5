"""The sizes, compared with open_clip's and with the rounding of masked autoencoders."""

from __future__ import annotations

import open_clip
import pytest
from pydantic import ValidationError

from training.models.sizes import SIZES, ModelSize
from training.representations.config import RepresentationConfig


def test_the_paper_s_size_is_that_of_vit_h_14() -> None:
    vision = open_clip.get_model_config("ViT-H-14")["vision_cfg"]
    paper = SIZES["paper"]
    assert vision == {
        "image_size": paper.side,
        "layers": paper.layers,
        "width": paper.width,
        "head_width": paper.head_width,
        "patch_size": paper.patch,
    }
    assert (paper.patches, paper.heads, paper.queries) == (256, 16, 256)


@pytest.mark.parametrize(
    ("name", "ratio", "kept"),
    [("paper", 0.95, 12), ("paper", 0.75, 64), ("small", 0.95, 3), ("tiny", 0.95, 3), ("tiny", 0.999, 1)],
)
def test_the_number_of_visible_patches_is_rounded_down_to_at_least_one(
    name: str, ratio: float, kept: int
) -> None:
    assert SIZES[name].kept(ratio) == kept


@pytest.mark.parametrize(("ratio", "kept"), [(0.9, 10), (0.8, 20), (0.7, 30), (0.3, 70)])
def test_rounding_errors_of_the_ratio_cost_no_patch(ratio: float, kept: int) -> None:
    hundred = SIZES["tiny"].model_copy(update={"side": 80})
    assert hundred.patches == 100
    assert hundred.kept(ratio) == kept


@pytest.mark.parametrize(("key", "value"), [("patch", 13), ("head_width", 48), ("width", 130), ("layers", 0)])
def test_inconsistent_sizes_are_an_error(key: str, value: int) -> None:
    with pytest.raises(ValidationError, match=key):
        ModelSize(**{**SIZES["tiny"].model_dump(), key: value})


def test_every_row_of_the_table_is_a_size_and_the_towers_are_those_of_open_clip() -> None:
    """Width, layers and heads of the published models, as open_clip's own configurations have them."""
    for name, model in (("paper", "ViT-H-14"), ("vit-l-14", "ViT-L-14"), ("vit-b-16", "ViT-B-16")):
        tower = open_clip.get_model_config(model)["vision_cfg"]
        size = SIZES[name]
        assert (size.side, size.patch) == (tower["image_size"], tower["patch_size"])
        assert (size.width, size.layers) == (tower["width"], tower["layers"])
        assert size.head_width == tower.get("head_width", 64)


def test_an_unknown_size_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"expected paper, vit-l-14, .*tiny, a row of training/models/"):
        RepresentationConfig(size="huge")
