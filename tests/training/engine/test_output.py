"""What an output folder may hold when a run begins in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.engine.output import ENCODER_FOLDER, check_unfinished
from training.errors import TrainingError


def test_a_run_does_not_begin_beside_the_encoder_of_another_one(tmp_path: Path) -> None:
    check_unfinished(tmp_path / "none")
    check_unfinished(tmp_path)
    (tmp_path / ENCODER_FOLDER).mkdir()
    with pytest.raises(
        TrainingError, match=r"holds the encoder of a finished run, but no checkpoint.*remove"
    ):
        check_unfinished(tmp_path)
