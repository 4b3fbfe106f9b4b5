"""Crops of another scale than in training: an error when tokens are computed, a warning in training."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.crop_scale import check_crop_scale, crop_scale_warning

SCALES = st.floats(1, 4)


@given(st.none() | SCALES, st.lists(SCALES, max_size=4))
def test_portraits_pass_when_all_have_the_scale_of_the_training_or_it_is_not_known(
    trained, given_scales
) -> None:
    same = trained is None or all(scale == pytest.approx(trained, rel=1e-9) for scale in given_scales)
    if same:
        check_crop_scale(trained, given_scales)
    else:
        with pytest.raises(ValueError, match="the encoder was trained on"):
            check_crop_scale(trained, given_scales)


def test_the_error_names_both_scales_and_the_remedy() -> None:
    with pytest.raises(
        ValueError, match=r"crop_scale 1\.3, 1\.6, .* trained on 1\.1\. Cut .* crop_scale=1\.1"
    ):
        check_crop_scale(1.1, [1.6, 1.1, 1.3])


@given(st.none() | SCALES, st.booleans())
def test_there_is_no_warning_for_one_scale_or_one_that_is_not_known(scale, frozen) -> None:
    assert crop_scale_warning(scale, scale, frozen=frozen) is None
    assert crop_scale_warning(None, scale, frozen=frozen) is None
    assert crop_scale_warning(scale, None, frozen=frozen) is None


@pytest.mark.parametrize("frozen", [False, True])
def test_the_warning_names_both_scales_and_whether_the_representation_can_adapt(frozen) -> None:
    warning = crop_scale_warning(1.1, 1.6, frozen=frozen)
    assert warning is not None
    assert ("cannot adapt" in warning) == frozen
    assert ("has to adapt first" in warning) != frozen
    assert ("representation.frozen=false" in warning) == frozen
    assert warning.startswith(
        "warning: representation.weights was trained on head crops of scale 1.1, but the images of this "
    )
    assert "cut at 1.6" in warning
    assert warning.endswith("faces.crop_scale=1.1")
