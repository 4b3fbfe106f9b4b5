"""The base of all configuration sections: immutable, and closed to unknown keys."""

from __future__ import annotations

from typing import Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError, to_jsonable_python


class ConfigError(ValueError):
    """The configuration cannot be used; the message names the key and the expected value."""


class Section(BaseModel):
    """Base of all sections: immutable; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    example: ClassVar[str] = "section.key=3"
    """An example override, for messages about malformed ones."""
    shipped: ClassVar[str] = "the directory workflows"
    """Where to find workflows of this class."""

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_values(cls, value: object, info: ValidationInfo) -> object:
        # Otherwise YAML's yes, no, on and off would count as 1 and 0 where a number is expected.
        annotation = cls.model_fields[info.field_name].annotation if info.field_name is not None else None
        if isinstance(value, bool) and bool not in (annotation, *get_args(annotation)):
            raise PydanticCustomError("truth_value", "expected a number or a text")
        return value


def completed(old: dict[str, Any], new: dict[str, Any], section: Section) -> dict[str, Any]:
    """An older configuration with the defaults of keys that only the new one has: they did not exist then.

    Args:
        old: values of the older one, in JSON's types.
        new: values of the new one.
        section: the new one.
    """
    found = dict(old)
    for key, value in new.items():
        before, field = old.get(key), type(section).model_fields.get(key)
        inner = getattr(section, key, None)
        if key not in old and field is not None and not field.is_required():
            found[key] = to_jsonable_python(field.get_default(call_default_factory=True))
        elif isinstance(before, dict) and isinstance(value, dict) and isinstance(inner, Section):
            found[key] = completed(before, value, inner)
    return found


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """The keys in which two configurations differ, as lines `key: old -> new`."""
    lines: list[str] = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key}: {before} -> {after}")
    return lines
