"""Tasks in processes of this machine: results, errors, and the ends of processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipeline.cluster.workers import PER_CPU, InProcess, Processes
from pipeline.errors import BuildError
from tests.processes import has_ended


def fails_at_three(number: int) -> int:
    if number == 3:
        raise BuildError("three")
    return number * 10


def dies_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_results_have_the_places_of_their_items_and_items_are_taken_as_they_are_needed() -> None:
    taken: list[int] = []

    def items() -> list[int]:
        for number in range(9):
            taken.append(number)
            yield number  # type: ignore[misc]

    results = Processes(2).run(abs, items())  # type: ignore[arg-type]
    first = next(results)
    assert len(taken) <= 2 * PER_CPU + 1
    assert sorted([first, *results]) == [(number, number) for number in range(9)]


@pytest.mark.parametrize("workers", [InProcess(), Processes(2)])
def test_what_a_task_raises_is_raised_as_it_is(workers: InProcess | Processes) -> None:
    with pytest.raises(BuildError, match=r"^three$"):
        list(workers.run(fails_at_three, range(6)))


def test_a_process_that_is_killed_ends_the_work_with_the_likely_cause() -> None:
    with pytest.raises(BuildError, match="was killed; this machine may be short of memory"):
        list(Processes(2).run(dies_at_three, range(6)))


DRIVER = """
import sys, time
from pipeline.cluster.workers import Processes
if __name__ == "__main__":
    for result in Processes(2).run(time.sleep, [0, 0, 0, 600, 600]):
        print("working", flush=True)
"""


def test_processes_end_with_a_driver_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    driver = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, env=environment)
    assert driver.stdout is not None
    for _ in range(3):
        assert driver.stdout.readline() == b"working\n"
    started = psutil.Process(driver.pid).children(recursive=True)
    assert len(started) >= 2
    driver.kill()
    driver.wait()
    end = time.monotonic() + 20
    while not all(map(has_ended, started)):
        assert time.monotonic() < end
        time.sleep(0.1)


HANGING = """
import os, sys
from pathlib import Path
from pipeline.errors import BuildError
from pipeline.cluster.workers import Processes
def read(path: Path) -> bytes:
    return path.read_bytes()
if __name__ == "__main__":
    try:
        for number, found in Processes(2, timeout_s=2).run(read, [Path(sys.argv[0]), Path(sys.argv[1])]):
            print(number, len(found) > 0, flush=True)
    except BuildError as error:
        print(error, flush=True)
"""


def test_a_task_that_hangs_ends_the_work_and_its_process(tmp_path: Path) -> None:
    script, pipe = tmp_path / "driver.py", tmp_path / "pipe"
    script.write_text(HANGING)
    os.mkfifo(pipe)  # there is no writer
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    driver = subprocess.run(
        [sys.executable, str(script), str(pipe)], capture_output=True, env=environment, timeout=60, check=True
    )
    assert driver.stdout.decode() == (
        "0 True\n"
        "task 2: nothing was read or written for 2 s (run.storage_timeout_s). Check the mount of the output, "
        "then run the same command again; it continues\n"
    )
