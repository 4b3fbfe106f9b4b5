"""The columnar summary: whatever parts come, its rows are complete and sorted by key."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.people.summary import SUMMARY, Collector, embeddings, sorted_by_key
from tests.pipeline.people.identity_rows import identity


@given(st.permutations(range(12)), st.lists(st.integers(1, 11), max_size=4))
def test_rows_come_sorted_with_their_own_vectors_whatever_parts_they_came_in(
    order: list[int], cuts: list[int]
) -> None:
    vectors = np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)
    rows = [identity(f"key-{number:02}", embedding=vectors[number].tolist()) for number in order]
    collector = Collector()
    bounds = [0, *sorted(cuts), 12]
    for start, stop in pairwise(bounds):
        collector.add(pa.Table.from_pylist(rows[start:stop], SUMMARY))
    table = collector.summary()
    assert table.schema == SUMMARY
    assert table.equals(pa.Table.from_pylist(sorted(rows, key=lambda row: row["key"]), SUMMARY))
    assert table.column("embedding").num_chunks == 1


def test_no_identities_are_an_empty_summary() -> None:
    table = Collector().summary()
    assert (len(table), table.schema) == (0, SUMMARY)
    assert embeddings(table).shape == (0, 1)


def test_vectors_of_different_lengths_are_kept_and_cannot_be_compared() -> None:
    collector = Collector()
    for key, length in (("b", 3), ("a", 4)):
        collector.add(pa.Table.from_pylist([identity(key, embedding=[1.0] * length)], SUMMARY))
    table = collector.summary()
    assert [len(vector) for vector in table["embedding"].to_pylist()] == [4, 3]
    with pytest.raises(ValueError, match=r"embeddings of \[3, 4\] dimensions cannot be compared"):
        embeddings(table)


def test_a_sorted_summary_is_not_copied() -> None:
    rows = [identity(name) for name in "abc"]
    table = pa.Table.from_pylist(rows, SUMMARY)
    assert sorted_by_key(table) is table
    assert sorted_by_key(table.take([2, 0, 1])).equals(table)
