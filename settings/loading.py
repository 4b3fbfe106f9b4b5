"""Read a workflow: a YAML file, with `section.key=value` overrides from the command line laid over it.

Whatever is wrong is said in the user's words: which key, what was expected, what was given, all at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

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
        branch = tree.setdefault(section, {})
        if not isinstance(branch, dict):
            raise ConfigError(f"{override!r}: {section} is a value, not a section")
        tree = branch
    try:
        tree[key] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{override!r}: the value is not YAML: {error}") from error


def _readable(error: ValidationError, workflow: Path, kind: type[Section]) -> str:
    lines = [f"the configuration ({workflow} and the overrides) is refused:"]
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            lines.append(f"  {key}: no such key; {_known_keys(kind, fault['loc'])}")
        elif fault["type"] == "missing":
            lines.append(f"  {key}: not set; give it in the file or as {_example(kind, fault['loc'])}")
        else:
            given = "" if isinstance(fault["input"], dict | BaseModel) else f" (given: {fault['input']!r})"
            lines.append(f"  {key + ': ' if key else ''}{fault['msg'].removeprefix('Value error, ')}{given}")
    return "\n".join(lines)


def _known_keys(kind: type[Section], location: tuple[int | str, ...]) -> str:
    return "known are " + ", ".join(_section(kind, location[:-1]).model_fields)


def _example(kind: type[Section], location: tuple[int | str, ...]) -> str:
    """The overrides that would set a missing key, or all that a missing section must have."""
    key = ".".join(str(part) for part in location)
    section = _section(kind, location)
    if section is _section(kind, location[:-1]):
        return f"{key}=VALUE"
    needed = [name for name, field in section.model_fields.items() if field.is_required()]
    return " ".join(f"{key}.{name}=VALUE" for name in needed)


def _section(kind: type[Section], location: tuple[int | str, ...]) -> type[BaseModel]:
    """The innermost section that a place in the configuration belongs to."""
    section: type[BaseModel] = kind
    for part in location:
        annotation = section.model_fields[str(part)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        section = annotation
    return section
