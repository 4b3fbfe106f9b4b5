"""JSON is read member by member as `json.loads` reads it, wherever a piece of the file ends."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources.annotations import json_reader
from pipeline.sources.annotations.json_reader import JsonReader

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def read(text: str) -> dict[str, Any]:
    reader = JsonReader(io.StringIO(text))
    content = {name: reader.value() for name in reader.members()}
    reader.end()
    return content


@given(
    st.dictionaries(st.text(max_size=3), VALUES, max_size=4),
    st.sampled_from([None, 2]),
    st.booleans(),
    st.integers(1, 9),
)
def test_members_are_those_that_the_whole_text_has(
    content: dict[str, Any], indent: int | None, ascii_only: bool, piece: int
) -> None:
    text = json.dumps(content, indent=indent, ensure_ascii=ascii_only)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_reader, "PIECE", piece)
        assert read(text) == content


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting '{': character 0"),
        ("[1]", "Expecting '{': character 0"),
        ('{"a": 1', "Expecting '}': character 7"),
        ('{"a": 1,}', "Expecting property name enclosed in double quotes: character 8"),
        ('{"a" 1}', "Expecting ':': character 5"),
        ('{"a": }', "Expecting value: character 6"),
        ('{"a": [1, 2}', "Expecting ',' delimiter: character 11"),
        ('{"a": 1} x', "Extra data: character 9"),
        ('{"a": "', "Unterminated string starting at: character 6"),
    ],
)
@pytest.mark.parametrize("piece", [3, 1000])
def test_what_is_not_json_is_an_error_at_its_place(
    text: str, message: str, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_reader, "PIECE", piece)
    with pytest.raises(ValueError, match=message.replace("[", r"\[")) as caught:
        read(text)
    assert str(caught.value) == message
