"""Keys of identities, and the list of photographs: valid for any name of a directory or a file."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from pipeline.photos.outcomes import COLUMNS, PhotographOutcome, write_list
from pipeline.photos.records import Appearance
from shards.schema import Key, Reason

KEY: TypeAdapter[str] = TypeAdapter(Key)
NAMES = st.text(min_size=1, max_size=300)


@given(st.lists(NAMES, unique=True, min_size=2, max_size=6), st.integers(0, 10_000))
def test_keys_are_valid_and_differ_where_people_or_tracks_do(names: list[str], track: int) -> None:
    people = [Appearance(name, "a" * 20, name, 8) for name in names]
    people += [Appearance(f"{names[0]}/mirrored", "a" * 20, names[0], 8)]
    keys = [KEY.validate_python(person.key(number)) for person in people for number in (track, track + 1)]
    assert len(set(keys)) == len(keys)


def test_a_key_shows_the_name() -> None:
    assert Appearance("José Ñandú", "lfw", "José Ñandú", 8).key(3).startswith("lfw_Jose-Nandu_")


def test_every_photograph_is_one_line_whatever_the_texts_hold(tmp_path: Path) -> None:
    texts = ("plain", "tab\there", "two\nlines", "ä\u2028")
    given_ = [
        PhotographOutcome(person=text, name=text, frame=3, reason=Reason.UNREADABLE, detail=text)
        for text in texts
    ]
    given_ += [
        PhotographOutcome(person="p", name="n", frame=0, key="k"),
        PhotographOutcome(person="p", name="n", frame=1),
        PhotographOutcome(person="p", name="n", frame=2, reason=Reason.NO_FACE),
    ]
    write_list(tmp_path / "list.tsv", given_)
    header, *lines = (tmp_path / "list.tsv").read_text(encoding="utf-8").splitlines()
    assert header.split("\t") == list(COLUMNS)
    assert [len(line.split("\t")) for line in lines] == [len(COLUMNS)] * len(given_)
    assert [line.split("\t")[0] for line in lines] == ["failed"] * 4 + ["used", "spare", "rejected"]
    assert lines[1].split("\t")[3] == "tab\\there"
