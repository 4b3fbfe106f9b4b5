"""The launchers start the real trainer: the very torchrun lines, with two "nodes" on this machine.

Most of the time goes into starting processes that import torch, so each test starts as few as show what it says.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from training.engine.jsonl import read_metrics
from training.engine.output import ENCODER_FOLDER
from training.models.pretrained import CONFIG

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "workflows" / "launch"
TINY = str(ROOT / "workflows" / "train_mtd_tiny.yaml")
SHORT = (
    "batch=2",
    "run.per_process=1",
    "run.log_every=1",
    "run.decode_threads=1",
    "validation.identities=2",
    "validation.grid_identities=1",
)
LIMIT_S = 500
"""For a machine that is busy with other things."""
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""Threads of several processes on few cores would wait for each other, and spin meanwhile."""

FAKE_SRUN = """\
#!{python}
# One task on each node, which is one session here. A signal to srun itself does not reach them: they are killed.
import os, signal, subprocess, sys
import psutil

command = sys.argv[1:]
while command[0].startswith("--"):
    command.pop(0)
tasks = [
    subprocess.Popen(command, env=os.environ | {{"SLURM_NODEID": str(node)}}, start_new_session=True)
    for node in range(int(os.environ["SLURM_NNODES"]))
]

def kill(number, frame):
    print("srun: forcing job termination", flush=True)
    for task in tasks:
        for process in [psutil.Process(task.pid), *psutil.Process(task.pid).children(recursive=True)]:
            process.kill()

for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    signal.signal(number, kill)
with open(os.environ["TASKS"], "w") as file:
    file.write(" ".join(str(task.pid) for task in tasks))
sys.exit(max(abs(task.wait()) for task in tasks))
"""
FAKE_SCANCEL = """\
#!{python}
# Signals every process of the job's first step.
import os, sys
import psutil

assert sys.argv[1:] == ["--signal=TERM", "4711.0"], sys.argv
for pid in open(os.environ["TASKS"]).read().split():
    for process in [psutil.Process(int(pid)), *psutil.Process(int(pid)).children(recursive=True)]:
        process.terminate()
"""
FAKE_SCONTROL = """\
#!/usr/bin/env bash
case $1 in
    show) printf '127.0.0.1\\n127.0.0.1\\n' ;;
    requeue) echo "$2" >>"$REQUEUED" ;;
esac
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sys.path.insert(0, str(ROOT / "tests" / "shards"))
    import shards_factory

    root = tmp_path_factory.mktemp("data") / "a data set"
    shards_factory.build(root)
    return root


@contextmanager
def started(command: list[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A launcher with all that it starts, which is gone when the block ends."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | ONE_THREAD | {"PYTHON": sys.executable} | environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    import psutil

    if process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
    process.kill()
    process.wait()


def wait_for_steps(output: Path, steps: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + LIMIT_S
    metrics = output / "metrics.jsonl"
    while not (metrics.exists() and len(read_metrics(metrics)) >= steps):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def saved(output: Path) -> list[tuple[int, int]]:
    """Step and number of processes of each checkpoint."""
    states = [json.loads(path.read_text()) for path in sorted(output.glob("checkpoints/step-*/state.json"))]
    return [(state["step"], state["world_size"]) for state in states]


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_scripts_pass_shellcheck() -> None:
    scripts = sorted(str(path) for path in LAUNCH.iterdir() if path.suffix in {".sh", ".sbatch"})
    assert len(scripts) == 3
    command = [str(Path(sys.executable).with_name("shellcheck")), "--external-sources", *scripts]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("name", ["one_machine.sh", "slurm.sbatch", "torchrun.sh"])
def test_scripts_can_be_executed(name: str) -> None:
    assert os.access(LAUNCH / name, os.X_OK)


@pytest.mark.slow
def test_one_machine_saves_and_exits_0_when_asked_to_stop(dataset: Path, tmp_path: Path) -> None:
    output, log = tmp_path / "it's $HOME; a `run`", tmp_path / "log"
    command = [str(LAUNCH / "one_machine.sh"), TINY, f"data.root={dataset}", f"output={output}", *SHORT]
    with started([*command, "steps=100000"], log, NPROC="2") as process:
        wait_for_steps(output, 2, process, log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0, log.read_text()
    ((stopped, world_size),) = saved(output)
    assert world_size == 2
    assert f"stopped and saved at step {stopped}" in log.read_text()


SLOW_TO_LISTEN = """\
import pathlib, signal, sys, time
pathlib.Path(sys.argv[1]).touch()
time.sleep(3)  # importing torch
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
time.sleep(60)
"""


def test_a_request_to_stop_is_heard_by_a_trainer_that_is_only_starting(tmp_path: Path) -> None:
    program, begun, log = tmp_path / "a program.py", tmp_path / "be gun", tmp_path / "log"
    program.write_text(SLOW_TO_LISTEN)
    command = [str(LAUNCH / "torchrun.sh"), "--standalone", "--nproc-per-node=1", str(program), str(begun)]
    with started(command, log) as process:
        while not begun.exists():
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0, log.read_text()


FINISH = "import os, pathlib; pathlib.Path(os.environ['FINISHED_WHEN']).touch()"


@pytest.mark.parametrize(
    ("program", "code"),
    [(FINISH, 0), ("", 75), (f"{FINISH}; exit(3)", 1)],
    ids=["finished", "stopped", "failed"],
)
def test_the_exit_code_tells_finished_from_stopped_from_failed(
    tmp_path: Path, program: str, code: int
) -> None:
    (tmp_path / "program.py").write_text(program)
    environment = {"FINISHED_WHEN": str(tmp_path / "marker"), "FINISHED_POLL_S": "0.01"}
    command = [
        str(LAUNCH / "torchrun.sh"),
        "--standalone",
        "--nproc-per-node=1",
        str(tmp_path / "program.py"),
    ]
    with started(command, tmp_path / "log", **environment) as process:
        assert process.wait(LIMIT_S) == code, (tmp_path / "log").read_text()


@pytest.mark.slow
def test_slurm_starts_one_torchrun_a_node_and_queues_the_job_again_when_time_runs_out(
    dataset: Path, tmp_path: Path
) -> None:
    executable(tmp_path / "bin" / "srun", FAKE_SRUN.format(python=sys.executable))
    executable(tmp_path / "bin" / "scancel", FAKE_SCANCEL.format(python=sys.executable))
    executable(tmp_path / "bin" / "scontrol", FAKE_SCONTROL)
    output, requeued = tmp_path / "a run", tmp_path / "requeued"
    environment = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "REQUEUED": str(requeued),
        "TASKS": str(tmp_path / "tasks"),
        "NPROC": "1",
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_NNODES": "2",
    }
    script = ["bash", str(LAUNCH / "slurm.sbatch"), TINY, f"data.root={dataset}", f"output={output}", *SHORT]
    log = tmp_path / "log"
    with started([*script, "steps=100000"], log, PORT=free_port(), **environment) as process:
        wait_for_steps(output, 2, process, log)
        process.send_signal(signal.SIGUSR1)
        assert process.wait(LIMIT_S) == 0, log.read_text()
    ((stopped, world_size),) = saved(output)
    assert world_size == 2
    assert f"stopped and saved at step {stopped}" in log.read_text()
    assert requeued.read_text() == "4711\n"


def test_slurm_says_where_to_submit_from(tmp_path: Path) -> None:
    environment = os.environ | {"SLURM_SUBMIT_DIR": str(tmp_path)}
    result = subprocess.run(
        ["bash", str(LAUNCH / "slurm.sbatch"), TINY],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert result.returncode == 1
    assert "submit this from the repository" in result.stderr


def manifests() -> dict[str, dict[str, Any]]:
    documents = yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text())
    return {document["kind"]: document for document in documents}


def test_the_manifests_follow_the_schemas_of_kubernetes() -> None:
    for document in manifests().values():
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_the_parts_of_the_manifests_agree() -> None:
    service, job = manifests()["Service"], manifests()["Job"]
    name, spec = job["metadata"]["name"], job["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    assert environment["FIRST_POD"] == f"{name}-0.{service['metadata']['name']}"
    assert spec["template"]["spec"]["subdomain"] == service["metadata"]["name"]
    assert environment["PORT"] == str(service["spec"]["ports"][0]["port"])
    assert environment["FINISHED_WHEN"] == f"$(OUTPUT)/{ENCODER_FOLDER}/{CONFIG}"
    assert int(environment["NODES"]) == spec["completions"] == spec["parallelism"]
    assert int(environment["NPROC"]) == container["resources"]["limits"]["nvidia.com/gpu"]
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in spec["template"]["spec"]["volumes"]}


def test_the_manifests_hold_no_credentials() -> None:
    (container,) = manifests()["Job"]["spec"]["template"]["spec"]["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "omniid-storage"}}]
    assert not [entry for entry in container["env"] if re.search("KEY|TOKEN|SECRET", entry["name"])]


def pod(index: int, changes: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Command and environment of the pod of an index, with `$(NAME)` expanded as Kubernetes does."""
    (container,) = manifests()["Job"]["spec"]["template"]["spec"]["containers"]
    environment = {"JOB_COMPLETION_INDEX": str(index)}

    def expanded(text: str) -> str:
        return re.sub(r"\$\((\w+)\)", lambda name: environment[name[1]], text)

    for entry in container["env"]:
        if "value" in entry:
            environment[entry["name"]] = expanded(changes.get(entry["name"], entry["value"]))
    return [expanded(word) for word in container["command"] + container["args"]], environment


@contextmanager
def pods(
    dataset: Path, output: Path, steps: int, **environment: str
) -> Iterator[list[tuple[subprocess.Popen[bytes], Path]]]:
    """Both pods of the Job, with the log of each, on the tiny workflow."""
    changes = {"NPROC": "1", "FIRST_POD": "127.0.0.1", "PORT": free_port(), "OUTPUT": str(output)}
    with ExitStack() as stack:
        running = []
        for index in range(2):
            command, own = pod(index, changes)
            command[command.index("workflows/train_mtd_paper.yaml")] = TINY
            command[command.index("data.root=s3://bucket/mfhq")] = f"data.root={dataset}"
            command[command.index("run.cache.folder=/cache")] = f"run.cache.folder={output}-cache-{index}"
            log = output.with_name(f"{output.name}-log-{index}")
            own |= {"FINISHED_POLL_S": "0.05"} | environment
            running.append(
                (stack.enter_context(started([*command, *SHORT, f"steps={steps}"], log, **own)), log)
            )
        yield running


@pytest.mark.slow
def test_kubernetes_starts_two_pods_that_find_each_other_and_a_stop_is_not_taken_for_the_end(
    dataset: Path, tmp_path: Path
) -> None:
    output = tmp_path / "a run"
    with pods(dataset, output, steps=100_000) as ((leader, log), (follower, other_log)):
        wait_for_steps(output, 2, leader, log)
        follower.send_signal(signal.SIGTERM)
        assert follower.wait(LIMIT_S) == 75, other_log.read_text()
        assert leader.wait(LIMIT_S) == 75, log.read_text()
    ((_, world_size),) = saved(output)
    assert world_size == 2


@pytest.mark.slow
def test_kubernetes_pods_are_done_when_the_run_is_and_at_once_when_it_was_before(
    dataset: Path, tmp_path: Path
) -> None:
    output = tmp_path / "a run"
    with pods(dataset, output, steps=1) as running:
        assert [pod.wait(LIMIT_S) for pod, _ in running] == [0, 0], [log.read_text() for _, log in running]
    assert saved(output) == [(1, 2)]
    # The other pods may be done and never come back; nobody would answer a torchrun.
    with pods(dataset, output, steps=1, PYTHON="/nothing/is/started") as running:
        assert [pod.wait(LIMIT_S) for pod, _ in running] == [0, 0]
    assert all("nothing to do" in log.read_text() for _, log in running)
