"""The command line gives help fast, states errors in one message, and reports by its exit code."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from report_factory import build as build_dataset
from staged_videos import MODELS_USED, WORKFLOW, accepted, configured, make_source, rejected
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.plan import plan_build
from pipeline.sources.manifest import Video
from pipeline.stages.finalize import FinalizedVideo
from shards.reader import Dataset
from shards.schema import Reason

SCRIPTS = Path(sys.executable).parent
ENTRY = Path(__file__).parents[2] / "pipeline" / "build_mfhq.py"
HEAVY = ("ray", "torch", "mediapipe", "onnxruntime", "pyiqa", "insightface", "plotly", "sklearn")


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def stage(source: Path, output: Path, outcome_of: dict[str, Reason | None]) -> None:
    """Finish all videos of a source, each with a reason or, where that is None, with an identity."""
    planned = plan_build(configured(source, output), MODELS_USED, replace=False)
    for video in planned.todo:
        planned.staging.write(video, _decided(video, outcome_of[video.uri]))


def _decided(video: Video, reason: Reason | None) -> FinalizedVideo:
    return accepted(video) if reason is None else rejected(video, reason)


HELP = """
import sys
sys.argv = ["mfhq", *sys.argv[1:], "--help"]
from pipeline.cli import main
try:
    main()
finally:
    print("loaded:", *sorted(sys.modules))
"""


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ((), ["build", "photos", "plan", "verify", "report", "demo-clips", "models", "WebDataset shards"]),
        (
            ("build",),
            [
                "continues a build that was stopped",
                "pipeline/config.py",
                "--retry-failed",
                "--retry-reason",
                "--log-format",
                "--retry ",
                "OUTPUT/report/not_accepted.tsv",
                "source.include",
                "source.kind=celebv-hq",
                "130",
            ],
        ),
        (
            ("photos",),
            ["Example: mfhq photos", "--aligned", "OUTPUT/report/photographs.tsv", "people.fill_from", "130"],
        ),
        (("plan",), ["Opens no video and needs no weights", "--rates", "--json", "Example: mfhq plan"]),
        (("verify",), ["Exit code 0: no errors", "Example: mfhq verify /data/mfhq"]),
        (("explain",), ["mfhq explain /data/mfhq -2KGPYEFnsU_8"]),
        (("status",), ["the command that continues it", "--watch", "Example: mfhq status s3://"]),
        (("report",), ["opens without a network", "Example: mfhq report /data/mfhq"]),
        (("demo-clips",), ["truth.json", "Example: mfhq demo-clips /tmp/clips"]),
        (("models", "pull"), ["sha256", "Example: mfhq models pull"]),
    ],
)
def test_help_is_instant_because_nothing_heavy_is_loaded_for_it(
    command: tuple[str, ...], expected: list[str]
) -> None:
    done = subprocess.run([sys.executable, "-c", HELP, *command], capture_output=True, text=True, check=True)
    shown, _, modules = done.stdout.partition("loaded:")
    assert not {*HEAVY, "cv2", "scipy", "pyarrow"} & set(modules.split())
    for text in expected:
        assert text in shown


def test_the_script_that_ray_job_submit_runs_works_from_any_folder(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ENTRY), "--help"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "Usage: build_mfhq.py [OPTIONS] {workflow} [[SECTION.KEY=VALUE]...]..." in done.stdout
    assert "continues a build that was stopped" in done.stdout


def test_the_installed_command_answers_errors_in_words(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(SCRIPTS / "mfhq"), "build", str(WORKFLOW), "faces.min_pixels=3", "source.path=a", "output=b"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    first, second = done.stderr.splitlines()
    assert first == f"error: the configuration ({WORKFLOW} and the overrides) is invalid:"
    assert second.startswith("  faces.min_pixels: no such key; did you mean faces.min_px?")
    assert list(tmp_path.iterdir()) == []


def test_a_workflow_that_is_not_there_is_named(tmp_path: Path) -> None:
    code, _, stderr = run("build", tmp_path / "none.yaml")
    assert (code, stderr) == (
        1,
        f"error: cannot read the workflow {tmp_path}/none.yaml: No such file or directory\n",
    )


@pytest.mark.parametrize("arguments", [("./-odd.yaml",), ("--", "-odd.yaml")])
def test_a_workflow_may_begin_with_a_dash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-odd.yaml").write_text("nothing: 1\n")
    code, _, stderr = run("build", *arguments, "output=x")
    assert code == 1
    assert "-odd.yaml and the overrides) is invalid:" in stderr
    assert "nothing: no such key" in stderr


def test_a_mistyped_option_is_a_mistake_of_usage_and_starts_nothing() -> None:
    code, _, stderr = run("build", WORKFLOW, "--replaced")
    assert code == 2
    assert "No such option: --replaced" in stderr


def test_a_build_ends_with_what_was_made_and_its_path(tmp_path: Path) -> None:
    reasons = {
        "a.mp4": None,
        "b.mp4": Reason.NO_FACE,
        "c.mp4": Reason.TIMEOUT,
        "d.mp4": Reason.NO_FACE,
        "e.mp4": Reason.TOO_FEW_POSES,
    }
    source = make_source(tmp_path / "clips", dict.fromkeys(reasons, 9))
    output = tmp_path / "mfhq"
    stage(source, output, reasons)

    code, stdout, stderr = run("build", WORKFLOW, f"source.path={source}", f"output={output}")
    assert code == 0
    lines = stdout.splitlines()
    assert lines[:5] == [
        "videos      5: 1 accepted  3 rejected  1 failed",
        "rejected    2 no_face, 1 too_few_poses",
        "failed      1 timeout",
        "identities  1: 1 train  0 test  (1 person)",
        "images      8",
    ]
    assert lines[5].startswith("shards      1 (")
    assert lines[5].endswith(f" MB) in {output}")
    assert lines[6:] == [
        f"report      {output}/report/index.html",
        f"list        4 videos not accepted: {output}/report/not_accepted.tsv",
    ]
    assert "5 videos, 5 finished by an earlier run" in stderr
    assert "warning" not in stderr


def test_a_retry_that_names_what_does_not_exist_is_one_line(tmp_path: Path) -> None:
    source = make_source(tmp_path / "clips", {"a.mp4": 9, "b.mp4": 9})
    output = tmp_path / "mfhq"
    stage(source, output, {"a.mp4": Reason.TIMEOUT, "b.mp4": Reason.NO_FACE})
    build = ("build", WORKFLOW, f"source.path={source}", f"output={output}")
    code, stdout, stderr = run(*build, "--retry-reason", "no_face", "--retry-reason", "slow")
    assert (code, stdout) == (1, "")
    assert stderr == (
        "error: --retry-reason slow: no finished video has this reason. These occur: no_face (1), timeout (1)\n"
    )
    (tmp_path / "list.tsv").write_text("demo/z.mp4\n")
    code, stdout, stderr = run(*build, "--retry", tmp_path / "list.tsv")
    assert (code, stdout) == (1, "")
    assert stderr.startswith(
        f"error: --retry {tmp_path}/list.tsv: 1 of 1 listed videos are not in the source: "
    )


def test_annotated_clips_without_a_file_are_in_the_summary_and_in_the_list(tmp_path: Path) -> None:
    entry = {
        "ytb_id": "-2KGPYEFnsU",
        "duration": {"start_sec": 1, "end_sec": 3},
        "bbox": {"top": 0.1, "bottom": 0.6, "left": 0.2, "right": 0.4},
    }
    clips = {f"-2KGPYEFnsU_{number}": entry for number in range(3)}
    source = make_source(tmp_path / "clips", {"-2KGPYEFnsU_1.mp4": 9})
    (source / "celebvtext_info.json").write_text(json.dumps({"clips": clips}))
    output = tmp_path / "mfhq"
    overrides = ("source.kind=celebv-text", "source.name=text")
    planned = plan_build(configured(source, output, *overrides), MODELS_USED, replace=False)
    (video,) = planned.todo
    planned.staging.write(video, accepted(video))

    code, stdout, _ = run("build", WORKFLOW, f"source.path={source}", f"output={output}", *overrides)
    assert code == 0
    path = output / "report" / "not_accepted.tsv"
    assert stdout.splitlines()[-1] == f"list        2 annotated clips without a file: {path}"
    no_file = "the annotations list this clip, but no file has its name"
    assert path.read_text().splitlines()[1:] == [
        f"missing\t\ttext\ttext/-2KGPYEFnsU_{number}\t\t{no_file}" for number in (0, 2)
    ]
    code, stdout, stderr = run("explain", output, "-2KGPYEFnsU_2")
    assert (code, stdout, stderr) == run("explain", output, "--", "-2KGPYEFnsU_2")
    assert (code, stdout) == (1, "")
    assert stderr == (
        "error: '-2KGPYEFnsU_2' is annotated in text, but no file has its name, so there is nothing to curate. "
        "Get the file and run the build again\n"
    )


def test_a_duplicate_explains_why_fewer_videos_are_accepted_than_curation_reported(tmp_path: Path) -> None:
    source = make_source(tmp_path / "clips", {"a.mp4": 9})
    shutil.copy(source / "a.mp4", source / "copy.mp4")
    output = tmp_path / "mfhq"
    stage(source, output, {"a.mp4": None, "copy.mp4": None})

    _, stdout, _ = run("build", WORKFLOW, f"source.path={source}", f"output={output}")
    assert stdout.splitlines()[:2] == [
        "videos      2: 1 accepted  1 rejected  0 failed",
        "rejected    1 duplicate_video (found after curation)",
    ]


def test_a_build_that_gave_no_identity_exits_with_0_and_names_the_reasons(tmp_path: Path) -> None:
    source = make_source(tmp_path / "clips", {"a.mp4": 9, "b.mp4": 8, "c.mp4": 7})
    output = tmp_path / "mfhq"
    stage(source, output, {"a.mp4": Reason.NO_FACE, "b.mp4": Reason.NO_FACE, "c.mp4": Reason.TIMEOUT})

    code, stdout, stderr = run("build", WORKFLOW, f"source.path={source}", f"output={output}")
    assert code == 0
    assert "identities  0: 0 train  0 test" in stdout
    last = stderr.splitlines()[-1]
    assert last == (
        "warning: none of 3 videos gave an identity. The summary and the report name the reasons."
    )
    assert "rejected    2 no_face\nfailed      1 timeout\n" in stdout
    assert len(list(Dataset.open(output).videos())) == 3
    assert (output / "report" / "index.html").is_file()


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    build_dataset(tmp_path / "mfhq", accepted=3)
    return tmp_path / "mfhq"


def test_verify_of_a_sound_dataset_exits_with_0(dataset: Path) -> None:
    code, stdout, stderr = run("verify", dataset)
    assert (code, stdout) == (0, f"{dataset}: valid, no errors\n")
    assert "verify: 3/3" in stderr


def test_verify_names_the_member_of_a_flipped_byte_and_exits_with_1(dataset: Path) -> None:
    place = Dataset.open(dataset).locate(Dataset.open(dataset).keys()[1])
    offset, size = place.members["5.jpg"]
    shard = dataset / place.shard
    data = bytearray(shard.read_bytes())
    data[offset + size // 2] ^= 1
    shard.write_bytes(data)

    code, stdout, stderr = run("verify", dataset)
    assert code == 1
    assert f"member_digest: {place.shard}:{place.key}.5.jpg" in stdout
    assert stderr.splitlines()[-1] == f"{dataset}: {len(stdout.splitlines())} errors"


@pytest.mark.parametrize("command", ["verify", "report"])
def test_a_path_that_is_no_dataset_is_one_line(tmp_path: Path, command: str) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "stopped" / ".staging").mkdir(parents=True)
    messages = {
        "none": "is not a directory. Pass the directory or URL that contains dataset.json.",
        "other": "is not a dataset: it has no dataset.json. Pass the output directory of a build.",
        "stopped": "is not a dataset: it has no dataset.json. The build there is not finished. "
        "If it is not running, run its command again.",
    }
    for name, message in messages.items():
        assert run(command, tmp_path / name) == (1, "", f"error: {tmp_path}/{name} {message}\n")
    assert not list(tmp_path.rglob("report"))


@pytest.mark.parametrize("command", ["verify", "report"])
def test_a_damaged_dataset_json_is_an_error(tmp_path: Path, command: str) -> None:
    (tmp_path / "dataset.json").write_bytes(b"{")
    code, stdout, stderr = run(command, tmp_path)
    assert code == 1
    assert "dataset.json is not JSON" in stdout + stderr
    assert not (tmp_path / "report").exists()


def test_report_draws_the_page_again(dataset: Path) -> None:
    code, stdout, _ = run("report", dataset)
    assert (code, stdout) == (0, f"{dataset}/report/index.html\n")
    assert (dataset / "report" / "index.html").stat().st_size > 10_000


def test_report_of_a_table_that_was_changed_exits_with_1(dataset: Path) -> None:
    table = pq.read_table(dataset / "videos-g0000.parquet")
    pq.write_table(table.slice(0, len(table) - 1), dataset / "videos-g0000.parquet")
    code, stdout, stderr = run("report", dataset)
    assert code == 1
    assert "videos-g0000.parquet: its sha256 is not the one in dataset.json" in stdout
    assert stderr == f"{dataset}: 1 error\n"


def test_report_of_a_table_that_cannot_be_read_exits_with_1(dataset: Path) -> None:
    (dataset / "images-g0000.parquet").write_bytes(b"PAR1")
    code, stdout, stderr = run("report", dataset)
    assert (code, stdout) == (1, "")
    assert stderr.startswith("error: images-g0000.parquet cannot be read: ")


def test_report_of_a_damaged_or_missing_shard_exits_with_1(dataset: Path) -> None:
    place = Dataset.open(dataset).locate(Dataset.open(dataset).keys()[1])
    offset, _ = place.members["5.jpg"]
    shard = dataset / place.shard
    whole = shard.read_bytes()
    shard.write_bytes(whole[:offset] + b"damage" + whole[offset + 6 :])
    code, stdout, _ = run("report", dataset)
    assert code == 1
    assert stdout.splitlines()[1:] == [
        f"{place.shard}: member {place.key}.5.jpg is damaged: its sha256 is wrong"
    ]

    shard.write_bytes(whole[:-512])
    code, stdout, _ = run("report", dataset)
    assert code == 1
    assert f"{place.shard}: {len(whole) - 512:,} bytes, but dataset.json lists {len(whole):,}" in stdout

    shard.unlink()
    code, stdout, _ = run("report", dataset)
    assert code == 1
    assert f"{place.shard}: missing" in stdout


def test_clips_cannot_be_made_where_a_file_exists(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    code, _, stderr = run("demo-clips", tmp_path / "file")
    assert code == 1
    assert stderr.startswith(f"error: cannot make the clips in {tmp_path}/file: ")
