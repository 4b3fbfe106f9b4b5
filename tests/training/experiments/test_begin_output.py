"""The output of the small programs: new, empty, or of an interrupted start of the same command."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.errors import TrainingError
from training.experiments.options import begin_output

FILES = ("picture.png", "weights.safetensors")


def test_a_new_directory_is_made_and_an_empty_one_is_taken(tmp_path: Path) -> None:
    output = tmp_path / "a" / "b"
    assert begin_output(output, FILES, continues=False)
    assert output.is_dir()
    assert begin_output(output, FILES, continues=False)


@pytest.mark.parametrize("left", ["picture.png", f".weights.safetensors.tmp-{'0a' * 8}"])
def test_what_an_interrupted_start_left_is_removed_by_continue_alone(tmp_path: Path, left: str) -> None:
    (tmp_path / left).touch()
    with pytest.raises(TrainingError, match="exists and is not empty"):
        begin_output(tmp_path, FILES, continues=False)
    assert (tmp_path / left).exists()
    assert begin_output(tmp_path, FILES, continues=True)
    assert list(tmp_path.iterdir()) == []


def test_what_is_finished_stays_and_there_is_nothing_to_do(tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name).write_text("as it was")
    assert not begin_output(tmp_path, FILES, continues=True)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["as it was"] * 2
    with pytest.raises(TrainingError, match="exists and is not empty"):
        begin_output(tmp_path, FILES, continues=False)


def test_other_files_and_a_file_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").touch()
    (tmp_path / "thesis.tex").touch()
    for name in ("thesis.tex", ".netrc"):
        (tmp_path / name).touch()
        with pytest.raises(TrainingError, match="exists and is not empty"):
            begin_output(tmp_path, FILES, continues=True)
    assert len(list(tmp_path.iterdir())) == 3
    with pytest.raises(TrainingError, match="is a file"):
        begin_output(tmp_path / "thesis.tex", FILES, continues=True)
