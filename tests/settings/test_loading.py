"""What is wrong with a workflow is said in the user's words, also in sections that may be left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from settings.loading import load_workflow
from settings.section import ConfigError, Section


class Cache(Section):
    folder: Path
    max_gb: float = 1.0


class Run(Section):
    threads: int = 1
    cache: Cache | None = None


class Whole(Section):
    inputs: int | tuple[int, int] = 3
    compile: bool = False
    run: Run = Run()


def load(folder: Path, text: str, *overrides: str) -> Whole:
    workflow = folder / "workflow.yaml"
    workflow.write_text(text)
    return load_workflow(workflow, list(overrides), Whole)


def refusal(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, *overrides)
    return str(caught.value)


def test_an_unknown_key_of_an_optional_section_comes_with_the_keys_of_that_section(tmp_path: Path) -> None:
    said = refusal(tmp_path, "inputs: 3", "run.cache.folder=/c", "run.cache.size=5")
    assert "run.cache.size: no such key; known are folder, max_gb" in said


def test_a_missing_key_of_an_optional_section_comes_with_the_override_that_sets_it(tmp_path: Path) -> None:
    said = refusal(tmp_path, "inputs: 3", "run.cache.max_gb=5")
    assert "run.cache.folder: not set; give it in the file or as run.cache.folder=VALUE" in said


def test_a_key_of_several_kinds_is_named_once_with_what_each_kind_expects(tmp_path: Path) -> None:
    said = refusal(tmp_path, "inputs: many")
    assert said.count("inputs:") == 1
    assert "valid integer" in said
    assert "valid tuple" in said


def test_a_section_without_a_line_takes_overrides(tmp_path: Path) -> None:
    assert load(tmp_path, "run:\n", "run.threads=4").run.threads == 4


def test_a_switch_takes_yes_and_a_number_does_not(tmp_path: Path) -> None:
    assert load(tmp_path, "compile: yes").compile
    assert "run.threads: a number or a text is expected, not yes or no" in refusal(
        tmp_path, "inputs: 3", "run.threads=yes"
    )
