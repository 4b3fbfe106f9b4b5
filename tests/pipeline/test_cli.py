"""The command line helps at once, says what is wrong in words, and tells scripts by its exit code."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

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
    planned = plan_build(configured(source, output), MODELS_USED, replace=False, retry_failed=False)
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
    ("command", "told"),
    [
        ((), ["build", "verify", "report", "demo-clips", "models", "WebDataset shards"]),
        (("build",), ["continues a build that was stopped", "pipeline/config.py", "--retry-failed"]),
    ],
)
def test_help_is_instant_because_nothing_heavy_is_loaded_for_it(
    command: tuple[str, ...], told: list[str]
) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", HELP, *command], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2
    shown, _, modules = done.stdout.partition("loaded:")
    assert not {*HEAVY, "cv2", "scipy", "pyarrow"} & set(modules.split())
    for text in told:
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


def test_a_build_ends_with_what_was_made_and_where_it_lies(tmp_path: Path) -> None:
    source = make_source(tmp_path / "clips", {"a.mp4": 9, "b.mp4": 8, "c.mp4": 7})
    output = tmp_path / "mfhq"
    stage(source, output, {"a.mp4": None, "b.mp4": Reason.NO_FACE, "c.mp4": Reason.TIMEOUT})

    code, stdout, stderr = run("build", WORKFLOW, f"source.path={source}", f"output={output}")
    assert code == 0
    lines = stdout.splitlines()
    assert lines[:3] == [
        "videos      3: 1 accepted  1 rejected  1 failed",
        "identities  1: 1 train  0 test  (1 persons)",
        "images      8",
    ]
    assert lines[3].startswith("shards      1 (")
    assert lines[3].endswith(f" MB) in {output}")
    assert lines[4:] == [f"report      {output}/report/index.html"]
    assert "3 videos, 3 finished by an earlier run" in stderr
    assert "warning" not in stderr


def test_a_build_that_gave_no_identity_is_fine_but_says_why(tmp_path: Path) -> None:
    source = make_source(tmp_path / "clips", {"a.mp4": 9, "b.mp4": 8, "c.mp4": 7})
    output = tmp_path / "mfhq"
    stage(source, output, {"a.mp4": Reason.NO_FACE, "b.mp4": Reason.NO_FACE, "c.mp4": Reason.TIMEOUT})

    code, stdout, stderr = run("build", WORKFLOW, f"source.path={source}", f"output={output}")
    assert code == 0
    assert "identities  0: 0 train  0 test" in stdout
    last = stderr.splitlines()[-1]
    assert last == "warning: none of 3 videos gave an identity: 2 no_face, 1 timeout"
    assert len(list(Dataset.open(output).videos())) == 3
    assert (output / "report" / "index.html").is_file()


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    build_dataset(tmp_path / "mfhq", accepted=3)
    return tmp_path / "mfhq"


def test_verify_of_a_sound_data_set_exits_with_0(dataset: Path) -> None:
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
@pytest.mark.parametrize("content", [None, b"{"])
def test_a_folder_that_is_no_data_set_is_said_to_be_none(
    tmp_path: Path, command: str, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "dataset.json").write_bytes(content)
    code, stdout, stderr = run(command, tmp_path)
    assert code == 1
    expected = "is no finished dataset" if content is None else "dataset.json is not JSON"
    assert expected in stdout + stderr
    assert not (tmp_path / "report").exists()


def test_report_draws_the_page_again(dataset: Path) -> None:
    code, stdout, _ = run("report", dataset)
    assert (code, stdout) == (0, f"{dataset}/report/index.html\n")
    assert (dataset / "report" / "index.html").stat().st_size > 10_000


def test_clips_cannot_be_made_where_a_file_lies(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    code, _, stderr = run("demo-clips", tmp_path / "file")
    assert code == 1
    assert stderr.startswith(f"error: cannot make the clips in {tmp_path}/file: ")
