"""Read a workflow: a YAML file, with `section.key=value` overrides from the command line laid over it.

Whatever is wrong is said in the user's words: which key, what was expected, what was given, all at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from settings.section import ConfigError, Section

Config = TypeVar("Config", bound=Section)


def load_workflow(workflow: Path, overrides: list[str], kind: type[Config]) -> Config:
    """Read a workflow file and apply `section.key=value` overrides.

    Args:
        workflow: a YAML file.
        overrides: laid over it in order.
        kind: the configuration that the workflow fills.

    Raises:
        ConfigError: the file cannot be read, or a key or value is refused; every fault is named at once.
    """
    try:
        tree = yaml.safe_load(workflow.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the workflow {workflow}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{workflow} is not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{workflow} holds no sections; see the folder workflows for examples")
    for override in overrides:
        _apply(tree, override)
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_readable(error, workflow, kind)) from error


def _apply(tree: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise ConfigError(
            f"{override!r} is no override; expected section.key=value, such as faces.min_px=160"
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


def _readable(error: ValidationError, workflow: Path, kind: type[Section]) -> str:
    said: dict[str, list[str]] = {}
    for fault in error.errors():
        section, key = _place(kind, fault["loc"])
        if fault["type"] == "extra_forbidden":
            what = f"no such key; known are {', '.join(section.model_fields)}"
        elif fault["type"] == "missing" and _field_of(kind, fault["loc"]):
            what = f"not set; give it in the file or as {_example(kind, key)}"
        else:
            given = "" if isinstance(fault["input"], dict | BaseModel) else f" (given: {fault['input']!r})"
            what = f"{fault['msg'].removeprefix('Value error, ')}{given}"
        # A key that may be of several kinds has a fault for each of them.
        if what not in said.setdefault(key, []):
            said[key].append(what)
    lines = [f"  {key + ': ' if key else ''}{', or: '.join(what)}" for key, what in said.items()]
    return "\n".join([f"the configuration ({workflow} and the overrides) is refused:", *lines])


def _place(kind: type[Section], location: tuple[int | str, ...]) -> tuple[type[BaseModel], str]:
    """The innermost section that a fault lies in, and the key, without pydantic's names of kinds in a union."""
    section: type[BaseModel] = kind
    names: list[str] = []
    for part in map(str, location):
        names.append(part)
        field = section.model_fields.get(part)
        below = None if field is None else _section_in(field.annotation)
        if below is None:
            break
        section = below
    return section, ".".join(names)


def _field_of(kind: type[Section], location: tuple[int | str, ...]) -> bool:
    """Whether a fault is about a key as a whole, and not about a part of its value."""
    return _place(kind, location)[1] == ".".join(map(str, location))


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The section that a key holds, also where it may be left out (`Section | None`)."""
    kinds = get_args(annotation) or (annotation,)
    sections = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return sections[0] if sections else None


def _example(kind: type[Section], key: str) -> str:
    """The overrides that would set a missing key, or all that a missing section must have."""
    section: type[BaseModel] = kind
    for name in key.split("."):
        below = _section_in(section.model_fields[name].annotation)
        if below is None:
            return f"{key}=VALUE"
        section = below
    needed = [name for name, field in section.model_fields.items() if field.is_required()]
    return " ".join(f"{key}.{name}=VALUE" for name in needed)
