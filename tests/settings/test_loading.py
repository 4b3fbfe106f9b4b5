"""A message names every error in a workflow, also in optional sections."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field, model_validator

from settings.loading import load_workflow
from settings.section import ConfigError, Section


class Cache(Section):
    folder: Path
    max_gb: float = 1.0


class Run(Section):
    threads: int = 1
    cache: Cache | None = None


class Whole(Section):
    example = "run.threads=4"

    inputs: int | tuple[int, int] = 3
    compile: bool = False
    side: Annotated[int, Field(ge=16, multiple_of=16)] = 16
    sha: Annotated[str, Field(pattern="^[0-9a-f]{4}$", description="4 hexadecimal digits")] | None = None
    run: Run = Run()

    @model_validator(mode="after")
    def _threads_do_for_the_inputs(self) -> Whole:
        if self.inputs == 9:
            raise ValueError(f"inputs: 9 is too many for {self.run.threads} threads")
        return self


def load(folder: Path, text: str, *overrides: str) -> Whole:
    workflow = folder / "workflow.yaml"
    workflow.write_text(text)
    return load_workflow(workflow, list(overrides), Whole)


def rejection(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, *overrides)
    return str(caught.value)


def test_an_unknown_key_of_an_optional_section_comes_with_the_keys_of_that_section(tmp_path: Path) -> None:
    message = rejection(tmp_path, "inputs: 3", "run.cache.folder=/c", "run.cache.size=5")
    assert "run.cache.size: no such key; known are folder, max_gb" in message


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("max_gb=5", "run.cache.max_gb"),
        ("run.cache.maxgb=5", "run.cache.max_gb"),
        ("ruhn.cache.max_gb=5", "run"),
    ],
)
def test_a_key_that_is_almost_right_is_answered_with_the_right_one(
    tmp_path: Path, given: str, meant: str
) -> None:
    message = rejection(tmp_path, "inputs: 3", "run.cache.folder=/c", given)
    assert f"no such key; did you mean {meant}?" in message


def test_a_missing_key_of_an_optional_section_comes_with_the_override_that_sets_it(tmp_path: Path) -> None:
    message = rejection(tmp_path, "inputs: 3", "run.cache.max_gb=5")
    assert "run.cache.folder: not set; give it in the file or as run.cache.folder=VALUE" in message


def test_a_key_of_several_kinds_is_named_once_with_what_each_kind_expects(tmp_path: Path) -> None:
    message = rejection(tmp_path, "inputs: many")
    assert message.count("inputs:") == 1
    assert "inputs: expected a whole number, or [A,B], each a whole number (given: 'many')" in message


def test_a_section_without_a_line_takes_overrides(tmp_path: Path) -> None:
    assert load(tmp_path, "run:\n", "run.threads=4").run.threads == 4


def test_a_switch_takes_yes_and_a_number_does_not(tmp_path: Path) -> None:
    assert load(tmp_path, "compile: yes").compile
    message = rejection(tmp_path, "inputs: 3", "run.threads=yes")
    assert "run.threads: expected a whole number (given: true (as YAML reads yes, no, on and off" in message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("compile=maybe", "compile: expected true or false (given: 'maybe')"),
        (
            "run.cache=5",
            "run.cache: expected a section, whose keys are set one by one: run.cache.folder=VALUE, or null",
        ),
        (
            "inputs=[1,2,3]",
            "inputs: expected a whole number, or [A,B], each a whole number (given: [1, 2, 3])",
        ),
        ("sha=abc", "sha: expected 4 hexadecimal digits, or null (given: 'abc')"),
        ("side=20", "side: expected a whole number that 16 divides, of at least 16 (given: 20)"),
        ("run.threads=", "run.threads: expected a whole number (given: nothing)"),
        ("inputs=9", "inputs: 9 is too many for 3 threads"),
    ],
)
def test_a_message_names_what_a_key_takes(tmp_path: Path, override: str, message: str) -> None:
    (line,) = rejection(tmp_path, "run: {threads: 3}", override).splitlines()[1:]
    assert line.startswith(f"  {message}")


def test_an_override_without_a_value_gives_an_example_of_this_workflow(tmp_path: Path) -> None:
    assert rejection(tmp_path, "inputs: 3", "treads") == (
        "'treads' is not an override; expected section.key=value, such as run.threads=4"
    )
    assert "where VALUE is a whole number" in rejection(tmp_path, "inputs: 3", "run.threads")


class Aliased(Section):
    earlier: Annotated[Annotated[int, Field(ge=1)] | None, Field(alias="from")] = None
    to: int = 3


class WithAlias(Section):
    example = "span.from=1"

    span: Aliased = Aliased()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("span.from=0", "span.from: expected a whole number of at least 1, or null (given: 0)"),
        ("span.from=yes", "span.from: expected a whole number of at least 1, or null (given: true"),
        ("span.earlier=1", "span.earlier: no such key; known are from, to"),
        ("span=1", "span: expected a section, whose keys are set one by one: span.from=VALUE (given: 1)"),
        ("spn.from=1", "spn: no such key; did you mean span?"),
    ],
)
def test_a_key_that_is_a_word_of_python_is_named_as_the_user_writes_it(
    tmp_path: Path, override: str, message: str
) -> None:
    workflow = tmp_path / "workflow.yaml"
    workflow.write_text("span: {from: 2}\n")
    assert load_workflow(workflow, [], WithAlias).span.earlier == 2
    assert load_workflow(workflow, ["span.from=5"], WithAlias).span.earlier == 5
    with pytest.raises(ConfigError) as caught:
        load_workflow(workflow, [override], WithAlias)
    assert message in str(caught.value)
