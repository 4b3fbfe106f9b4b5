"""Read a workflow: a YAML file, and `section.key=value` overrides from the command line applied to it.

One error lists every invalid key, with what was expected and what was given.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from settings.expected import expected, fields_of, is_list, section_in, settings_of, shown
from settings.section import ConfigError, Section

Config = TypeVar("Config", bound=Section)


def load_workflow(workflow: Path | None, overrides: list[str], kind: type[Config]) -> Config:
    """Read a workflow file and apply `section.key=value` overrides.

    Args:
        workflow: a YAML file; None for the defaults of the class.
        overrides: applied in order.
        kind: the class of the configuration.

    Raises:
        ConfigError: the file cannot be read, or keys or values are invalid; all of them are listed.
    """
    tree: dict[str, Any] = {}
    if workflow is not None:
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
    unknown = [str(name) for name in tree if name not in fields_of(kind)]
    if len(unknown) > 1 and 2 * len(unknown) > len(tree):
        raise ConfigError(
            f"{workflow} is for another command: unknown sections {', '.join(unknown)}; known sections are "
            f"{', '.join(fields_of(kind))}. See {kind.shipped} for examples"
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
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{override!r}: the value is not YAML: {error}") from error
    *sections, key = name.split(".")
    branch: Any = tree
    for section in sections:
        if isinstance(branch, list):
            branch = branch[_entry(branch, section, override)]
        else:
            if branch.get(section) is None:  # missing, or a section without a line in it
                branch[section] = {}
            branch = branch[section]
        if not isinstance(branch, dict | list):
            raise ConfigError(f"{override!r}: {section} is a value, not a section")
    if isinstance(branch, dict):
        branch[key] = value
    elif value is None:
        del branch[_entry(branch, key, override)]
    else:
        branch[_entry(branch, key, override)] = value


def _entry(entries: list[Any], name: str, override: str) -> int:
    """Place of the entry of a list that a name stands for."""
    names = [_name_of(entry, number) for number, entry in enumerate(entries)]
    if name not in names:
        raise ConfigError(f"{override!r}: no entry {name!r}; there are {', '.join(names)}")
    return names.index(name)


def _name_of(entry: Any, number: int) -> str:
    """What an entry of a list is called in keys: its name, or kind, or number."""
    named = entry if isinstance(entry, dict) else {}
    return str(named.get("name") or named.get("kind") or number)


def _readable(
    error: ValidationError, tree: dict[str, Any], workflow: Path | None, kind: type[Section]
) -> str:
    messages: dict[str, str] = {}
    for fault in error.errors():
        section, key = _place(kind, _by_name(fault["loc"], tree))
        if fault["type"] == "extra_forbidden":
            meant = _meant(kind, key)
            guess = f"did you mean {meant}?" if meant else f"known are {', '.join(fields_of(section))}"
            what = f"no such key; {guess}"
        elif fault["type"] == "missing" and _field_of(kind, _by_name(fault["loc"], tree)):
            what = f"not set; give it in the file or as {_example(kind, key)}"
        elif fault["type"] == "value_error":
            key, what = _our_own(fault["msg"].removeprefix("Value error, "), key, section)
            if not isinstance(fault["input"], dict | BaseModel):
                what = f"{what} (given: {shown(fault['input'])})"
        else:
            field = _field(kind, key)
            requirement = fault["msg"] if field is None else f"expected {expected(field, key)}"
            what = f"{requirement} (given: {shown(_value(tree, key))})"
        # A key with a union type has one error per member, all with this text.
        messages.setdefault(key, what)
    lines = [f"  {key + ': ' if key else ''}{what}" for key, what in messages.items()]
    given = "the overrides" if workflow is None else f"{workflow} and the overrides"
    return "\n".join([f"the configuration ({given}) is invalid:", *lines])


def _our_own(message: str, key: str, section: type[BaseModel]) -> tuple[str, str]:
    """Key and text of a message from a section's own validator, which begins with the key, relative or full."""
    about, colon, rest = message.partition(": ")
    if colon and (about == key or about.startswith(f"{key}.") or not key):
        return about, rest
    if colon and about in fields_of(section):
        return f"{key}.{about}", rest
    return key, message


def _field(kind: type[Section], key: str) -> FieldInfo | None:
    """The field that a full key such as `run.per_process` sets; None when there is no such key."""
    section: type[BaseModel] | None = kind
    field = None
    names = iter(key.split("."))
    for name in names:
        if section is None or name not in fields_of(section):
            return None
        field = fields_of(section)[name]
        section = section_in(field.annotation)
        if is_list(field.annotation):
            next(names, None)
    return field


def _meant(kind: type[Section], wrong: str) -> str | None:
    """The closest known key: the same name in another section, or a similar spelling."""
    keys = list(_keys(kind))
    namesakes = [key for key in keys if key.endswith(f".{wrong}")]
    return next(iter(namesakes or get_close_matches(wrong, keys, n=1, cutoff=0.8)), None)


def _keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in fields_of(section).items():
        yield prefix + name
        below = section_in(field.annotation)
        if below is not None:
            yield from _keys(below, f"{prefix}{name}.")


def _value(tree: dict[str, Any], key: str) -> Any:
    value: Any = tree
    for name in key.split("."):
        if isinstance(value, list):
            value = {_name_of(entry, number): entry for number, entry in enumerate(value)}
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _by_name(location: tuple[int | str, ...], tree: Any) -> tuple[int | str, ...]:
    """The place of an error, with the names of list entries instead of their numbers."""
    named: list[int | str] = []
    for part in location:
        if isinstance(part, int) and isinstance(tree, list):
            named.append(_name_of(tree[part], part))
            tree = tree[part]
        else:
            named.append(part)
            tree = tree.get(part) if isinstance(tree, dict) else None
    return tuple(named)


def _place(kind: type[Section], location: tuple[int | str, ...]) -> tuple[type[BaseModel], str]:
    """The innermost section of an error, and the key, without pydantic's names of union members."""
    section: type[BaseModel] = kind
    names: list[str] = []
    parts = iter(map(str, location))
    for part in parts:
        names.append(part)
        field = fields_of(section).get(part)
        below = None if field is None else section_in(field.annotation)
        if field is None or below is None:
            break
        section = below
        if is_list(field.annotation):
            names += islice(parts, 1)
    return section, ".".join(names)


def _field_of(kind: type[Section], location: tuple[int | str, ...]) -> bool:
    """Whether an error is about a key as a whole, and not about a part of its value."""
    return _place(kind, location)[1] == ".".join(map(str, location))


def _example(kind: type[Section], key: str) -> str:
    """The overrides that set a missing key, or all required keys of a missing section."""
    field = _field(kind, key)
    section = None if field is None else section_in(field.annotation)
    return f"{key}=VALUE" if section is None else settings_of(section, key)
