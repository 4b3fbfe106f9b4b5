"""What tests of held-out people share."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from training.data.batch import Batch


@pytest.fixture
def flat(make_batch) -> Batch:  # type: ignore[no-untyped-def]
    """Images of one colour each: image k of person b is grey of 20 k + 100 b."""
    batch = make_batch(people=2, inputs=3, targets=2)
    levels = 20 * torch.arange(8) + 100 * torch.arange(2)[:, None]
    return replace(
        batch, images_BKSSC=levels[:, :, None, None, None].expand_as(batch.images_BKSSC).byte().clone()
    )
