"""The values that a config key accepts, as text derived from its type and limits, so that the text stays true."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from storage.path import ObjectPath

_PLAIN: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    ObjectPath: "a URL such as s3://bucket/prefix",
    NoneType: "null",
}


def expected(field: FieldInfo, key: str) -> str:
    """The values that a key accepts, as text.

    Args:
        field: that the key sets.
        key: its full name, for examples.
    """
    return _describe(field.annotation, field.metadata, field.description, key)


def shown(value: object) -> str:
    """A value as the user wrote it in YAML, not as Python's repr."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"{str(value).lower()} (as YAML reads yes, no, on and off; put quotes around the word itself)"
    if isinstance(value, str) and "://" in value and set(value) & set("@?"):
        return "a URL that is not repeated, because it may hold a secret"
    return repr(value)


def section_in(annotation: Any) -> type[BaseModel] | None:
    """The section class that a key holds, also when it is optional (`Section | None`)."""
    kinds = get_args(annotation) or (annotation,)
    sections = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return sections[0] if sections else None


def is_list(annotation: Any) -> bool:
    """Whether a key holds a list of any length."""
    return get_origin(annotation) is tuple and get_args(annotation)[-1] is Ellipsis


def fields_of(section: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a section by key: a key that is a word of Python, such as `from`, is its field's alias."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def settings_of(section: type[BaseModel], key: str) -> str:
    """The overrides that set a section: all required keys, or else its first key."""
    fields = fields_of(section)
    needed = [name for name, field in fields.items() if field.is_required()] or list(fields)[:1]
    return " ".join(f"{key}.{name}=VALUE" for name in needed)


def _describe(kind: Any, limits: Iterable[Any], described: str | None, key: str) -> str:
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        descriptions = [
            part.description for part in parts[1:] if isinstance(part, FieldInfo) and part.description
        ]
        text = _describe(parts[0], [*_flat(parts[1:]), *limits], next(iter(descriptions), described), key)
    elif origin in {Union, UnionType}:
        text = ", or ".join(_describe(part, (), described, key) for part in parts)
    elif origin is Literal:
        *first, last = map(str, parts)
        text = f"{', '.join(first)} or {last}" if first else last
    elif is_list(kind):
        text = f"a list [A,B,…], each {_describe(parts[0], (), None, key)}"
    elif origin is tuple:
        letters = ",".join("ABCDEFGH"[: len(parts)])
        text = f"[{letters}], each {_describe(parts[0], (), None, key)}"
    elif section := section_in(kind):
        text = f"a section, whose keys are set one by one: {settings_of(section, key)}"
    elif kind is str and described:
        text = described
    else:
        text = " ".join([_PLAIN.get(kind, "another value"), *_limits(limits)])
    return text


def _limits(limits: Iterable[Any]) -> Iterator[str]:
    bounds = {
        name: getattr(limit, name)
        for limit in limits
        for name in ("gt", "ge", "lt", "le", "multiple_of")
        if getattr(limit, name, None) is not None
    }
    if "multiple_of" in bounds:
        yield f"that {bounds['multiple_of']} divides,"
    if "ge" in bounds and "le" in bounds:
        yield f"from {bounds['ge']} to {bounds['le']}"
        return
    phrases = {"gt": "above", "ge": "of at least", "lt": "below", "le": "up to"}
    found = [f"{phrases[name]} {bounds[name]}" for name in phrases if name in bounds]
    if found:
        yield " and ".join(found)


def _flat(parts: Iterable[Any]) -> Iterator[Any]:
    for part in parts:
        if isinstance(part, FieldInfo):
            yield from part.metadata
        else:
            yield part
