"""After an upgrade of a library, finished videos are neither dropped nor mixed in silently."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from staged_videos import MODELS_USED, WORKFLOW, accepted, configured, make_source, rejected
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.config import digest
from pipeline.errors import BuildError
from pipeline.plan import BuildPlan, plan_build
from pipeline.provenance import library_versions
from pipeline.retry import Retry
from pipeline.reuse import Choice
from pipeline.staging import Staging
from shards.reader import Dataset
from shards.schema import Reason

NOW = library_versions()["av"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "clips", {"a.mp4": 10, "b.mp4": 30, "c.mp4": 20})


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "mfhq"


def plan(
    source: Path,
    output: Path,
    *overrides: str,
    staged: Choice | None = None,
    replace: bool = False,
    retry: bool = False,
) -> BuildPlan:
    config = configured(source, output, *overrides)
    return plan_build(config, MODELS_USED, replace=replace, retry=Retry(failed=retry), staged=staged)


def names(planned: BuildPlan) -> list[str]:
    return [video.uri for video in planned.todo]


def question(source: Path, output: Path, *overrides: str, replace: bool = False) -> str:
    with pytest.raises(BuildError) as caught:
        plan(source, output, *overrides, replace=replace)
    return str(caught.value)


def finish(planned: BuildPlan, count: int = 3, reason: Reason | None = None) -> None:
    for video in planned.todo[:count]:
        planned.staging.write(video, rejected(video, reason) if reason else accepted(video))


def by_older_libraries(planned: BuildPlan, **older: str) -> Path:
    """Leave the finished videos of a plan as a build with other versions of libraries leaves them."""
    file = planned.staging.folder / "curation.json"
    record = json.loads(file.read_text())
    record["curation"]["libraries"] |= older
    file.write_text(json.dumps(record))
    return planned.staging.folder.rename(planned.staging.folder.with_name(digest(record["curation"])[:16]))


def test_after_an_upgrade_the_build_stops_and_names_the_versions_the_videos_and_the_choices(
    source: Path, output: Path
) -> None:
    planned = plan(source, output)
    finish(planned, 2)
    older = by_older_libraries(planned, av="15.0.0", torch="2.0")

    message = question(source, output)
    assert "2 of 3 videos are finished, but with:" in message
    assert f"  av: 15.0.0 -> {NOW}" in message
    assert f"  torch: 2.0 -> {library_versions()['torch']}" in message
    assert "--keep-staged" in message
    assert "--redo" in message
    assert question(source, output) == message, "asking changes nothing"
    assert [path.name for path in (output / ".staging").iterdir() if path.is_dir()] == [older.name]


def test_kept_videos_are_used_and_all_versions_are_listed(source: Path, output: Path) -> None:
    planned = plan(source, output)
    finish(planned, 2)
    by_older_libraries(planned, av="15.0.0")

    kept = plan(source, output, staged="keep")
    assert names(kept) == ["a.mp4"]
    finish(kept)
    again = plan(source, output)
    assert names(again) == [], "the choice is remembered"
    assert [again.staging.outcome(video).uri for video in again.manifest.videos] == [
        "a.mp4",
        "b.mp4",
        "c.mp4",
    ]
    assert len(again.staging.samples(again.manifest.videos[1])[1]) == 1
    assert again.libraries() == library_versions() | {"av": f"15.0.0, {NOW}"}


def test_videos_to_be_redone_stay_on_disk_and_are_not_used(source: Path, output: Path) -> None:
    planned = plan(source, output)
    finish(planned)
    older = by_older_libraries(planned, av="15.0.0")

    assert len(plan(source, output, staged="redo").todo) == 3
    again = plan(source, output)
    assert len(again.todo) == 3, "the choice is remembered"
    finish(again)
    assert again.libraries() == library_versions()
    assert len(Staging(older).finished(again.manifest.videos)) == 3


def test_the_choice_can_be_changed_later(source: Path, output: Path) -> None:
    planned = plan(source, output)
    finish(planned)
    by_older_libraries(planned, av="15.0.0")
    assert len(plan(source, output, staged="redo").todo) == 3
    assert len(plan(source, output, staged="keep").todo) == 0
    assert len(plan(source, output, staged="redo").todo) == 3
    assert len(plan(source, output).todo) == 3


def test_a_second_upgrade_asks_about_what_both_earlier_versions_finished(source: Path, output: Path) -> None:
    first = plan(source, output)
    finish(first, 1)
    by_older_libraries(first, av="14.0.0")
    kept = plan(source, output, staged="keep")
    finish(kept, 1)
    by_older_libraries(kept, av="15.0.0")

    message = question(source, output)
    assert f"av: 14.0.0 -> {NOW}" in message
    assert f"av: 15.0.0 -> {NOW}" in message
    third = plan(source, output, staged="keep")
    assert names(third) == ["a.mp4"]
    finish(third)
    assert third.libraries()["av"] == f"14.0.0, 15.0.0, {NOW}"


def test_another_device_is_reported_like_another_library(source: Path, output: Path) -> None:
    finish(plan(source, output))
    message = question(source, output, "run.device=cuda")
    assert "3 of 3 videos are finished, but with:\n  device: cpu -> cuda" in message
    assert names(plan(source, output)) == [], "the device they were made on is still good"


def test_a_change_of_settings_does_not_hide_a_change_of_libraries(source: Path, output: Path) -> None:
    planned = plan(source, output)
    finish(planned)
    by_older_libraries(planned, av="15.0.0")
    assert f"av: 15.0.0 -> {NOW}" in question(source, output, "people.keep=best", replace=True)
    replaced = plan(source, output, "people.keep=best", replace=True, staged="keep")
    assert replaced.todo == []


def test_nothing_is_asked_when_the_older_results_are_not_of_these_videos_or_settings(
    source: Path, output: Path, tmp_path: Path
) -> None:
    planned = plan(source, output)
    finish(planned)
    by_older_libraries(planned, av="15.0.0")
    assert len(plan(source, output, "faces.max_yaw=60", replace=True).todo) == 3

    others = make_source(tmp_path / "others", {"z.mp4": 9})
    assert names(plan(others, output, replace=True)) == ["z.mp4"]


def test_tuning_how_the_machines_run_asks_nothing_and_curates_nothing_again(
    source: Path, output: Path
) -> None:
    finish(plan(source, output))
    tuned = ("run.analysers=7", "run.node_faults=4", "run.analyser_cpus=2", "run.video_timeout_s=9")
    assert names(plan(source, output, *tuned, "run.video_memory_gb=2", "run.crash_retries=0")) == []


def test_a_kept_video_that_failed_is_tried_again_where_asked(source: Path, output: Path) -> None:
    planned = plan(source, output)
    finish(planned, reason=Reason.TIMEOUT)
    by_older_libraries(planned, av="15.0.0")
    assert names(plan(source, output, staged="keep")) == []
    again = plan(source, output, retry=True)
    assert names(again) == ["b.mp4", "c.mp4", "a.mp4"]
    finish(again)
    assert again.libraries() == library_versions(), "nothing of the older version is left in it"
    assert again.staging.finished(again.manifest.videos) == again.manifest.videos


def test_what_is_finished_now_wins_over_what_is_kept(source: Path, output: Path) -> None:
    planned = plan(source, output)
    finish(planned, reason=Reason.NO_FACE)
    older = by_older_libraries(planned, av="15.0.0")
    staging = plan(source, output, staged="keep").staging
    video = planned.todo[0]
    assert staging.outcome(video).reason is Reason.NO_FACE
    staging.write(video, accepted(video))
    assert staging.outcome(video).reason is None
    assert Staging(older).outcome(video).reason is Reason.NO_FACE


@pytest.mark.parametrize("damage", [None, b"", b"{}", b"[]"])
def test_finished_videos_of_unknown_versions_can_only_be_redone(
    source: Path, output: Path, damage: bytes | None
) -> None:
    planned = plan(source, output)
    finish(planned)
    older = by_older_libraries(planned, av="15.0.0")
    if damage is None:
        (older / "curation.json").unlink()
    else:
        (older / "curation.json").write_bytes(damage)
    message = question(source, output)
    assert f"unknown versions ({older / 'curation.json'} is missing or damaged)" in message
    assert "--redo" in message
    assert "--keep-staged" not in message
    assert len(plan(source, output, staged="keep").todo) == 3
    assert len(plan(source, output).todo) == 3


def command(source: Path, output: Path, *more: str) -> tuple[int, str]:
    arguments = ["build", str(WORKFLOW), f"source.path={source}", f"output={output}", *more]
    done = CliRunner().invoke(app, arguments)
    return done.exit_code, done.stderr


def test_the_command_asks_and_keeps_and_the_dataset_names_both_versions(source: Path, output: Path) -> None:
    planned = plan(source, output)
    finish(planned)
    by_older_libraries(planned, av="15.0.0")

    code, stderr = command(source, output)
    assert (code, f"av: 15.0.0 -> {NOW}" in stderr) == (1, True)
    assert not (output / "dataset.json").exists()
    code, stderr = command(source, output, "--keep-staged", "--redo")
    assert (code, "--keep-staged and --redo exclude each other" in stderr) == (1, True)

    code, stderr = command(source, output, "--keep-staged")
    assert (code, "3 videos, 3 finished by an earlier run" in stderr) == (0, True)
    assert Dataset.open(output).metadata.provenance.libraries["av"] == f"15.0.0, {NOW}"
    code, stderr = command(source, output)
    assert (code, "the dataset is packed already" in stderr) == (0, True)


def test_after_an_interrupted_replace_the_first_command_finds_its_dataset_whole(
    source: Path, output: Path
) -> None:
    finish(plan(source, output))
    assert command(source, output)[0] == 0
    before = (output / "dataset.json").read_bytes()
    plan(source, output, "faces.max_yaw=60", replace=True)  # and is interrupted

    code, stderr = command(source, output)
    assert (code, "the dataset is packed already" in stderr) == (0, True)
    assert (output / "dataset.json").read_bytes() == before


def test_a_replacing_build_that_has_packed_owns_the_output(source: Path, output: Path) -> None:
    finish(plan(source, output))
    assert command(source, output)[0] == 0
    assert command(source, output, "people.keep=best", "--replace")[0] == 0
    code, stderr = command(source, output)
    assert (code, "people.keep: best -> all" in stderr) == (1, True)
    assert command(source, output, "people.keep=best")[0] == 0
