"""The launchers start the real trainer: the very torchrun lines, with two "nodes" on this machine.

Most of the time goes into starting processes that import torch, so each test starts as few as show what it says.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launches import (
    LAUNCH,
    LIMIT_S,
    ROOT,
    SHORT,
    TINY,
    executable,
    free_port,
    saved,
    started,
    wait_for_steps,
)

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


def test_scripts_pass_shellcheck() -> None:
    scripts = sorted(str(path) for path in LAUNCH.iterdir() if path.suffix in {".sh", ".sbatch"})
    assert len(scripts) == 4
    command = [str(Path(sys.executable).with_name("shellcheck")), "--external-sources", *scripts]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("name", ["one_machine.sh", "slurm.sbatch", "torchrun.sh"])
def test_scripts_can_be_executed(name: str) -> None:
    assert os.access(LAUNCH / name, os.X_OK)


@pytest.mark.slow
def test_one_machine_saves_and_exits_0_after_sigterm(launched_data: Path, tmp_path: Path) -> None:
    output, log = tmp_path / "it's $HOME; a `run`", tmp_path / "log"
    command = [str(LAUNCH / "one_machine.sh"), TINY, f"data.root={launched_data}", f"output={output}", *SHORT]
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
sys.exit("no signal")
"""


def test_sigterm_stops_a_trainer_that_is_still_starting(tmp_path: Path) -> None:
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
def test_exit_codes_distinguish_finished_stopped_and_failed(tmp_path: Path, program: str, code: int) -> None:
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
def test_slurm_starts_one_torchrun_per_node_and_requeues_the_job_at_the_time_limit(
    launched_data: Path, tmp_path: Path
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
    script = [
        "bash",
        str(LAUNCH / "slurm.sbatch"),
        TINY,
        f"data.root={launched_data}",
        f"output={output}",
        *SHORT,
    ]
    log = tmp_path / "log"
    with started([*script, "steps=100000"], log, PORT=free_port(), **environment) as process:
        wait_for_steps(output, 2, process, log)
        process.send_signal(signal.SIGUSR1)
        assert process.wait(LIMIT_S) == 0, log.read_text()
    ((stopped, world_size),) = saved(output)
    assert world_size == 2
    assert f"stopped and saved at step {stopped}" in log.read_text()
    assert requeued.read_text() == "4711\n"


def test_the_slurm_script_outside_of_a_job_prints_how_to_submit_it() -> None:
    outside = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    result = subprocess.run(
        ["bash", str(LAUNCH / "slurm.sbatch"), TINY, "output=/shared/run"],
        check=False,
        capture_output=True,
        text=True,
        env=outside,
    )
    assert result.returncode == 2
    assert result.stderr == (
        "this is not a Slurm job. Submit it with: "
        f"sbatch --nodes=2 workflows/launch/slurm.sbatch {TINY} output=/shared/run\n"
    )


def test_the_slurm_script_names_the_directory_to_submit_from(tmp_path: Path) -> None:
    environment = os.environ | {"SLURM_JOB_ID": "4711", "SLURM_SUBMIT_DIR": str(tmp_path)}
    result = subprocess.run(
        ["bash", str(LAUNCH / "slurm.sbatch"), TINY],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert result.returncode == 1
    assert "Submit this from the repository" in result.stderr
