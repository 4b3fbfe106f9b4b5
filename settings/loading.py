"""Read a workflow: a YAML file, and `section.key=value` overrides from the command line applied to it.

One error lists every invalid key, with what was expected and what was given.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from settings.expected import expected, section_in, settings_of, shown
from settings.section import ConfigError, Section

Config = TypeVar("Config", bound=Section)


def load_workflow(workflow: Path, overrides: list[str], kind: type[Config]) -> Config:
    """Read a workflow file and apply `section.key=value` overrides.

    Args:
        workflow: a YAML file.
        overrides: applied in order.
        kind: the class of the configuration.

    Raises:
        ConfigError: the file cannot be read, or keys or values are invalid; all of them are listed.
    """
    tree = read_workflow(workflow)
    _check_is_for_this_command(tree, workflow, kind)
    for override in overrides:
        _apply(tree, override, kind)
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_readable(error, tree, workflow, kind)) from error


def read_workflow(workflow: Path) -> dict[str, Any]:
    """The sections of a workflow file, not validated yet.

    Raises:
        ConfigError: the file cannot be read, or is not a mapping of sections.
    """
    try:
        tree = yaml.safe_load(workflow.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the workflow {workflow}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{workflow} is not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{workflow} is not a mapping of sections. See the directory workflows for examples"
        )
    return tree


def _check_is_for_this_command(tree: dict[str, Any], workflow: Path, kind: type[Section]) -> None:
    """A file with mostly unknown keys belongs to another command, so the message does not list every key."""
    unknown = [str(name) for name in tree if name not in kind.model_fields]
    if len(unknown) > 1 and 2 * len(unknown) > len(tree):
        raise ConfigError(
            f"{workflow} is for another command: unknown sections {', '.join(unknown)}; known sections are "
            f"{', '.join(kind.model_fields)}. See {kind.shipped} for examples"
        )


def _apply(tree: dict[str, Any], override: str, kind: type[Section]) -> None:
    name, equals, text = override.partition("=")
    if not equals or not name:
        field = _field(kind, name)
        if field is not None:
            raise ConfigError(
                f"{name!r} has no value; expected {name}=VALUE, where VALUE is {expected(field, name)}"
            )
        raise ConfigError(
            f"{override!r} is not an override; expected section.key=value, such as {kind.example}"
        )
    *sections, key = name.split(".")
    for section in sections:
        branch = tree.get(section)
        if branch is None:  # missing, or a section without a line in it
            branch = tree[section] = {}
        if not isinstance(branch, dict):
            raise ConfigError(f"{override!r}: {section} is a value, not a section")
        tree = branch
    try:
        tree[key] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{override!r}: the value is not YAML: {error}") from error


def _readable(error: ValidationError, tree: dict[str, Any], workflow: Path, kind: type[Section]) -> str:
    messages: dict[str, str] = {}
    for fault in error.errors():
        section, key = _place(kind, fault["loc"])
        if fault["type"] == "extra_forbidden":
            meant = _meant(kind, key)
            guess = f"did you mean {meant}?" if meant else f"known are {', '.join(section.model_fields)}"
            what = f"no such key; {guess}"
        elif fault["type"] == "missing" and _field_of(kind, fault["loc"]):
            what = f"not set; give it in the file or as {_example(kind, key)}"
        elif fault["type"] == "value_error":
            key, what = _our_own(fault["msg"].removeprefix("Value error, "), key, section)
            if not isinstance(fault["input"], dict | BaseModel):
                what = f"{what} (given: {fault['input']!r})"
        else:
            field = _field(kind, key)
            requirement = fault["msg"] if field is None else f"expected {expected(field, key)}"
            what = f"{requirement} (given: {shown(_value(tree, key))})"
        # A key with a union type has one error per member, all with this text.
        messages.setdefault(key, what)
    lines = [f"  {key + ': ' if key else ''}{what}" for key, what in messages.items()]
    return "\n".join([f"the configuration ({workflow} and the overrides) is invalid:", *lines])


def _our_own(message: str, key: str, section: type[BaseModel]) -> tuple[str, str]:
    """Key and text of a message from a section's own validator, which begins with the key, relative or full."""
    about, colon, rest = message.partition(": ")
    if colon and (about == key or about.startswith(f"{key}.") or not key):
        return about, rest
    if colon and about in section.model_fields:
        return f"{key}.{about}", rest
    return key, message


def _field(kind: type[Section], key: str) -> FieldInfo | None:
    """The field that a full key such as `run.per_process` sets; None when there is no such key."""
    section: type[BaseModel] | None = kind
    field = None
    for name in key.split("."):
        if section is None or name not in section.model_fields:
            return None
        field = section.model_fields[name]
        section = section_in(field.annotation)
    return field


def _meant(kind: type[Section], wrong: str) -> str | None:
    """The closest known key: the same name in another section, or a similar spelling."""
    keys = list(_keys(kind))
    namesakes = [key for key in keys if key.endswith(f".{wrong}")]
    return next(iter(namesakes or get_close_matches(wrong, keys, n=1, cutoff=0.8)), None)


def _keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield prefix + name
        below = section_in(field.annotation)
        if below is not None:
            yield from _keys(below, f"{prefix}{name}.")


def _value(tree: dict[str, Any], key: str) -> Any:
    value: Any = tree
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _place(kind: type[Section], location: tuple[int | str, ...]) -> tuple[type[BaseModel], str]:
    """The innermost section of an error, and the key, without pydantic's names of union members."""
    section: type[BaseModel] = kind
    names: list[str] = []
    for part in map(str, location):
        names.append(part)
        field = section.model_fields.get(part)
        below = None if field is None else section_in(field.annotation)
        if below is None:
            break
        section = below
    return section, ".".join(names)


def _field_of(kind: type[Section], location: tuple[int | str, ...]) -> bool:
    """Whether an error is about a key as a whole, and not about a part of its value."""
    return _place(kind, location)[1] == ".".join(map(str, location))


def _example(kind: type[Section], key: str) -> str:
    """The overrides that set a missing key, or all required keys of a missing section."""
    section: type[BaseModel] = kind
    for name in key.split("."):
        below = section_in(section.model_fields[name].annotation)
        if below is None:
            return f"{key}=VALUE"
        section = below
    return settings_of(section, key)
