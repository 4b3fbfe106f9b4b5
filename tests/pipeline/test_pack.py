"""From finished videos to a dataset: whole, the same bytes every time, decided by all videos together."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from staged_videos import MODELS_USED, accepted, configured, make_source, rejected

from pipeline.errors import BuildError
from pipeline.pack import check_nothing_erased, pack
from pipeline.plan import BuildPlan, plan_build
from pipeline.progress import Reporter
from pipeline.provenance import LIBRARIES
from pipeline.report.build import write_report
from pipeline.sources.manifest import Manifest
from pipeline.stages.finalize import FinalizedVideo
from shards.erase import erase
from shards.metadata import DatasetMetadata
from shards.reader import Dataset
from shards.schema import Attribute, Reason, Split, Status
from shards.verify import verify

PEOPLE = {"a.mp4": (0,), "b.mp4": (1, 2), "c.mp4": (0,), "d.mp4": (3,), "e.mp4": (4,)}
"""Who is in which video: the first and the third show the same person."""
LOST = {"x.mp4": Reason.NO_FACE, "y.mp4": Reason.TIMEOUT}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "clips", dict.fromkeys((*PEOPLE, *LOST), 10))


def finalized(planned: BuildPlan) -> Iterable[FinalizedVideo]:
    for video in planned.manifest.videos:
        reason = LOST.get(video.uri)
        yield rejected(video, reason) if reason else accepted(video, PEOPLE[video.uri])


def packed(
    source: Path, output: Path, *overrides: str, backwards: bool = False
) -> tuple[DatasetMetadata, BuildPlan, str]:
    """Finish what is unfinished and pack; also returns the plan and the log."""
    config = configured(source, output, *overrides)
    planned = plan_build(config, MODELS_USED, replace=True)
    finished = list(zip(planned.manifest.videos, finalized(planned), strict=True))
    for video, outcome in reversed(finished) if backwards else finished:
        if video in planned.todo:
            planned.staging.write(video, outcome)
    log = io.StringIO()
    packed = pack(config, MODELS_USED, planned, Reporter(Console(file=log)))
    return packed.metadata, planned, log.getvalue()


def files(root: Path) -> dict[str, bytes]:
    paths = [*root.glob("*.json"), *root.glob("*.parquet"), *root.glob("*/*.tar")]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(paths)}


def uri(video_id: str) -> str:
    return video_id.removeprefix("demo/")


def test_finished_videos_become_a_dataset_that_verifies(source: Path, tmp_path: Path) -> None:
    metadata, _, log = packed(source, tmp_path / "mfhq")
    assert verify(tmp_path / "mfhq") == []
    assert metadata.counts.videos == {Status.ACCEPTED: 5, Status.REJECTED: 1, Status.FAILED: 1}
    assert sum(metadata.counts.identities.values()) == 6
    assert metadata.counts.images == 48
    assert metadata.counts.persons == 5
    assert "pack: 6/6" in log


def test_the_images_of_each_identity_are_its_own(source: Path, tmp_path: Path) -> None:
    _, planned, _ = packed(source, tmp_path / "mfhq")
    kept = {
        sample.identity.key: (sample.jpegs, sample.masks, sample.landmarks)
        for outcome in finalized(planned)
        for sample in outcome.samples
    }
    samples = {
        s.record.key: (s.images, s.masks, s.landmarks) for s in Dataset.open(tmp_path / "mfhq").samples()
    }
    assert samples == kept


def test_what_the_source_says_now_reaches_the_records_and_not_what_it_said(
    source: Path, tmp_path: Path
) -> None:
    _, planned, _ = packed(source, tmp_path / "mfhq")
    said = {"origin": "abc", "source_person": "P1", "attributes": (Attribute(name="action", value="talk"),)}
    videos = [
        video.model_copy(update=said | {"uri": f"moved/{video.uri}"}) for video in planned.manifest.videos
    ]
    again = replace(planned, manifest=Manifest(videos=videos))
    pack(configured(source, tmp_path / "mfhq"), MODELS_USED, again, Reporter(Console(file=io.StringIO())))
    dataset = Dataset.open(tmp_path / "mfhq")
    assert all(video.uri.startswith("moved/") for video in dataset.videos())
    for record in (sample.record for sample in dataset.samples()):
        assert (record.origin, record.source_person) == ("abc", "P1")
        assert record.attributes == [Attribute(name="action", value="talk")]


def test_license_source_and_weights_reach_the_records(source: Path, tmp_path: Path) -> None:
    metadata, _, _ = packed(source, tmp_path / "mfhq", "source.name=ours", "source.license=CC BY 4.0")
    dataset = Dataset.open(tmp_path / "mfhq")
    for record in [s.record for s in dataset.samples()]:
        assert (record.source, record.license) == ("ours", "CC BY 4.0")
        assert record.video_id.startswith("ours/")
    assert {(video.source, video.license) for video in dataset.videos()} == {("ours", "CC BY 4.0")}
    provenance = metadata.provenance
    assert provenance.models == {name: model.sha256 for name, model in MODELS_USED.items()}
    assert sorted(provenance.libraries) == sorted(LIBRARIES)
    assert "run" not in provenance.config
    assert str(tmp_path / "mfhq") not in (tmp_path / "mfhq" / "dataset.json").read_text()


def test_the_order_in_which_videos_were_finished_changes_no_byte(source: Path, tmp_path: Path) -> None:
    packed(source, tmp_path / "forwards")
    packed(source, tmp_path / "backwards", backwards=True)
    assert files(tmp_path / "forwards") == files(tmp_path / "backwards")
    assert len(files(tmp_path / "forwards")) >= 5


def test_packing_again_changes_no_byte(source: Path, tmp_path: Path) -> None:
    packed(source, tmp_path / "mfhq")
    before = files(tmp_path / "mfhq")
    _, planned, _ = packed(source, tmp_path / "mfhq")
    assert planned.todo == []
    assert files(tmp_path / "mfhq") == before


def test_one_person_in_two_videos_is_in_one_split(source: Path, tmp_path: Path) -> None:
    packed(source, tmp_path / "mfhq", "split.test_fraction=0.5")
    records = [s.record for s in Dataset.open(tmp_path / "mfhq").samples()]
    same = [r for r in records if uri(r.video_id) in {"a.mp4", "c.mp4"}]
    assert len({r.person_id for r in same}) == len({r.split for r in same}) == 1
    assert {r.split for r in records} == {Split.TRAIN, Split.TEST}


def test_other_settings_of_splits_and_people_need_no_new_curation(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "mfhq"
    metadata, _, _ = packed(source, output, "split.test_fraction=0")
    assert metadata.counts.identities == {Split.TRAIN: 6, Split.TEST: 0}

    metadata, planned, _ = packed(source, output, "split.test_fraction=0.3")
    assert planned.todo == []
    assert metadata.counts.identities[Split.TEST] in {1, 2}
    assert verify(output) == []

    metadata, planned, _ = packed(source, output, "split.test_fraction=0", "people.keep=best")
    assert planned.todo == []
    assert sum(metadata.counts.identities.values()) == metadata.counts.persons == 5
    assert metadata.counts.videos[Status.ACCEPTED] == 4
    dropped = {uri(v.video_id): v.reason for v in Dataset.open(output).videos()}["c.mp4"]
    assert dropped is Reason.DUPLICATE_PERSON
    assert verify(output) == []


def test_shards_are_cut_at_the_configured_limits(source: Path, tmp_path: Path) -> None:
    metadata, _, _ = packed(source, tmp_path / "mfhq", "shards.max_samples=2", "split.test_fraction=0")
    assert [shard.samples for shard in metadata.shards] == [2, 2, 2]


def test_a_build_without_a_single_identity_is_a_dataset_with_the_reasons(tmp_path: Path) -> None:
    source = make_source(tmp_path / "clips", dict.fromkeys(LOST, 10))
    metadata, _, _ = packed(source, tmp_path / "mfhq")
    assert metadata.shards == []
    assert metadata.counts.videos == {Status.ACCEPTED: 0, Status.REJECTED: 1, Status.FAILED: 1}
    assert verify(tmp_path / "mfhq") == []
    page = write_report(tmp_path / "mfhq", []).read_text(encoding="utf-8")
    assert "x.mp4" in page
    assert "y.mp4" in page


@pytest.mark.parametrize("spot", [0.5, 0.999])
def test_a_damaged_part_ends_packing_in_words_and_only_its_video_is_curated_again(
    source: Path, tmp_path: Path, spot: float
) -> None:
    output = tmp_path / "mfhq"
    _, planned, _ = packed(source, output)
    before = files(output)
    for video in (planned.manifest.videos[0], planned.manifest.videos[3]):
        data = bytearray(planned.staging.path(video).read_bytes())
        data[int(len(data) * spot)] ^= 0xFF
        planned.staging.path(video).write_bytes(data)
    (output / "dataset.json").unlink()

    with pytest.raises(BuildError) as caught:
        packed(source, output)
    assert "the staged files of 2 finished videos cannot be read back, such as demo/a.mp4" in str(
        caught.value
    )
    assert "the same command again" in str(caught.value)

    _, again, _ = packed(source, output)
    assert [video.uri for video in again.todo] == ["a.mp4", "d.mp4"]
    assert files(output) == before


def test_an_output_that_cannot_be_written_any_more_is_named(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "mfhq"
    packed(source, output)
    planned = plan_build(configured(source, output), MODELS_USED, replace=False)
    (output / "index-g0000.parquet").unlink()
    (output / "index-g0000.parquet").mkdir()
    with pytest.raises(BuildError) as caught:
        pack(configured(source, output), MODELS_USED, planned, Reporter(Console(file=io.StringIO())))
    assert f"cannot write the dataset: {output}/index-g0000.parquet" in str(caught.value)
    assert "continues with all finished videos" in str(caught.value)


def test_the_version_of_the_dataset_is_that_of_the_configuration(source: Path, tmp_path: Path) -> None:
    metadata, _, _ = packed(source, tmp_path / "mfhq", "version=2.1.0-rc.1")
    assert metadata.version == metadata.provenance.config["version"] == "2.1.0-rc.1"


def test_a_dataset_without_embeddings_is_linked_by_them_all_the_same(source: Path, tmp_path: Path) -> None:
    stored, planned, _ = packed(source, tmp_path / "with")
    plain, again, _ = packed(source, tmp_path / "without", "shards.store_embeddings=false")
    assert (plain.counts, again.staging.folder.name) == (stored.counts, planned.staging.folder.name)
    assert verify(tmp_path / "without") == []
    pairs = zip(
        Dataset.open(tmp_path / "with").samples(), Dataset.open(tmp_path / "without").samples(), strict=True
    )
    for full, bare in pairs:
        assert full.record.embedding is not None
        assert (bare.record.embedder, bare.record.embedding) == (None, None)
        assert {image.identity_cosine for image in bare.record.images} == {None}
        assert (bare.record.person_id, bare.images) == (full.record.person_id, full.images)
    assert Dataset.open(tmp_path / "without").images()["identity_cosine"].null_count == plain.counts.images
    page = write_report(tmp_path / "without", []).read_text(encoding="utf-8")
    assert "fig-eyes" in page
    assert "fig-cosine" not in page


def test_a_build_does_not_bring_erased_samples_back(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "mfhq"
    packed(source, output)
    key = Dataset.open(output).keys()[0]
    erased = erase(output, [key], "taken_down")
    again, _, log = packed(source, output)
    assert again == erased
    assert "packed already" in log
    assert key not in {s.record.key for s in Dataset.open(output).samples()}
    with pytest.raises(BuildError, match="holds generation 1 of a dataset: samples were erased"):
        packed(source, output, "shards.max_samples=2")
    with pytest.raises(BuildError, match="holds generation 1 of a dataset: samples were erased"):
        check_nothing_erased(output)
    assert verify(output) == []


def test_another_outcome_is_not_passed_over_because_samples_were_erased(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "mfhq"
    _, planned, _ = packed(source, output)
    erase(output, [Dataset.open(output).keys()[0]], "taken_down")
    (late,) = (video for video in planned.manifest.videos if video.uri == "y.mp4")
    planned.staging.write(late, accepted(late, (5,)))
    with pytest.raises(BuildError, match="holds generation 1 of a dataset: samples were erased"):
        packed(source, output)


def test_a_damaged_dataset_from_which_samples_were_erased_is_not_built_anew(
    source: Path, tmp_path: Path
) -> None:
    output = tmp_path / "mfhq"
    packed(source, output)
    erase(output, [Dataset.open(output).keys()[0]], "taken_down")
    (output / "dataset.json").unlink()
    with pytest.raises(BuildError, match=r"a damaged dataset .* from which samples were erased"):
        packed(source, output)
    with pytest.raises(BuildError, match=r"a damaged dataset .* from which samples were erased"):
        check_nothing_erased(output)


def test_where_nothing_was_erased_videos_may_be_added(source: Path, tmp_path: Path) -> None:
    check_nothing_erased(tmp_path / "new")
    packed(source, tmp_path / "mfhq")
    check_nothing_erased(tmp_path / "mfhq")


def test_a_dataset_that_is_packed_already_is_left_to_its_readers(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "mfhq"
    packed(source, output)
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*.tar")}
    packed(source, output)
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*.tar")} == before
