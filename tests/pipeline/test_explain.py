"""`mfhq explain`: what is known of a video in each state of a build, and how it is shown."""

from __future__ import annotations

import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from explained_videos import SEEN, WAITING, face, interrupted_build, seen_accepted, turning_head
from rich.console import Console
from staged_videos import MODELS_USED, configured, rejected
from typer.testing import CliRunner
from video_files import write_video

from pipeline.cli import app
from pipeline.errors import BuildError
from pipeline.explain.build_folder import BuildFolder
from pipeline.explain.command import explain_video
from pipeline.explain.explanation import Explanation, explain
from pipeline.explain.facts import from_source
from pipeline.explain.lookup import Known, UnknownVideo
from pipeline.explain.page import as_page
from pipeline.explain.runs import Run, frame_runs, tracks_of
from pipeline.explain.strip import NoFrames, frames_to_show, read_frames, strip
from pipeline.explain.text import as_text
from pipeline.pack import pack
from pipeline.plan import plan_build
from pipeline.progress import Reporter
from pipeline.records import Timeline
from pipeline.staging import FOLDER
from shards.schema import Reason, Status

CLIP = "-2KGPYEFnsU_8"
GOOD, SMALL = "clips/good.mp4", "clips/small.mp4"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A build that was stopped before its last video."""
    interrupted_build(tmp_path)
    return tmp_path / "mfhq"


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """The same build without the last video, packed."""
    interrupted_build(tmp_path)
    (tmp_path / "videos" / WAITING).unlink()
    config = configured(tmp_path / "videos", tmp_path / "mfhq", "people.link_cosine=1")
    plan = plan_build(config, MODELS_USED, replace=False)
    assert plan.todo == []
    pack(config, MODELS_USED, plan, Reporter(Console(file=io.StringIO())))
    return tmp_path / "mfhq"


def test_an_interrupted_build_explains_what_it_has_finished(output: Path) -> None:
    found = explain(output, GOOD)
    assert found.whole
    assert found.timeline == turning_head()
    assert found.file == output.parent / "videos" / GOOD
    assert [len(images) for images in found.images.values()] == [8]
    assert any("not finished" in note for note in found.notes)


def test_a_video_that_is_not_curated_yet_is_an_error(output: Path) -> None:
    with pytest.raises(BuildError, match=r"demo/waiting\.mp4 is not curated yet"):
        explain(output, WAITING)


def test_a_finished_dataset_adds_nothing_to_say(finished: Path) -> None:
    found = explain(finished, GOOD)
    assert (found.outcome.status, found.whole, found.notes) == (Status.ACCEPTED, True, [])
    assert found.metric == "piqe, lower is better"


def test_a_rejected_video_shows_its_reason_and_the_gate_behind_it(finished: Path) -> None:
    found = explain(finished, SMALL)
    assert found.outcome.reason == Reason.CROP_TOO_SMALL
    assert found.settings == {"faces.min_crop_px": 256}
    assert [run.state for run in frame_runs(found.timeline)] == ["no_face", "faces", "no_face"]


def test_without_staging_the_tables_still_give_the_outcome_and_the_images(finished: Path) -> None:
    whole = explain(finished, GOOD)
    shutil.rmtree(finished / FOLDER)
    found = explain(finished, GOOD, finished.parent / "videos")
    assert found.outcome == whole.outcome
    assert (found.whole, found.metric) == (False, "piqe, lower is better")
    assert found.images == whole.images
    assert [f.frame for f in found.timeline.faces if f.chosen] == [10 * number for number in range(8)]
    assert found.notes == [
        "The staging area (.staging) was deleted: only the content of the dataset's tables is shown."
    ]
    assert explain(finished, SMALL).outcome.reason == Reason.CROP_TOO_SMALL


def test_a_video_that_was_moved_is_reported_missing_and_found_where_it_is_now(finished: Path) -> None:
    videos = finished.parent / "videos"
    moved = videos.rename(finished.parent / "archive")
    found = explain(finished, GOOD)
    assert (found.file, found.whole) == (None, True)
    assert found.notes == [
        f"There is no regular file of this video in {videos}. Pass --source if it was moved."
    ]
    assert explain(finished, GOOD, moved).file == moved / GOOD


def test_a_file_that_changed_is_not_shown_as_the_one_that_was_curated(finished: Path) -> None:
    path = finished.parent / "videos" / GOOD
    path.write_bytes(path.read_bytes() + b"more")
    found = explain(finished, GOOD)
    assert (found.file, found.whole) == (None, True)
    assert len(found.notes) == 1
    assert "has changed since it was curated" in found.notes[0]


def test_a_damaged_staged_file_is_named(output: Path) -> None:
    for path in (output / FOLDER).rglob("*.parquet"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BuildError, match=r"its staged file .*\.parquet cannot be read"):
        explain(output, GOOD)


def test_a_directory_without_a_build_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="is not the output of a build"):
        explain(tmp_path, GOOD)


def test_the_same_name_in_two_directories_is_an_error_that_lists_both(output: Path) -> None:
    with pytest.raises(UnknownVideo) as error:
        explain(output, "good.mp4")
    assert str(error.value) == (
        "'good.mp4' names 2 videos. Give one of these ids:\n  demo/clips/good.mp4\n  demo/talks/good.mp4"
    )


def test_an_explanation_changes_nothing_in_the_output(finished: Path) -> None:
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}

    before = content()
    explain_video(finished, GOOD, html=finished.parent / "page.html", as_json=False)
    assert content() == before


def test_the_text_lists_the_stretches_of_a_track(finished: Path) -> None:
    text = as_text(explain(finished, GOOD))
    (track,) = tracks_of(turning_head())
    assert track.runs == [
        Run(0.0, 1.44, "usable", 10),
        Run(1.6, 2.08, "blurred", 4),
        Run(2.24, 3.36, "usable", 8),
        Run(3.52, 3.84, "too_dark", 3),
    ]
    lines = [re.sub(r" +", " ", line).strip() for line in text.splitlines()]
    assert "0 0.0-1.4 s usable 10, 1.6-2.1 s blurred 4, 2.2-3.4 s usable 8, 3.5-3.8 s too_dark 3" in lines
    assert "outcome accepted: 1 identity" in lines
    assert sum(" frame " in line for line in lines) == 8
    assert not any(line.startswith("all") for line in lines)


def test_the_text_of_a_rejected_video_starts_with_the_reason(finished: Path) -> None:
    lines = [re.sub(r" +", " ", line).strip() for line in as_text(explain(finished, SMALL)).splitlines()]
    assert lines[:2] == [
        "video demo/clips/small.mp4",
        "outcome rejected: crop_too_small (head crop smaller than faces.min_crop_px)",
    ]
    assert "gates faces.min_crop_px=256" in lines
    assert "0 0.5-1.9 10 0 24 - - - crop_too_small: 0 usable frames, 8 needed; 10 dropped for this" in lines
    assert "all 0.0-0.3 s no_face 3, 0.5-1.9 s faces 10, 2.1-3.8 s no_face 12" in lines
    assert "0 0.5-1.9 s crop_too_small 10" in lines


def test_frames_of_the_strip_are_the_chosen_ones_the_middles_and_an_even_spread() -> None:
    timeline = turning_head()
    analysed = [frame.frame for frame in timeline.frames]
    shown = frames_to_show(timeline, 16)
    assert len(shown) == len(set(shown)) == 16
    assert shown == sorted(shown)
    assert set(shown) <= set(analysed)
    assert {f.frame for f in timeline.faces if f.chosen} <= set(shown)
    assert {0, 96} <= set(shown)
    assert frames_to_show(timeline, 100) == analysed
    assert frames_to_show(Timeline()) == []


def test_a_picture_of_the_strip_is_the_frame_of_its_number(finished: Path) -> None:
    from video_files import number_of

    path = finished.parent / "videos" / GOOD
    frames = list(read_frames(path, [4, 12, 24], None))
    assert [number_of(frame.image) for frame in frames] == [4, 12, 24]
    pictures = strip(path, turning_head(), "pyav")
    assert [picture.size for picture in pictures] == [(128, 64)] * 25
    assert [len(picture.faces) for picture in pictures] == [1] * 25
    assert pictures[2].time_s == pytest.approx(0.32)


def test_a_file_that_does_not_decode_is_a_note_on_a_page_that_shows_the_rest(finished: Path) -> None:
    path = finished.parent / "videos" / GOOD
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(NoFrames, match="unreadable"):
        strip(path, turning_head(), None)
    page = as_page(explain(finished, GOOD))
    assert "The video&#39;s frames cannot be decoded: unreadable" in page
    assert page.count("chosen image") == 8


def test_names_from_outside_are_text_in_the_page(finished: Path) -> None:
    found = explain(finished, GOOD)
    hostile = "<script>alert(1)</script>.mp4"
    outcome = found.outcome.model_copy(update={"uri": hostile, "detail": "<b>" + "x" * 1000})
    page = as_page(Explanation(outcome, Timeline(), True, {}, "", {}, None, None, [hostile]))
    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;alert(1)" in page


@pytest.mark.parametrize("uri", [*SEEN])
def test_the_command_prints_and_writes_the_page_it_names(finished: Path, tmp_path: Path, uri: str) -> None:
    page = tmp_path / "pages" / "page.html"
    result = CliRunner().invoke(app, ["explain", str(finished), uri, "--html", str(page)])
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1].split() == ["page", str(page)]
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_json_holds_every_frame_and_face(finished: Path) -> None:
    result = CliRunner().invoke(app, ["explain", str(finished), f"demo/{GOOD}", "--json"])
    value = json.loads(result.output)
    assert len(value["timeline"]["frames"]) == 25
    assert len(value["timeline"]["faces"]) == 25
    assert [chosen["frame"] for chosen in value["chosen"]] == [0, 8, 16, 24, 32, 56, 64, 72]
    assert value["outcome"]["status"] == "accepted"


def test_an_unknown_video_is_one_line_of_error_and_exit_code_1(finished: Path) -> None:
    result = CliRunner().invoke(app, ["explain", str(finished), "smal.mp4"])
    assert result.exit_code == 1
    assert "Did you mean one of these?\n  demo/clips/small.mp4" in result.output


def test_a_page_that_cannot_be_written_is_an_error(finished: Path) -> None:
    with pytest.raises(BuildError, match="cannot be written"):
        explain_video(finished, GOOD, html=finished, as_json=False)


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A finished build of CelebV-HQ in which both clips are parts of one download."""
    raw = tmp_path / "hq" / "raw"
    raw.mkdir(parents=True)
    write_video(raw / "-2KGPYEFnsU.mp4", 100, (128, 64))
    entry = {
        "ytb_id": "-2KGPYEFnsU",
        "duration": {"start_sec": 0, "end_sec": 3.9},
        "bbox": {"top": 0.125, "bottom": 0.75, "left": 0.0625, "right": 0.5},
        "attributes": {"appearance": [0, 1], "action": [1]},
    }
    content = {
        "meta_info": {"appearance_mapping": ["blurry", "male"], "action_mapping": ["talk"]},
        "clips": {CLIP: entry, f"{CLIP}1": {**entry, "duration": {"start_sec": 1, "end_sec": 2}}},
    }
    (tmp_path / "hq" / "celebvhq_info.json").write_text(json.dumps(content))
    config = configured(tmp_path / "hq", tmp_path / "mfhq", "source.kind=celebv-hq", "source.name=hq")
    plan = plan_build(config, MODELS_USED, replace=False)
    for video in plan.todo:
        seen = seen_accepted(video) if video.video_id == f"hq/{CLIP}" else rejected(video, Reason.TOO_SHORT)
        annotated = {
            "span_s": video.span_s,
            "annotated_box": video.annotated_box,
            "source_person": "ID7",
            "attributes": list(video.attributes),
        }
        plan.staging.write(video, replace(seen, outcome=seen.outcome.model_copy(update=annotated)))
    return tmp_path / "mfhq"


def test_a_part_of_a_download_shows_where_it_is_and_what_its_dataset_says(
    parts: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    result = CliRunner().invoke(app, ["explain", str(parts), "--html", str(page), "--", CLIP])
    assert result.exit_code == 0, result.output
    lines = [re.sub(r" +", " ", line).strip() for line in result.output.splitlines()]
    assert lines[:7] == [
        f"video hq/{CLIP}",
        "outcome accepted: 1 identity",
        "part 0 to 3.9 s of the file raw/-2KGPYEFnsU.mp4",
        "box x 0.0625 to 0.5, y 0.125 to 0.75 of the frame",
        "origin -2KGPYEFnsU",
        "person ID7 (the source's label)",
        "attributes action: talk; appearance: male",
    ]
    html = page.read_text(encoding="utf-8")
    assert "<dt>Part</dt><dd>0 to 3.9 s of the file raw/-2KGPYEFnsU.mp4</dd>" in html
    assert "<dt>Attributes</dt><dd>action: talk; appearance: male</dd>" in html
    box = '<rect class="annotated" x="8.0" y="8.0" width="56.0" height="40.0">'
    assert html.count(box) == 25, "one in each frame of the strip"
    value = json.loads(CliRunner().invoke(app, ["explain", str(parts), "--json", "--", CLIP]).output)
    assert value["outcome"]["span_s"] == [0, 3.9]
    assert value["outcome"]["annotated_box"] == [0.0625, 0.125, 0.5, 0.75]
    assert value["outcome"]["origin"] == "-2KGPYEFnsU"
    assert value["outcome"]["source_person"] == "ID7"


def test_a_box_is_also_given_in_pixels_where_the_size_of_the_frame_is_known(parts: Path) -> None:
    outcome = explain(parts, CLIP).outcome.model_copy(update={"width": 1280, "height": 720})
    assert from_source(outcome)["box"] == (
        "x 0.0625 to 0.5, y 0.125 to 0.75 of the frame (x 80 to 640, y 90 to 540 px)"
    )


def test_a_line_break_in_an_annotation_stays_in_its_line(parts: Path) -> None:
    found = explain(parts, CLIP).outcome.model_copy(update={"source_person": "a\n\x1b[31mb"})
    assert from_source(found)["person"] == r"a\n\x1b[31mb (the source's label)"


def test_a_whole_file_without_annotations_has_no_such_lines(finished: Path) -> None:
    assert from_source(explain(finished, GOOD).outcome) == {}


def test_the_staged_file_of_a_part_is_found_without_reading_the_others(parts: Path) -> None:
    folder = BuildFolder(parts)
    # Reading all staged files would note this one.
    (damaged,) = [
        staged.path for staged in BuildFolder(parts).staged() if staged.outcome.reason == Reason.TOO_SHORT
    ]
    damaged.write_bytes(b"PAR1")
    video = Known(f"hq/{CLIP}", "hq", "raw/-2KGPYEFnsU.mp4")
    staged = folder.staged_of(video, None)
    assert staged is not None
    assert staged.outcome.span_s == (0, 3.9)
    assert folder.unreadable == []

    shutil.rmtree(parts.parent / "hq")
    again = BuildFolder(parts)
    assert again.staged_of(video, None) == staged, "without the source, all of them are read"
    assert again.unreadable == [damaged]


def test_faces_of_two_tracks_are_kept_apart() -> None:
    faces = [face(row, track) for row in range(4) for track in (1, 0)]
    tracks = tracks_of(Timeline(faces=faces))
    assert [(track.number, len(track.faces)) for track in tracks] == [(0, 4), (1, 4)]
