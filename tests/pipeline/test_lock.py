"""Two builds never write to one folder at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import BuildError
from pipeline.lock import output_lock


def test_a_second_build_of_the_same_folder_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    output = tmp_path / "mfhq"
    with (
        output_lock(output),
        pytest.raises(BuildError, match="another build is writing"),
        output_lock(output),
    ):
        pass
    with output_lock(output):
        pass
    assert list(tmp_path.iterdir()) == []


def test_builds_of_different_folders_do_not_wait_for_each_other(tmp_path: Path) -> None:
    with output_lock(tmp_path / "one"), output_lock(tmp_path / "two"):
        pass


def test_a_build_that_fails_lets_go(tmp_path: Path) -> None:
    with pytest.raises(KeyError), output_lock(tmp_path / "mfhq"):
        raise KeyError
    with output_lock(tmp_path / "mfhq"):
        pass


def test_an_output_below_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError, match="file"), output_lock(tmp_path / "file" / "mfhq"):
        pass
