"""Conversion and resizing of images and masks for the networks."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from training.models.pixels import face_share, pixels


def test_an_image_of_the_right_side_keeps_its_values() -> None:
    images = torch.arange(2 * 4 * 4 * 3, dtype=torch.uint8).reshape(2, 4, 4, 3)
    planes = pixels(images, 4)
    assert planes.shape == (2, 3, 4, 4)
    assert torch.equal((planes * 255).round().byte().permute(0, 2, 3, 1), images)


def test_any_leading_dimensions_stay_in_place() -> None:
    images = torch.zeros(2, 3, 8, 8, 3, dtype=torch.uint8)
    images[1, 2, :, :, 1] = 255
    planes = pixels(images, 4)
    assert planes.shape == (2, 3, 3, 4, 4)
    assert torch.all(planes[1, 2, 1] == 1)
    assert planes.sum() == 16


def test_resized_images_are_close_to_opencv_s() -> None:
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (256, 256, 3), np.uint8), (0, 0), 6)
    reduced = pixels(torch.from_numpy(image), 224).permute(1, 2, 0).numpy() * 255
    expected = cv2.resize(image, (224, 224), interpolation=cv2.INTER_CUBIC)
    assert np.abs(reduced - expected).max() < 2


def test_values_at_hard_edges_stay_in_the_range() -> None:
    checkers = ((torch.arange(64) // 8 + torch.arange(64)[:, None] // 8) % 2 * 255).byte()
    planes = pixels(checkers[..., None].expand(64, 64, 3), 28)
    assert planes.min() == 0
    assert planes.max() == 1


def test_a_mask_becomes_the_share_of_each_pixel_that_is_face() -> None:
    mask = torch.zeros(1, 8, 8, dtype=torch.uint8)
    mask[0, :, :3] = 255
    assert face_share(mask, 4)[0].tolist() == [[1, 0.5, 0, 0]] * 4


@pytest.mark.parametrize(("side", "reduced"), [(64, 56), (64, 64), (30, 7), (8, 12)])
def test_the_share_is_exact_for_partly_covered_pixels(side: int, reduced: int) -> None:
    mask = torch.from_numpy(np.random.default_rng(0).integers(0, 2, (3, side, side), np.uint8) * 255)
    # Every pixel is divided into as many as both sides divide, which are then counted.
    fine = mask.repeat_interleave(reduced, 1).repeat_interleave(reduced, 2).double() / 255
    exact = fine.unflatten(1, (reduced, side)).unflatten(3, (reduced, side)).mean((2, 4))
    assert torch.allclose(face_share(mask, reduced).double(), exact, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(face_share(mask, reduced).double(), exact, atol=1e-6)


def test_the_share_keeps_the_area_at_any_side() -> None:
    mask = torch.zeros(1, 2, 256, 256, dtype=torch.uint8)
    mask[0, 1, 60:200, 70:190] = 255
    share = face_share(mask, 224)
    assert share.shape == (1, 2, 224, 224)
    assert share[0, 0].sum() == 0
    assert abs(share[0, 1].mean() - mask[0, 1].float().mean() / 255) < 1e-6
