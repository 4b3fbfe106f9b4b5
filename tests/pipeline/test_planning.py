"""`mfhq plan` counts the videos of each source exactly, and says what it does not know."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from seaweed import S3Server
from staged_videos import MODELS_USED, WORKFLOW, accepted, configured, make_source, rejected
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.plan import plan_build
from pipeline.sources.manifest import Video
from pipeline.stages.finalize import FinalizedVideo
from shards.atomic import write_bytes
from shards.reader import Dataset
from shards.schema import Reason
from storage.path import path_of

WORKFLOWS = WORKFLOW.parent
DASHED = "-2KGPYEFnsU"
UNKNOWN = (
    "core-hours, GPU-hours and disk are unknown: build some of these videos first, then pass --rates "
    "<output>/report/rates.json."
)
FIGURES = (
    "listed",
    "found",
    "missing",
    "duplicate",
    "hours",
    "bytes",
    "core_hours",
    "gpu_hours",
    "disk_bytes",
)


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["plan", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def planned(*arguments: object) -> dict[str, Any]:
    code, stdout, stderr = run(*arguments, "--json")
    assert code == 0, stderr
    plan: dict[str, Any] = json.loads(stdout)
    return plan


def make(root: Path, **sizes: int) -> None:
    """Files of the given sizes; `/` in a name is written `__`, and all are MP4."""
    for name, size in sizes.items():
        path = root / f"{name.replace('__', '/')}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))


@pytest.fixture
def celebv_hq(tmp_path: Path) -> Path:
    """Four clips of 2 s: one with a file and a second one, two in a download, one without any file."""
    root = tmp_path / "celebv-hq"
    keys = [f"{DASHED}_8", f"{DASHED}_11", f"{DASHED}_12", "M2Ohb0FAaJU_1"]
    entries = {
        key: {
            "ytb_id": key[:11],
            "duration": {"start_sec": 1, "end_sec": 3},
            "bbox": {"top": 0.1, "bottom": 0.6, "left": 0.2, "right": 0.4},
        }
        for key in keys
    }
    make(
        root,
        **{
            f"processed__{DASHED}_8": 100,
            f"again__{DASHED}_8": 70,
            f"raw__{DASHED}": 5_000,
            "raw__holiday": 9,
        },
    )
    (root / "celebvhq_info.json").write_text(json.dumps({"clips": entries}))
    return root


@pytest.fixture
def talkinghead(tmp_path: Path) -> Path:
    """Three tubes: two of 50 and 100 frames in one chunk, and one without its chunk."""
    root = tmp_path / "talkinghead"
    make(root, **{"train__1min_clips__0-FQbhkWYuY_0001": 2_000})
    (root / "train_video_tubes.txt").write_text(
        "0-FQbhkWYuY_0001, 720, 1280, 0, 49, 504, 63, 792, 351\n"
        "0-FQbhkWYuY_0001, 720, 1280, 50, 149, 504, 63, 792, 351\n"
        "0-FQbhkWYuY_0002, 720, 1280, 0, 49, 504, 63, 792, 351\n"
    )
    return root


@pytest.fixture
def rates(tmp_path: Path) -> Path:
    """The rates of a build of 10 s of video in 1,000 bytes, with one identity."""
    source = make_source(tmp_path / "measured", {"a.mp4": 600, "b.mp4": 400})
    output = tmp_path / "trial"
    todo = plan_build(configured(source, output), MODELS_USED, replace=False)
    for video in todo.todo:
        todo.staging.write(video, _finished(video))
    build = CliRunner().invoke(app, ["build", str(WORKFLOW), f"source.path={source}", f"output={output}"])
    assert build.exit_code == 0, build.stderr
    return output / "report" / "rates.json"


def _finished(video: Video) -> FinalizedVideo:
    made = accepted(video) if video.uri == "a.mp4" else rejected(video, Reason.NO_FACE)
    seconds = {"probe": 0.5, "decode": 1.5, "score": 0.75, "embed": 0.25} if made.samples else {"probe": 3.0}
    outcome = made.outcome.model_copy(update={"duration_s": 5.0})
    return replace(made, outcome=outcome, seconds=seconds)


def test_the_clips_of_a_dataset_are_counted_exactly(celebv_hq: Path) -> None:
    arguments = (WORKFLOW, "source.kind=celebv-hq", "source.name=celebv-hq", f"source.path={celebv_hq}")
    plan = planned(*arguments)
    assert plan["sources"] == {
        "celebv-hq": {
            "listed": 4,
            "found": 3,
            "missing": 1,
            "duplicate": 1,
            "hours": 6 / 3600,
            # The download once, although two clips are in it.
            "bytes": 70 + 5_000,
            "core_hours": None,
            "gpu_hours": 0.0,
            "disk_bytes": None,
        }
    }
    assert plan["total"] == plan["sources"]["celebv-hq"]
    code, stdout, stderr = run(*arguments)
    assert code == 0
    assert stdout.splitlines() == [
        "source     listed  found  missing  duplicate    hours   bytes  core-hours  GPU-hours     disk",
        "celebv-hq       4      3        1          1  0.00167  5.1 kB     unknown          0  unknown",
        "",
        UNKNOWN,
    ]
    assert stderr.splitlines() == [
        "Ignored 1 video file that the annotations do not name: raw/holiday.mp4.",
        "Ignored 1 video file with the name of another.",
        "warning: 1 of 4 annotated clips have no file: M2Ohb0FAaJU_1.",
    ]


@pytest.mark.usefixtures("credentials", "impatient")
def test_a_source_in_an_object_store_has_the_same_counts(celebv_hq: Path, s3: S3Server) -> None:
    there = path_of("s3://planning0bucket/celebv-hq")
    for path in celebv_hq.rglob("*.*"):
        write_bytes(there / path.relative_to(celebv_hq).as_posix(), path.read_bytes())
    plans = [planned(WORKFLOW, "source.kind=celebv-hq", f"source.path={path}") for path in (celebv_hq, there)]
    assert plans[0] == plans[1]
    code, _, stderr = run(WORKFLOW, "source.path=s3://planning0bucket/none")
    assert (code, stderr.startswith("error: source.path: s3://planning0bucket/none contains no video")) == (
        1,
        True,
    )


def test_clips_that_are_annotated_in_frames_count_at_the_rate_of_the_source(talkinghead: Path) -> None:
    arguments = (WORKFLOW, "source.kind=talkinghead-1kh", "source.name=tubes", f"source.path={talkinghead}")
    plan = planned(*arguments)
    assert plan["total"] | {"hours": None} == dict(
        zip(FIGURES, (3, 2, 1, 0, None, 2_000, None, 0.0, None), strict=True)
    )
    assert plan["total"]["hours"] == pytest.approx(150 / 25 / 3600)
    assert plan["notes"][0] == (
        "tubes: the length of 2 of 2 clips is annotated in frames. hours counts 25 frames a second (frame_rate "
        "of the source)."
    )
    faster = planned(*arguments, "source.frame_rate=50")
    assert faster["total"]["hours"] == pytest.approx(150 / 50 / 3600)


def test_several_sources_have_a_line_each_and_a_total(
    tmp_path: Path, celebv_hq: Path, talkinghead: Path
) -> None:
    make(tmp_path / "own", a=10, sub__b=20)
    workflow = tmp_path / "mix.yaml"
    workflow.write_text(
        "sources: [{kind: talkinghead-1kh}, {kind: celebv-hq}, {name: own}]\n"
        "models: {detector: yunet, embedder: sface, quality: piqe}\n"
    )
    paths = [
        f"sources.talkinghead-1kh.path={talkinghead}",
        f"sources.celebv-hq.path={celebv_hq}",
        f"sources.own.path={tmp_path}/own",
    ]
    plan = planned(workflow, *paths)
    counts = {
        name: [work[figure] for figure in FIGURES if figure != "hours"]
        for name, work in plan["sources"].items()
    }
    assert counts == {
        "talkinghead-1kh": [3, 2, 1, 0, 2_000, None, 0.0, None],
        "celebv-hq": [4, 3, 1, 1, 5_070, None, 0.0, None],
        "own": [2, 2, 0, 0, 30, None, 0.0, None],
    }
    assert plan["total"] == dict(zip(FIGURES, (9, 7, 2, 1, None, 7_100, None, 0.0, None), strict=True))
    _, stdout, stderr = run(workflow, *paths)
    assert [line.split()[0] for line in stdout.splitlines()[:5]] == [
        "source",
        "talkinghead-1kh",
        "celebv-hq",
        "own",
        "total",
    ]
    assert "celebv-hq: warning: 1 of 4 annotated clips have no file: M2Ohb0FAaJU_1." in stderr.splitlines()
    _, stdout, _ = run(workflow, *paths[:2], "sources.own=null")
    assert stdout.splitlines()[3].split()[:2] == ["total", "7"]


def test_a_build_writes_the_rates_that_it_measured(rates: Path) -> None:
    written = json.loads(rates.read_text())
    output = rates.parents[1]
    dataset = Dataset.open(output)
    staged = sum(path.stat().st_size for path in (output / ".staging").rglob("*.parquet"))
    figures = {
        "videos": 2,
        "video_s": 10.0,
        "analysis_s_per_video_s": 0.5,
        "scoring_s_per_video_s": 0.1,
        "identities_per_video_h": 360.0,
        "staged_bytes_per_video": staged / 2,
        "video_s_per_byte": 0.01,
    }
    assert written["all"] == figures | {"kind": None}
    assert written["sources"] == {"demo": figures | {"kind": "folder"}}
    assert written["dataset_bytes_per_identity"] == sum(shard.bytes for shard in dataset.metadata.shards)
    assert written["device"] == "cpu"
    assert written["settings"]["models"]["quality"] == "piqe"


def test_a_build_that_measured_no_length_writes_no_rates(tmp_path: Path) -> None:
    source = make_source(tmp_path / "clips", {"a.mp4": 5})
    output = tmp_path / "mfhq"
    todo = plan_build(configured(source, output), MODELS_USED, replace=False)
    todo.staging.write(todo.todo[0], rejected(todo.todo[0], Reason.UNREADABLE))
    build = CliRunner().invoke(app, ["build", str(WORKFLOW), f"source.path={source}", f"output={output}"])
    assert build.exit_code == 0
    assert (output / "report" / "index.html").is_file()
    assert not (output / "report" / "rates.json").exists()


def test_the_estimate_multiplies_what_was_measured(tmp_path: Path, rates: Path) -> None:
    make(tmp_path / "new", a=30_000, b=6_000)
    plan = planned(WORKFLOW, f"source.path={tmp_path}/new", "--rates", rates)
    measured = json.loads(rates.read_text())
    identities = 360 / 3600 * 360
    expected = {
        "hours": 0.1,
        "core_hours": 0.1 * (0.5 + 0.1),
        "gpu_hours": 0.0,
        "disk_bytes": identities * measured["dataset_bytes_per_identity"]
        + 2 * measured["all"]["staged_bytes_per_video"],
    }
    for figure, value in expected.items():
        assert plan["total"][figure] == pytest.approx(value), figure
    assert (plan["rates"], plan["differences"]) == (str(rates), [])
    assert plan["notes"] == [
        "demo: hours is estimated from the size of the files, 1e+04 s a MB as in the rates.",
        f"core-hours, GPU-hours and disk are estimated with {rates} (videos: 2, hours: 0.00278).",
    ]


def test_the_rates_in_the_output_are_taken_when_none_are_given(tmp_path: Path, rates: Path) -> None:
    make(tmp_path / "new", a=1_000)
    plan = planned(WORKFLOW, f"source.path={tmp_path}/new", f"output={rates.parents[1]}")
    assert plan["total"]["hours"] == pytest.approx(10 / 3600)
    assert planned(WORKFLOW, f"source.path={tmp_path}/new", f"output={tmp_path}/other")["rates"] is None


def test_rates_of_other_settings_are_used_with_a_warning(tmp_path: Path, rates: Path) -> None:
    make(tmp_path / "new", a=1_000)
    plan = planned(WORKFLOW, f"source.path={tmp_path}/new", "--rates", rates, "models.quality=topiq_nr-face")
    assert plan["differences"] == ["models.quality: piqe -> topiq_nr-face"]
    assert plan["notes"][-1] == (
        "warning: the rates were measured with other settings, so the estimate may be far off: models.quality: "
        "piqe -> topiq_nr-face."
    )
    assert plan["total"]["core_hours"] == pytest.approx(10 / 3600 * 0.6)


def test_times_of_another_device_are_unknown(tmp_path: Path, rates: Path) -> None:
    make(tmp_path / "new", a=1_000)
    plan = planned(WORKFLOW, f"source.path={tmp_path}/new", "--rates", rates, "run.device=cuda")
    assert (plan["total"]["core_hours"], plan["total"]["gpu_hours"]) == (None, None)
    assert plan["total"]["disk_bytes"] > 0
    assert plan["differences"] == ["run.device: cpu -> cuda"]
    assert plan["notes"][-1] == (
        "core-hours and GPU-hours are unknown, because the rates were measured with run.device=cpu."
    )


def test_with_a_gpu_scoring_counts_as_its_time(tmp_path: Path, rates: Path) -> None:
    make(tmp_path / "new", a=36_000)
    rates.write_text(rates.read_text().replace('"cpu"', '"cuda"'))
    total = planned(WORKFLOW, f"source.path={tmp_path}/new", "--rates", rates, "run.device=cuda")["total"]
    assert total["core_hours"] == pytest.approx(0.1 * 0.5)
    assert total["gpu_hours"] == pytest.approx(0.1 * 0.1)


def test_rates_of_other_kinds_give_an_estimate_but_no_length(
    tmp_path: Path, celebv_hq: Path, rates: Path
) -> None:
    arguments = (WORKFLOW, "source.kind=celebv-hq", f"source.path={celebv_hq}", "--rates", rates)
    plan = planned(*arguments)
    assert plan["total"]["core_hours"] == pytest.approx(6 / 3600 * 0.6)
    assert plan["notes"][0] == (
        "demo: no source of kind celebv-hq was measured. The estimate takes the rates of all that were."
    )
    make(tmp_path / "new", a=1_000)
    rates.write_text(rates.read_text().replace('"folder"', '"vfhq"'))
    plan = planned(WORKFLOW, f"source.path={tmp_path}/new", "--rates", rates)
    assert plan["total"]["hours"] is None
    assert plan["notes"][0].startswith("demo: hours is unknown, because only opening the files would tell.")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the rates {path}: No such file or directory"),
        ("{", "{path} does not hold rates: Invalid JSON"),
        ('{"device": "tpu"}', "{path} does not hold rates: device: Input should be 'cpu' or 'cuda'"),
    ],
)
def test_a_file_that_holds_no_rates_is_an_error(tmp_path: Path, content: str | None, message: str) -> None:
    make(tmp_path / "new", a=1_000)
    path = tmp_path / "rates.json"
    if content is not None:
        path.write_text(content)
    code, stdout, stderr = run(WORKFLOW, f"source.path={tmp_path}/new", "--rates", path)
    assert (code, stdout) == (1, "")
    assert stderr.startswith(f"error: {message.format(path=path)}")


def test_a_source_that_cannot_be_listed_is_one_message_and_exit_code_1(
    tmp_path: Path, celebv_hq: Path
) -> None:
    message = f"path: {tmp_path}/none is not a directory. Pass the directory that contains the videos."
    assert run(WORKFLOW, f"source.path={tmp_path}/none") == (1, "", f"error: source.{message}\n")
    mix = ["sources.talkinghead-1kh=null", "sources.celebv-text=null", f"sources.celebv-hq.path={celebv_hq}"]
    code, stdout, stderr = run(WORKFLOWS / "curate_mfhq.yaml", *mix, f"sources.vfhq.path={tmp_path}/none")
    assert (code, stdout) == (1, "")
    assert stderr.splitlines()[-1] == f"error: sources.vfhq.{message}"


QUICK = """
import sys
from pipeline.cli import main
try:
    main()
finally:
    print("loaded:", *sorted(sys.modules))
"""


def test_a_plan_loads_neither_ray_nor_networks_and_opens_no_video(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    os.mkfifo(tmp_path / "clips" / "pipe.mp4")  # opening it would wait for a writer
    command = [sys.executable, "-c", QUICK, "plan", WORKFLOWS / "curate_paper.yaml"]
    done = subprocess.run(
        [*command, f"source.path={tmp_path}/clips"], capture_output=True, text=True, check=True, timeout=60
    )
    modules = set(done.stdout.partition("loaded:")[2].split())
    assert not {"ray", "torch", "numpy", "pyarrow", "cv2", "av", "onnxruntime", "mediapipe"} & modules


def test_the_real_annotations_give_exact_counts(metadata: Path, tmp_path: Path) -> None:
    """The genuine lists, with a file for each second clip or chunk."""
    tubes = [
        [field.strip() for field in line.split(",")]
        for name in ("small", "val", "train")
        for line in (metadata / "talkinghead-1kh" / f"{name}_video_tubes.txt").read_text().splitlines()
    ]
    unique = {tuple(tube) for tube in tubes}
    chunks = sorted({tube[0] for tube in unique})[::2]
    make(tmp_path / "talkinghead" / "train", **{f"1min_clips__{chunk}": 1_000 for chunk in chunks})
    for name in ("small", "val", "train"):
        path = metadata / "talkinghead-1kh" / f"{name}_video_tubes.txt"
        (tmp_path / "talkinghead" / path.name).write_bytes(path.read_bytes())
    text = json.loads((metadata / "celebv-text" / "celebvtext_info.sample.json").read_text())
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "celebvtext_info.json").write_text(json.dumps(text))
    for key in text:
        (tmp_path / "text" / f"{key}.mp4").write_bytes(b"12345")
    clips = (metadata / "vfhq" / "clip_names_test_from_EFHQ.txt").read_text().split()
    for clip in clips:
        (tmp_path / "vfhq" / clip).mkdir(parents=True)
        (tmp_path / "vfhq" / clip / "00000000.png").write_bytes(b"123")

    plan = planned(
        WORKFLOWS / "curate_mfhq.yaml",
        "sources.celebv-hq=null",
        *(
            f"sources.{kind}.path={tmp_path / folder}"
            for kind, folder in (
                ("talkinghead-1kh", "talkinghead"),
                ("celebv-text", "text"),
                ("vfhq", "vfhq"),
            )
        ),
    )
    of_chunk = Counter(tube[0] for tube in unique)
    frames = sum(int(tube[4]) - int(tube[3]) + 1 for tube in unique if tube[0] in set(chunks))
    found = sum(of_chunk[chunk] for chunk in chunks)
    talkinghead = plan["sources"]["talkinghead-1kh"]
    assert talkinghead["hours"] == pytest.approx(frames / 25 / 3600)
    assert [talkinghead[figure] for figure in FIGURES[:4]] == [len(unique), found, len(unique) - found, 0]
    assert talkinghead["bytes"] == 1_000 * len(chunks)
    spans = [entry["duration"]["end_sec"] - entry["duration"]["start_sec"] for entry in text.values()]
    celebv_text = plan["sources"]["celebv-text"]
    assert celebv_text["hours"] == pytest.approx(sum(spans) / 3600)
    assert [celebv_text[figure] for figure in FIGURES[:4]] == [len(text), len(text), 0, 0]
    vfhq = plan["sources"]["vfhq"]
    lengths = [
        int(end) - int(start) - 1 for start, end in (c.rpartition("+F")[2].split("-") for c in set(clips))
    ]
    assert vfhq["hours"] == pytest.approx(sum(lengths) / 25 / 3600)
    assert [vfhq[figure] for figure in FIGURES[:4]] == [len(set(clips)), len(set(clips)), 0, 0]
