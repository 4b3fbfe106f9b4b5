"""The canonical form is the same however a text is read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shards.canonical import compact_json, parse_json

NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(-1.0, 1.0).map(lambda value: round(value, 6)),
    st.integers(-(2**66), 2**66),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4)),
    max_leaves=12,
)


@given(VALUES)
@example(1e-05)
@example([1e16, -1e-7, 1e22, 123456789012345680.0, 0.0001, -0.0, 5e-324])
@example({"a\x7f": "é\\", "e-": "3e+5,"})
@example([2**64, -(2**63) - 1])
@example(json.loads("[" * 300 + "]" * 300))
def test_every_compact_text_is_recognised(value: Any) -> None:
    assert parse_json(compact_json(value)) == (value, True)


@given(VALUES)
def test_another_spelling_is_not_compact(value: Any) -> None:
    for text in (
        json.dumps(value, ensure_ascii=False, separators=(",", ":")),
        json.dumps(value, sort_keys=True),
    ):
        data = text.encode("utf-8", errors="surrogatepass")
        canonical = data == compact_json(value)
        try:
            assert parse_json(data) == (value, canonical)
        except ValueError:
            assert any(0xD800 <= ord(c) < 0xE000 for c in text)  # lone surrogates are no JSON


@pytest.mark.parametrize(
    "text",
    [
        b'{"b":1,"a":2}',
        b'{"a":1,"a":1}',
        b"[0.00001]",
        b"[1e16]",
        b"[1.0e16]",
        b"[1e-05,1e-5]",
        b"[1.50]",
        b"[10000000000000000.0]",
        b"[1E+16]",
        b'["\\u00e9","\\/"]',
        '["é"]'.encode(),
        b'["\x7f"]',
        b"[-0]",
    ],
)
def test_these_spellings_are_judged_as_json_judges_them(text: bytes) -> None:
    assert parse_json(text)[1] == (compact_json(json.loads(text)) == text)


@pytest.mark.parametrize("text", [b"[NaN]", b"[Infinity]", b"[1", b"", b"\xff"])
def test_what_is_no_json_is_rejected(text: bytes) -> None:
    with pytest.raises(json.JSONDecodeError):
        parse_json(text)
