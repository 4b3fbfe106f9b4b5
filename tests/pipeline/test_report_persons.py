"""The report's section on persons: counts, the largest persons, and the pairs nearest to the threshold."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import report_factory as factory
from hypothesis import given
from hypothesis import strategies as st
from test_report_page import Elements

from pipeline.people import findings
from pipeline.people.findings import Pair
from pipeline.report import person_sheets, persons
from pipeline.report.build import write_report
from pipeline.report.contact_sheet import LONGEST_OUTLINE, mask_outline
from pipeline.report.damage import damage
from pipeline.report.hashed import hashes
from pipeline.report.persons import Persons
from shards.erase import erase
from shards.metadata import DatasetError
from shards.reader import Dataset
from shards.schema import Split

SOURCES = ("vfhq", "hq", "text")
Identity = tuple[str, int, bool]


def people(identities: list[Identity]) -> Persons:
    return Persons(
        person=persons.numbered(hashes([person for person, _, _ in identities])),
        source=np.array([source for _, source, _ in identities], np.int32),
        test=np.array([test for _, _, test in identities], bool),
        sources=SOURCES,
    )


identity_lists = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.integers(0, len(SOURCES) - 1), st.booleans()), max_size=60
)


@given(identity_lists)
def test_every_identity_and_person_is_counted_once_in_each_table(identities: list[Identity]) -> None:
    found = people(identities)
    counts = Counter(person for person, _, _ in identities)
    sizes = persons.by_size(found)
    assert sum(row.persons for row in sizes) == len(counts)
    assert sum(row.identities for row in sizes) == len(identities)
    for row in sizes:
        assert row.persons == sum(
            1 for n in counts.values() if row.least <= n and (row.most is None or n <= row.most)
        )
    splits, in_both = persons.by_split(found)
    of_split = {
        split: {person for person, _, test in identities if test == (split is Split.TEST)} for split in Split
    }
    assert {row.split: row.persons for row in splits} == {s: len(who) for s, who in of_split.items()}
    assert sum(row.identities for row in splits) == len(identities)
    assert in_both == len(of_split[Split.TRAIN] & of_split[Split.TEST])


@given(identity_lists)
def test_persons_of_several_sources_are_grouped_by_their_sources(identities: list[Identity]) -> None:
    sources: defaultdict[str, set[str]] = defaultdict(set)
    for person, source, _ in identities:
        sources[person].add(SOURCES[source])
    found = people(identities)
    several = Counter(tuple(sorted(names)) for names in sources.values() if len(names) > 1)
    rows = persons.combinations(found)
    assert {row.sources: row.persons for row in rows} == several
    assert [row.persons for row in rows] == sorted((row.persons for row in rows), reverse=True)
    assert sum(row.identities for row in rows) == sum(len(sources[person]) > 1 for person, _, _ in identities)
    of_source = {name: sum(name in names for names in sources.values()) for name in SOURCES}
    assert persons.by_source(found) == of_source


@given(identity_lists, st.integers(1, 4), st.integers(1, 5))
def test_the_largest_persons_show_identities_of_their_own(
    identities: list[Identity], count: int, shown: int
) -> None:
    groups = persons.largest(people(identities), count, shown)
    counts = Counter(person for person, _, _ in identities)
    expected = sorted((n for n in counts.values() if n > 1), reverse=True)[:count]
    assert [group.identities for group in groups] == expected
    for group in groups:
        assert len(group.shown) == min(shown, group.identities)
        assert len({identities[number][0] for number in group.shown}) == 1
        assert group.shown == sorted(set(group.shown))
        assert sum(group.sources.values()) == group.identities


def test_a_long_group_is_shown_from_its_first_to_its_last_identity() -> None:
    (group,) = persons.largest(people([("a", 0, False)] * 101), 8, 5)
    assert group.shown == [0, 25, 50, 75, 100]
    assert group.splits == [Split.TRAIN]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    factory.build(tmp_path)
    factory.keep_findings(tmp_path)
    return tmp_path


def section(root: Path) -> str:
    """The text of the section."""
    html = write_report(root).read_text(encoding="utf-8")
    found = re.search(r'<section id="persons">.*?</section>', html, re.DOTALL)
    assert found is not None
    return Elements(found[0]).text


def test_persons_are_shown_by_size_split_and_source(root: Path) -> None:
    text = section(root)
    assert "11 persons have 12 identities." in text
    assert "1 10 90.9% 10 2 1 9.1% 2" in text
    assert "train 10 11 test 1 1" in text
    assert "No person occurs in several sources." in text
    assert "1 of 1 person with several identities, the largest first." in text
    assert "person_001 · 2 identities · train · 2 from celebv-hq" in text
    assert "key_001 celebv-hq" in text


def test_the_key_figure_tells_how_many_persons_have_several_identities(root: Path) -> None:
    text = Elements(write_report(root).read_text(encoding="utf-8")).text
    assert "persons 11 1 with several identities" in text


def test_pairs_stand_beside_the_threshold_that_they_are_to_judge(root: Path) -> None:
    text = section(root)
    assert "Pairs nearest to the threshold, cosine 0.500 by arcface_r50" in text
    assert (
        "If pairs that are not linked show one person, lower people.link_cosine ; if a linked pair shows two "
        "people, raise it." in text
    )
    linked, rest = text.split("Linked as one person")[1].split("Not linked")
    apart, refused = rest.split("Above the threshold, but not linked")
    assert "cosine 0.610 key_006" in refused
    assert "cosine 0.512 key_001 celebv-hq · person_001 key_002 celebv-hq · person_001" in linked
    assert "cosine 0.499 key_003 vfhq · person_003 key_004 celebv-hq · person_004" in apart
    assert "key_gone" not in text
    assert "cosine 0.360 one origin: threshold 0.350 key_008" in linked
    assert "Two of one origin need 0.350." in text
    assert "vfhq: 3 groups do not fit the split." in text
    assert damage(root) == [], "a pair whose sample is gone is no damage"


def test_what_was_erased_is_not_named(root: Path) -> None:
    factory.keep_findings(root, ["a note on key_002"])
    erase(root, {"key_002"}, "withdrawn")
    text = section(root)
    assert "key_002" not in text
    assert "Linked as one person" in text
    assert "Every person has one identity." in text


def test_without_findings_a_sentence_stands_for_the_pairs(tmp_path: Path) -> None:
    factory.build(tmp_path)
    text = section(tmp_path)
    assert "Not known: there is no report/people.json , which a build writes." in text
    assert "11 persons have 12 identities." in text


def test_damaged_findings_are_an_error_that_says_what_to_do(root: Path) -> None:
    (root / "report" / findings.FILE).write_text("{}")
    with pytest.raises(DatasetError, match=r"(?s)people\.json is damaged: .* its part is left out"):
        write_report(root)


def test_many_notes_are_capped_and_hostile_ones_are_text(root: Path) -> None:
    factory.keep_findings(root, [factory.HOSTILE, "a" * 1001, *(f"note {n}" for n in range(100))])
    text = section(root)
    assert factory.HOSTILE in text
    assert "a" * 1000 + " …" in text
    assert "a" * 1001 not in text
    assert text.count("note ") == person_sheets.SHOWN_NOTES - 2
    assert "52 more notes are in report/people.json" in text


def test_a_damaged_sample_of_a_pair_is_named_and_reported_as_damage(root: Path) -> None:
    place = Dataset.open(root).locate("key_003")
    shard = root / place.shard
    data = bytearray(shard.read_bytes())
    data[place.members["0.jpg"][0] + 1000] ^= 1
    shard.write_bytes(data)
    assert "key_003 could not be read: train/" in section(root)
    assert any("member key_003.0.jpg is damaged" in error for error in damage(root))


def test_three_images_of_a_pair_are_turned_left_frontal_and_turned_right(root: Path) -> None:
    for sample in Dataset.open(root).samples():
        yaws = [image.pose.yaw for image in sample.record.images]
        left, middle, right = (yaws[place] for place in person_sheets.turned(sample))
        assert left == min(yaws) < middle < right == max(yaws)


def test_a_mask_in_a_thousand_pieces_does_not_fill_the_page() -> None:
    import io

    from PIL import Image

    dust = (
        np.kron(np.random.default_rng(0).integers(0, 2, (40, 40)), np.ones((12, 12))).astype(np.uint8) * 255
    )
    mask = np.zeros((512, 512), np.uint8)
    mask[:480, :480] = dust
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    assert len(mask_outline(file.getvalue())) <= LONGEST_OUTLINE


def test_persons_in_both_splits_are_a_warning(root: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = root / Dataset.open(root).metadata.table("images")
    table = pq.read_table(path)
    same = pa.array(["person_000"] * len(table), table.schema.field("person_id").type)
    column = table.schema.get_field_index("person_id")
    pq.write_table(table.set_column(column, table.schema.field("person_id"), same), path)
    text = section(root)
    assert "1 person is in both splits." in text
    assert "12 identities · train and test ·" in text
    assert "celebv-hq + vfhq 1 12" in text


def test_more_pairs_than_linking_keeps_are_not_shown(root: Path) -> None:
    many = [Pair(first="key_003", second="key_004", cosine=0.4, least_cosine=0.5)] * 100
    found = factory.keep_findings(root).model_copy(update={"apart": many})
    findings.write_findings(root / "report" / findings.FILE, found)
    assert section(root).count("cosine 0.400") == findings.SHOWN_PAIRS
