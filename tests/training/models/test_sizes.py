"""The sizes, against open_clip's own numbers and masked autoencoders' way to count."""

from __future__ import annotations

import open_clip
import pytest
from pydantic import ValidationError

from training.models.sizes import SIZES, ModelSize


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
def test_kept_patches_are_rounded_down_but_one_at_least(name: str, ratio: float, kept: int) -> None:
    assert SIZES[name].kept(ratio) == kept


@pytest.mark.parametrize(("ratio", "kept"), [(0.9, 10), (0.8, 20), (0.7, 30), (0.3, 70)])
def test_binary_noise_in_the_ratio_costs_no_patch(ratio: float, kept: int) -> None:
    hundred = SIZES["tiny"].model_copy(update={"side": 80})
    assert hundred.patches == 100
    assert hundred.kept(ratio) == kept


@pytest.mark.parametrize(("key", "value"), [("patch", 13), ("head_width", 48), ("width", 130), ("layers", 0)])
def test_numbers_that_do_not_fit_are_refused(key: str, value: int) -> None:
    with pytest.raises(ValidationError, match=key):
        ModelSize(**{**SIZES["tiny"].model_dump(), key: value})
