"""Finds the work of a build, and every obstacle, before any work starts."""

from __future__ import annotations

import dataclasses
import io
import json
import os
from pathlib import Path

import pytest
from rich.console import Console
from staged_videos import MODELS_USED, accepted, configured, make_source, rejected

from faces.registry import WeightsFile
from pipeline.build_mfhq import load_build_weights, run
from pipeline.errors import BuildError
from pipeline.ownership import confirm
from pipeline.plan import TASKS_AN_ANALYSER, BuildPlan, plan_build, unstaged
from pipeline.progress import Reporter
from pipeline.retry import Retry
from pipeline.reuse import Choice
from shards.schema import Reason

SIZES = {"a.mp4": 10, "b.mp4": 30, "c.mp4": 20, "d.mp4": 20}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "clips", SIZES)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "mfhq"


def plan(
    source: Path,
    output: Path,
    *overrides: str,
    models: dict[str, WeightsFile] = MODELS_USED,
    replace: bool = False,
    retry: Retry | None = None,
    staged: Choice | None = None,
) -> BuildPlan:
    config = configured(source, output, *overrides)
    return plan_build(config, models, replace=replace, retry=retry, staged=staged)


def names(plan: BuildPlan) -> list[str]:
    return [video.uri for video in plan.todo]


def rejection(source: Path, output: Path, *overrides: str, replace: bool = False) -> str:
    with pytest.raises(BuildError) as caught:
        plan(source, output, *overrides, replace=replace)
    return str(caught.value)


def finish(planned: BuildPlan, **reasons: Reason) -> None:
    """Finish all videos of a plan; those named (without ending) end with a reason."""
    for video in planned.todo:
        reason = reasons.get(Path(video.uri).stem)
        planned.staging.write(video, rejected(video, reason) if reason else accepted(video))


def test_the_largest_videos_come_first_and_equal_ones_by_name(source: Path, output: Path) -> None:
    planned = plan(source, output)
    assert names(planned) == ["b.mp4", "c.mp4", "d.mp4", "a.mp4"]
    assert (len(planned.shares(1)), planned.finished) == (4, 0)


def test_shares_hold_each_file_once_and_leave_every_analyser_many(tmp_path: Path) -> None:
    sizes = {f"{number:03}.mp4": 1000 - number for number in range(300)}
    planned = plan(make_source(tmp_path / "many", sizes), tmp_path / "out")
    for analysers, most in ((1, 8), (4, 4), (300, 1)):
        shares = planned.shares(analysers)
        assert max(map(len, shares)) == most
        assert len(shares) >= min(300, TASKS_AN_ANALYSER * analysers)
        files = [file[0].uri for share in shares for file in share]
        assert sorted(files) == sorted(sizes)
        assert all(share[0][0].bytes > share[-1][0].bytes for share in shares if most > 1)


def test_there_is_a_limit_to_the_number_of_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.plan.MOST_TASKS", 20)
    sizes = {f"{number:03}.mp4": 1000 - number for number in range(300)}
    planned = plan(make_source(tmp_path / "many", sizes), tmp_path / "out")
    assert [len(share) for share in planned.shares(10_000)] == [15] * 20


def test_what_is_finished_is_not_done_again(source: Path, output: Path) -> None:
    first = plan(source, output)
    finish(dataclasses.replace(first, todo=first.todo[:3]), c=Reason.NO_FACE, d=Reason.TIMEOUT)
    assert [video.uri for video in unstaged(first)] == ["a.mp4"]

    again = plan(source, output)
    assert names(again) == ["a.mp4"]
    assert (len(again.shares(1)), again.finished) == (1, 3)
    finish(again)
    assert unstaged(again) == []
    assert names(plan(source, output)) == []


def test_a_changed_file_and_a_new_one_are_still_to_be_done(source: Path, output: Path) -> None:
    finish(plan(source, output))
    (source / "b.mp4").write_bytes(b"longer than it was, by a few bytes")
    os.utime(source / "c.mp4", (1, 1))
    make_source(source, {"new.mp4": 5})
    planned = plan(source, output)
    assert names(planned) == ["b.mp4", "c.mp4", "new.mp4"]
    assert len(planned.manifest.videos) == 5


def test_a_video_that_is_gone_is_no_longer_accounted_for(source: Path, output: Path) -> None:
    finish(plan(source, output))
    (source / "b.mp4").unlink()
    planned = plan(source, output)
    assert [video.uri for video in planned.manifest.videos] == ["a.mp4", "c.mp4", "d.mp4"]
    assert planned.todo == []


def test_only_failed_videos_are_tried_again(source: Path, output: Path) -> None:
    finish(plan(source, output), a=Reason.TIMEOUT, b=Reason.NO_FACE, c=Reason.WORKER_CRASHED)
    assert names(plan(source, output)) == []
    assert names(plan(source, output, retry=Retry(failed=True))) == ["c.mp4", "a.mp4"]


def test_a_damaged_part_is_tried_again_with_the_failed_ones(source: Path, output: Path) -> None:
    first = plan(source, output)
    finish(first)
    path = first.staging.path(first.todo[0])
    path.write_bytes(path.read_bytes()[:-100])
    assert names(plan(source, output, retry=Retry(failed=True))) == ["b.mp4"]


def test_another_configuration_is_rejected_naming_every_key_that_differs(source: Path, output: Path) -> None:
    finish(plan(source, output))
    before = (output / ".staging/settings.json").read_bytes()
    message = rejection(source, output, "faces.min_crop_px=200", "split.seed=7")
    assert f"{output} holds a build of another configuration" in message
    assert "faces.min_crop_px: 256.0 -> 200.0" in message
    assert "split.seed: 29 -> 7" in message
    assert "--replace to build over it: 4 of 4 finished videos are then curated again" in message
    assert "--replace to build over it: all 4 finished videos are then used" in rejection(
        source, output, "split.seed=7"
    )
    assert (output / ".staging/settings.json").read_bytes() == before


def test_an_output_where_nothing_is_finished_costs_nothing_to_replace(source: Path, output: Path) -> None:
    plan(source, output)
    assert "no video of this build is finished there yet" in rejection(source, output, "faces.max_yaw=60")
    (output / "dataset.json").touch()
    assert "the dataset that is there is then overwritten" in rejection(source, output, "faces.max_yaw=60")


def test_other_weights_of_the_same_name_are_rejected_as_well(source: Path, output: Path) -> None:
    finish(plan(source, output))
    yunet = dataclasses.replace(MODELS_USED["yunet"], sha256="ab" * 32)
    with pytest.raises(BuildError) as caught:
        plan(source, output, models=MODELS_USED | {"yunet": yunet})
    assert f"weights.yunet: {MODELS_USED['yunet'].sha256} -> {'ab' * 32}" in str(caught.value)


@pytest.mark.parametrize(
    ("override", "todo"),
    [
        ("people.keep=best", 0),
        ("split.test_fraction=0.5", 0),
        ("shards.max_samples=1", 0),
        ("faces.min_crop_px=200", 4),
        ("selection.clusters=17", 4),
    ],
)
def test_replacing_curates_again_only_where_curation_changed(
    source: Path, output: Path, override: str, todo: int
) -> None:
    finish(plan(source, output))
    assert len(plan(source, output, override, replace=True).todo) == todo
    confirm(output)
    assert len(plan(source, output, override).todo) == todo, "the output is now this configuration's"
    assert "holds a build of another configuration" in rejection(source, output)


def test_until_a_replacing_build_has_packed_the_commands_of_both_builds_go_on(
    source: Path, output: Path
) -> None:
    finish(plan(source, output))
    plan(source, output, "faces.max_yaw=60", replace=True)  # is interrupted here

    assert len(plan(source, output, "faces.max_yaw=60").todo) == 4, (
        "the takeover is recorded: no --replace needed"
    )
    assert "holds a build of another configuration" in rejection(source, output, "faces.max_yaw=50")
    assert names(plan(source, output)) == [], "the first build's dataset is whole, and so is its command"
    confirm(output)
    assert "holds a build of another configuration" in rejection(source, output, "faces.max_yaw=60")


def test_going_back_to_an_earlier_configuration_finds_its_videos(source: Path, output: Path) -> None:
    finish(plan(source, output))
    plan(source, output, "faces.min_crop_px=200", replace=True)
    confirm(output)
    assert names(plan(source, output, replace=True)) == []


def test_how_the_machine_runs_may_change_between_runs(source: Path, output: Path) -> None:
    finish(plan(source, output))
    assert names(plan(source, output, "run.analysers=2", "run.video_timeout_s=5")) == []


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("thesis.tex", "files that no build left there, such as thesis.tex"),
        ("dataset.json", "a dataset, but not what it was built from (.staging/settings.json is missing)"),
    ],
)
def test_an_output_with_files_of_others_is_rejected(
    source: Path, output: Path, file: str, message: str
) -> None:
    output.mkdir()
    (output / file).write_text("{}")
    assert message in rejection(source, output)
    assert "--replace" in rejection(source, output)
    assert [path.name for path in output.iterdir()] == [file]

    assert len(plan(source, output, replace=True).todo) == 4
    assert (output / file).read_text() == "{}"


def test_files_in_the_way_of_shards_are_rejected_before_the_work_and_not_after(
    source: Path, output: Path
) -> None:
    (output / "train").mkdir(parents=True)
    (output / "train" / "notes.txt").write_text("mine")
    assert f"{output}/train/notes.txt is no part of a dataset. Move it away" in rejection(
        source, output, replace=True
    )


def test_an_empty_output_folder_is_taken(source: Path, output: Path) -> None:
    output.mkdir()
    assert len(plan(source, output).todo) == 4


@pytest.mark.parametrize("content", [b"", b'{"faces": ', b"\xff\xfe\x00", b"[1, 2]"])
def test_damaged_settings_are_named_and_replacing_keeps_finished_videos(
    source: Path, output: Path, content: bytes
) -> None:
    finish(plan(source, output))
    settings = output / ".staging" / "settings.json"
    settings.write_bytes(content)
    message = rejection(source, output)
    assert f"{settings} is damaged" in message
    assert "--replace" in message
    assert names(plan(source, output, replace=True)) == []
    assert json.loads(settings.read_bytes())["faces"]["min_crop_px"] == 256.0


def test_a_source_without_videos_is_rejected(tmp_path: Path, output: Path) -> None:
    empty = make_source(tmp_path / "empty", {"notes.txt": 5})
    assert f"source.path: {empty} contains no video file (.3gp, .avi" in rejection(empty, output)
    assert f"source.path: {tmp_path}/none is not a directory" in rejection(tmp_path / "none", output)
    file = empty / "notes.txt"
    assert (
        f"source.path: {file} is not a directory. Pass the directory that contains the videos."
        in rejection(file, output)
    )
    assert not output.exists()


@pytest.mark.parametrize("place", ["file", "file/mfhq", "file/deep/mfhq"])
def test_an_output_that_cannot_be_a_directory_is_rejected(source: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("in the way")
    for replace in (False, True):
        message = rejection(source, tmp_path / place, replace=replace)
        assert f"output {tmp_path / place} cannot be used: " in message
        assert f"{tmp_path}/file" in message
        assert "Give a directory that can be written to" in message


def test_an_output_that_must_not_be_written_is_rejected(source: Path) -> None:
    message = rejection(source, Path("/proc/mfhq"))
    assert message.startswith("output /proc/mfhq cannot be used: /proc/mfhq: ")


def test_weights_without_a_directory_are_missing_from_run_models_dir(source: Path, output: Path) -> None:
    config = configured(source, output, "models.detector=scrfd_10g")
    with pytest.raises(BuildError, match=r"Then give their directory as run\.models_dir=DIR\.$"):
        load_build_weights(config)


def test_a_models_directory_that_is_not_there_is_an_error(source: Path, output: Path) -> None:
    config = configured(source, output, "run.models_dir=/nowhere/weights")
    with pytest.raises(BuildError, match=r"run\.models_dir: /nowhere/weights is not a directory"):
        load_build_weights(config)


@pytest.mark.parametrize("models_dir", ["weights", "none"])
def test_missing_weights_are_an_error_before_anything_is_written(
    source: Path, output: Path, tmp_path: Path, models_dir: str
) -> None:
    (tmp_path / "weights").mkdir()
    config = configured(
        source, output, "models.detector=scrfd_10g", f"run.models_dir={tmp_path / models_dir}"
    )
    log = io.StringIO()
    with pytest.raises(BuildError, match=r"scrfd_10g: det_10g\.onnx is missing"):
        run(config, Reporter(Console(file=log)))
    assert not output.exists()
    assert log.getvalue() == ""


def test_the_files_of_the_split_are_read_before_any_work(source: Path, output: Path, tmp_path: Path) -> None:
    names = tmp_path / "held_out.txt"
    message = rejection(source, output, f"split.test_list={names}")
    assert message.startswith(f"split.test_list: {names} cannot be read: No such file or directory")
    message = rejection(source, output, f"split.from={tmp_path}")
    assert message.startswith(f"split.from: {tmp_path} is no finished dataset")
    assert not output.exists()

    names.write_text("a.mp4\nnobody.mp4\n")
    planned = plan(source, output, f"split.test_list={names}")
    assert planned.listed is not None
    assert planned.listed.entries == {"a.mp4": ("demo/a.mp4",), "nobody.mp4": ()}
    (message,) = planned.messages
    assert message.startswith("split.test_list: the sources have no video for 1 of 2 entries: nobody.mp4.")
    names.write_text("b.mp4\n")
    assert "split.test_list: sha256:" in rejection(source, output, f"split.test_list={names}")
    moved = names.rename(tmp_path / "moved.txt")
    moved.write_text("a.mp4\nnobody.mp4\n")
    assert plan(source, output, f"split.test_list={moved}").listed == planned.listed
