"""What a run says of the crops that its encoder has learned from, and of those that it had learned from before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from trainers import Run

from training.models.sizes import SIZES
from training.representations.omniid import OmniIDEncoder

pytestmark = pytest.mark.slow

SCRATCH = (
    "decoders.mtd=null",
    "decoders.flow.side=16",
    "decoders.flow.scratch={layers: 1, single_layers: 1, heads: 2, head_width: 16, patch: 4}",
    "decoders.flow.sample_steps=2",
    "batch=2",
    "steps=2",
    "validation.every=2",
)
WARNING = "warning: representation.weights was trained on head crops of scale"


def crop_scale(run: Run) -> float:
    return json.loads((run.output / "encoder" / "config.json").read_text())["crop_scale"]


def test_an_encoder_has_the_crop_scale_of_the_dataset(undisturbed: Run) -> None:
    assert crop_scale(undisturbed) == 1.3
    assert OmniIDEncoder.from_pretrained(undisturbed.output / "encoder").crop_scale == 1.3


@pytest.mark.parametrize(("scale", "warned"), [(1.1, 1), (1.3, 0), (None, 0)])
def test_an_encoder_of_other_crops_is_trained_on_with_one_warning(
    dataset: Path, tmp_path: Path, scale: float | None, warned: int
) -> None:
    OmniIDEncoder(SIZES["tiny"], scale).save_pretrained(tmp_path / "encoder")
    run = Run(tmp_path / "run", dataset, *SCRATCH, f"representation.weights={tmp_path / 'encoder'}")
    trainers = run.ended(2)
    assert trainers.said().count(WARNING) == warned
    assert crop_scale(run) == 1.3
