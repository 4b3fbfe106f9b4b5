"""The length of a sample in its shard is known, to the byte, from columns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from staged_videos import accepted, make_source

from pipeline.packing import measures
from pipeline.packing.shard import _sample, without_embedding
from pipeline.people.assign import Placement
from pipeline.sources.manifest import Video
from shards.canonical import compact_json, model_json
from shards.schema import Attribute, IdentityRecord, Split
from shards.write_shard import encode_sample

FACTS = st.fixed_dictionaries(
    {
        "origin": st.none() | st.text(max_size=12),
        "license": st.none() | st.text(max_size=12),
        "source_person": st.none() | st.text(max_size=12),
        "attributes": st.lists(
            st.builds(Attribute, name=st.text(min_size=1, max_size=5), value=st.text(max_size=9)), max_size=3
        ),
        "span_s": st.none() | st.tuples(st.floats(0, 1e3), st.floats(0, 1e22)),
    }
)
VECTOR = st.lists(st.floats(-1, 1), min_size=1, max_size=20)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Video:
    folder = make_source(tmp_path_factory.mktemp("clips"), {"größer.mp4": 9})
    return Video(
        video_id="ours/größer.mp4",
        source="ours",
        uri="größer.mp4",
        path=str(folder / "größer.mp4"),
        bytes=9,
        modified_ns=0,
    )


@given(facts=FACTS, vector=VECTOR, split=st.sampled_from(Split))
def test_the_length_of_a_sample_is_known_before_it_is_made(
    video: Video, facts: dict[str, object], vector: list[float], split: Split
) -> None:
    finished = accepted(video)
    outcome = finished.outcome.model_copy(update=facts)
    identity = finished.samples[0].identity.model_copy(update={"embedding": vector})
    staged = finished.samples[0].__class__(
        identity, finished.samples[0].jpegs, finished.samples[0].masks, finished.samples[0].landmarks
    )
    placement = Placement("person_0123456789ab", split)
    (row,) = measures.measured([staged]).to_pylist()
    shared = len(measures.of_video(outcome))
    own = len(measures.of_placement(placement.person_id, split))

    sample = _sample(staged, outcome, placement)
    for made, column in ((sample, "record_bytes"), (without_embedding(sample), "bare_record_bytes")):
        length = measures.joined_length(row[column], shared, own)
        assert length == len(model_json(made.record))
        assert row["files_bytes"] + measures.member_length(length) == encode_sample(made).length


def test_the_parts_of_a_record_are_all_of_its_fields_each_once(video: Video) -> None:
    finished = accepted(video)
    parts = [
        set(finished.samples[0].identity.model_dump(mode="json")),
        {"person_id", "split"},
        {"format_version", "video_id"} | set(measures.FromSource.model_fields),
    ]
    assert sum(map(len, parts)) == len(set[str]().union(*parts))
    assert set[str]().union(*parts) == set(IdentityRecord.model_fields)
    assert measures.joined_length(len(compact_json({"a": 1})), len(compact_json({"b": 2}))) == len(
        compact_json({"a": 1, "b": 2})
    )
