"""`mfhq status` tells how far a build is, whether it runs, was stopped or killed, or has finished.

These builds need no Ray, because their videos are staged before; tests/e2e/test_watched_build.py has whole ones.
"""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from seaweed import S3Server
from staged_videos import accepted, configured, make_source, rejected
from typer.testing import CliRunner

from pipeline import build_mfhq
from pipeline.cli import app
from pipeline.config import Config
from pipeline.errors import BuildError, Terminated
from pipeline.lock import output_lock
from pipeline.monitor import status as status_module
from pipeline.monitor import writer
from pipeline.monitor.monitor import BuildFacts, Monitor
from pipeline.monitor.state import BuildState, decode_state, status_path
from pipeline.monitor.status import as_json, read_status
from pipeline.monitor.status_text import status_text
from pipeline.monitor.writer import writing
from pipeline.plan import plan_build
from pipeline.progress import Reporter
from shards.schema import Reason
from storage.path import AnyPath, path_of

FACTS = BuildFacts("mfhq", "0123456789abcdef", "mfhq build w.yaml output=/data/mfhq")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "SOON_S", 0.01)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return configured(
        make_source(tmp_path / "clips", {f"{n}.mp4": 10 + n for n in range(6)}), tmp_path / "mfhq"
    )


def stage(config: Config, count: int = 6) -> None:
    """Finish videos as an earlier run does: two are rejected, one failed, the others accepted."""
    weights = build_mfhq.load_build_weights(config)
    plan = plan_build(config, weights, replace=False)
    for video in plan.manifest.videos[:count]:
        number = int(video.uri.removesuffix(".mp4"))
        reason = {1: Reason.NO_FACE, 2: Reason.NO_FACE, 3: Reason.TIMEOUT}.get(number)
        plan.staging.write(video, rejected(video, reason) if reason else accepted(video, (number,)))


def build(config: Config) -> None:
    build_mfhq.run(config, Reporter(Console(file=io.StringIO()), command=FACTS.command))


def written(output: Path) -> BuildState:
    state = decode_state(status_path(output).read_bytes())
    assert state is not None
    return state


def eventually(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def at_work(monitor: Monitor, videos: int = 10) -> None:
    """Three of ten videos are finished on two nodes, one of which has faults."""
    monitor.begin_build(FACTS, videos, 0, None)
    operator = monitor.begin("curate", videos, "videos", lambda _: 7500.0)
    monitor.nodes([("n1", "10.0.0.1 (a, n1)", 4), ("n2", "10.0.0.2 (b, n2)", 4)])
    for number, (status, reason) in enumerate(
        [("accepted", ""), ("rejected", "no_face"), ("failed", "timeout")]
    ):
        items = {"frames": 30, "faces": 25, "tracks": 1, "identities": 1, "bytes": 10**6}
        monitor.video(
            "n1", status, reason, seconds={"decode": 1.0, "score": 3.0}, items=items, attempt=1 + number // 2
        )
        operator.advance(number + 1, time.monotonic() + number)
    monitor.fault("n2", "10.0.0.2 (b, n2)", "/data is not mounted for s3://me:hunter2@bucket")


def ended(monitor: Monitor, output: Path, error: BaseException) -> None:
    """A build that an error ends."""
    with output_lock(output), writing(monitor, output):
        at_work(monitor)
        raise error


def test_a_running_build_is_shown_with_its_progress_counts_stages_and_nodes(tmp_path: Path) -> None:
    monitor, output = Monitor(), tmp_path / "mfhq"
    with output_lock(output), monitor.counting(lambda: {"n1": 4, "n2": 3}):
        at_work(monitor)
        with writing(monitor, output):
            eventually(lambda: status_path(output).exists() and "10.0.0.2" in status_path(output).read_text())
            status = read_status(output)
            text = status_text(status)
    assert status.condition == "running"
    heading, progress, *lines = text.splitlines()
    assert heading.startswith(
        f"{output}: running for 0 s, process {os.getpid()} on {socket.gethostname()}; last update"
    )
    assert progress.startswith("curate      3 of 10 videos (30%) in 0 s, ")
    assert progress.endswith(", about 2 h 05 min left")
    assert lines == [
        "videos      3 of 10: 1 accepted  1 rejected  1 failed",
        "rejected    1 no_face",
        "failed      1 timeout",
        "this run    3.0 MB of files: 90 frames, 75 faces, 3 tracks, 3 identities",
        "stages      score 75%, decode 25% of 12 s of analysers",
        "nodes       2: 7 analysers, room for 8",
        "retries     1 video took more than one attempt",
        "faults      1 on 1 node, each with its last one:",
        "  10.0.0.2 (b, n2), 1 fault: /data is not mounted for s3://<removed>@bucket",
    ]


@pytest.mark.parametrize(
    ("error", "state", "message"),
    [
        (BuildError("2 of 3 nodes fail"), "failed", "2 of 3 nodes fail"),
        (KeyboardInterrupt(), "stopped", None),
        (Terminated(), "stopped", None),
        (MemoryError(), "failed", "MemoryError"),
    ],
)
def test_how_a_build_ended_is_written_with_the_command_that_continues_it(
    tmp_path: Path, error: BaseException, state: str, message: str | None
) -> None:
    monitor, output = Monitor(), tmp_path / "mfhq"
    with pytest.raises(type(error)):
        ended(monitor, output, error)
    status = read_status(output)
    assert (status.condition, written(output).error) == (state, message)
    text = status_text(status)
    assert f": {state} 0 s ago" in text
    assert "curate      3 of 10 videos (30%)" in text
    assert text.endswith(f"To continue, in {Path.cwd()} on {socket.gethostname()}:\n  {FACTS.command}")


def test_a_build_whose_process_was_killed_is_told_from_one_that_runs(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from pipeline.lock import output_lock\n"
        "from pipeline.monitor.monitor import BuildFacts, Monitor; from pipeline.monitor.writer import writing\n"
        "monitor, output = Monitor(), Path(sys.argv[1])\n"
        "monitor.begin_build(BuildFacts('mfhq', 'x', 'mfhq build'), 9, 0, None)\n"
        "with output_lock(output), writing(monitor, output): time.sleep(600)"
    )
    output = tmp_path / "mfhq"
    process = subprocess.Popen([sys.executable, "-c", code, str(output)])
    try:
        eventually(lambda: status_path(output).exists())
        status = read_status(output)
        assert (status.condition, status.owner) == (
            "running",
            f"process {process.pid} on {socket.gethostname()}",
        )
    finally:
        process.kill()
        process.wait()
    killed = read_status(output)
    assert (killed.condition, killed.owner) == ("killed", "")
    text = status_text(killed)
    assert "killed: its process ended without a message; last update " in text
    assert " left" not in text
    assert "nodes" not in text


def test_without_locks_a_build_is_told_by_how_long_it_has_written_nothing(tmp_path: Path) -> None:
    monitor = Monitor()
    with pytest.raises(KeyboardInterrupt):
        ended(monitor, tmp_path, KeyboardInterrupt())
    state = written(tmp_path).model_copy(update={"state": "running"})
    status_path(tmp_path).write_text(state.model_dump_json())
    owner = f"process {state.pid} on {state.host}"
    (tmp_path / ".staging/lock-owner").write_text(owner)
    assert (read_status(tmp_path).condition, read_status(tmp_path).owner) == ("running", owner)
    past = time.time() - 2 * status_module.SILENT_S
    os.utime(status_path(tmp_path), (past, past))
    assert read_status(tmp_path).condition == "killed"


def test_a_build_that_has_just_begun_shows_no_figures_of_the_one_before(config: Config) -> None:
    stage(config)
    build(config)
    with output_lock(config.output):
        lock = config.output / ".staging/lock"
        lock.write_text("process 1 on elsewhere")
        status = read_status(config.output)
    assert (status.condition, status.state) == ("planning", None)
    assert "a build begins, process 1 on elsewhere" in status_text(status)


def test_a_finished_build_tells_as_much_without_its_state_file(config: Config) -> None:
    stage(config)
    build(config)
    finished = read_status(config.output)
    assert finished.condition == "finished"
    state = written(config.output)
    names = [each.name for each in state.operators if each.name != "compare footage of pairs"]
    assert names == ["collect", "link", "pack", "verify", "report"]
    assert all(each.done == each.total for each in state.operators)

    status_path(config.output).unlink()
    without = read_status(config.output)
    assert without.condition == "finished"
    assert without.seconds == finished.seconds == {"probe": 0.75, "decode": 4.5}
    known = as_json(finished), as_json(without)
    assert known[0]["dataset"] == known[1]["dataset"]
    assert known[1]["dataset"]["videos"] == {"accepted": 3, "rejected": 2, "failed": 1}
    assert known[1]["dataset"]["reasons"] == {"rejected": {"no_face": 2}, "failed": {"timeout": 1}}
    text = status_text(without)
    assert "videos      6: 3 accepted  2 rejected  1 failed" in text
    assert "stages      decode 86%, probe 14% of 5 s of analysers" in text


def test_a_continued_build_counts_what_earlier_runs_finished(config: Config) -> None:
    stage(config)
    build(config)
    state = written(config.output)
    assert state.videos.earlier == state.videos.finished == 6
    assert state.videos.statuses == {"accepted": 3, "rejected": 2, "failed": 1}
    assert state.videos.reasons == {"rejected": {"no_face": 2}, "failed": {"timeout": 1}}


def test_counts_of_earlier_runs_are_taken_over_from_their_state() -> None:
    first = Monitor()
    at_work(first)
    second = Monitor()
    second.begin_build(FACTS, 10, 4, first.state())  # one more than the killed run wrote
    second.video("n1", "rejected", "no_face", seconds={}, items={}, attempt=1)
    counts = second.counts()
    assert (counts.earlier, counts.finished) == (4, 5)
    assert counts.statuses == {"accepted": 1, "rejected": 2, "failed": 1}
    assert counts.reasons == {"rejected": {"no_face": 2}, "failed": {"timeout": 1}}
    assert second.lacks_counts


@pytest.mark.parametrize(("earlier", "curation"), [(2, FACTS.curation), (3, "other")])
def test_counts_that_cannot_be_those_of_the_finished_videos_are_not_taken_over(
    earlier: int, curation: str
) -> None:
    first = Monitor()
    at_work(first)
    second = Monitor()
    second.begin_build(BuildFacts("mfhq", curation), 10, earlier, first.state())
    assert second.counts().statuses == {}


def test_a_state_that_cannot_be_written_ends_no_build(config: Config) -> None:
    stage(config)
    status_path(config.output).mkdir(parents=True)
    build(config)
    assert (config.output / "dataset.json").exists()


def test_a_build_that_lost_its_lock_does_not_overwrite_the_state_of_the_next_one(tmp_path: Path) -> None:
    def lost() -> None:
        raise BuildError("another build has the output")

    monitor = Monitor()
    monitor.begin_build(FACTS, 9, 0, None)
    with writing(monitor, tmp_path, lost):
        time.sleep(0.1)
    assert not status_path(tmp_path).exists()


def test_a_state_of_another_version_is_none(tmp_path: Path) -> None:
    state = Monitor().state().model_dump(mode="json")
    assert decode_state(json.dumps(state).encode()) is not None
    assert decode_state(json.dumps(state | {"version": 2}).encode()) is None
    assert decode_state(b"{") is None


def test_a_build_in_a_bucket_is_told_by_its_lease(
    s3: S3Server, credentials: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    s3.upload(make_source(tmp_path / "clips", {"a.mp4": 1}), "watched", "clips")  # makes the bucket
    output = path_of("s3://watched/mfhq")
    with pytest.raises(BuildError, match="holds nothing"):
        read_status(output)
    monitor = Monitor()
    with output_lock(output):
        assert read_status(output).condition == "planning"
        with pytest.raises(KeyboardInterrupt):
            _interrupted(monitor, output)
    stopped = read_status(output)
    assert (stopped.condition, stopped.owner) == ("stopped", "")
    assert "videos      3 of 10: 1 accepted  1 rejected  1 failed" in status_text(stopped)

    # A process that was killed leaves its lease, and a state that says that it runs.
    bucket = output.bucket
    owner = f"process 4711 on {socket.gethostname()}"
    state = stopped.state.model_copy(update={"state": "running", "pid": 4711})
    bucket.write(status_path(output).key, state.model_dump_json().encode())
    bucket.write(f"{output.key}/.staging/lock-owner", json.dumps({"owner": owner, "token": "a"}).encode())
    assert (read_status(output).condition, read_status(output).owner) == ("running", owner)
    monkeypatch.setattr("pipeline.lease.DEAD_AFTER_S", 0.5)
    time.sleep(2)  # a store tells the time of a change in whole seconds
    assert (read_status(output).condition, read_status(output).owner) == ("killed", "")


def _interrupted(monitor: Monitor, output: AnyPath) -> None:
    with writing(monitor, output):
        at_work(monitor)
        eventually(lambda: read_status(output).condition == "running")
        raise KeyboardInterrupt


@pytest.mark.parametrize("make", ["nothing", "file", "empty", "foreign"])
def test_what_is_no_output_is_an_error_that_says_so(tmp_path: Path, make: str) -> None:
    output = tmp_path / "mfhq"
    if make == "file":
        output.write_text("a")
    elif make != "nothing":
        output.mkdir()
        if make == "foreign":
            (output / "a.txt").write_text("a")
    result = CliRunner().invoke(app, ["status", str(output)])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {output} is not")
    assert result.stdout == ""


def test_json_is_one_object_and_watch_ends_with_the_build(config: Config) -> None:
    stage(config)
    build(config)
    once = CliRunner().invoke(app, ["status", str(config.output), "--json"])
    watched = CliRunner().invoke(app, ["status", str(config.output), "--json", "--watch"])
    assert (once.exit_code, watched.exit_code) == (0, 0)
    found: dict[str, Any] = json.loads(once.stdout)
    (line,) = watched.stdout.splitlines()
    assert found["state"] == json.loads(line)["state"] == "finished"
    assert found["build"]["state"] == "finished"


def test_watching_a_build_that_was_stopped_ends_with_an_error_code(tmp_path: Path) -> None:
    monitor = Monitor()
    with pytest.raises(KeyboardInterrupt):
        ended(monitor, tmp_path, KeyboardInterrupt())
    assert CliRunner().invoke(app, ["status", str(tmp_path), "--watch"]).exit_code == 1


def test_the_status_loads_nothing_heavy(tmp_path: Path) -> None:
    monitor = Monitor()
    with pytest.raises(KeyboardInterrupt):
        ended(monitor, tmp_path, KeyboardInterrupt())
    code = (
        "import sys; from pipeline.monitor.status_command import show_status; from storage.path import path_of\n"
        "show_status(path_of(sys.argv[1])); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert not {"ray", "pyarrow", "cv2", "torch", "numpy", "obstore"} & set(done.stdout.split())


def test_a_build_outlives_its_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    monitor = Monitor()
    gone.rmdir()
    assert monitor.state().directory == str(gone)


def test_the_state_of_a_job_names_it_and_no_directory_of_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", '{"metadata": {"job_submission_id": "mfhq-1"}}')
    state = Monitor().state()
    assert (state.job, state.directory) == ("mfhq-1", "")


def test_what_was_finished_but_not_reported_counts_once_it_is_known() -> None:
    monitor = Monitor()
    monitor.begin_build(BuildFacts("faces", "c"), 10, 2, None)
    monitor.finished(5)
    assert monitor.counts().finished == 5
