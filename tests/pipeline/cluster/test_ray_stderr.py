"""Ray's false alarm is left out of standard error; every other line and the terminal stay."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

ALARM = (
    "[2026-11-24 16:41:58,955 E 31331 31331] core_worker.cc:2465: Actor with class name: "
    "'MapWorker(Map(Analyse))' and ID: 'c0042ca8df43b67078d6b5c701000000' has constructor arguments in the "
    "object store and max_restarts > 0. If the arguments in the object store go out of scope or are lost, the "
    "actor restart will fail."
)
OTHER = "[2026-11-24 16:41:59,000 E 31331 31331] core_worker.cc:2466: Something else broke."
SCRIPT = f"""
import os, sys
from pipeline.cluster.ray_stderr import without_false_alarms
os.write(2, b"before\\n")
with without_false_alarms():
    os.write(2, {ALARM!r}.encode() + b"\\n")
    os.write(2, {OTHER!r}.encode() + b"\\n")
    print("a message; terminal:", sys.stderr.isatty(), file=sys.stderr)
    os.write(2, b"no newline at the end")
os.write(2, b"|after\\n")
print("still here", file=sys.stderr)
"""


def test_only_the_false_alarm_is_left_out() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert sorted(done.stderr.splitlines()) == sorted(
        [
            "before",
            OTHER,
            "a message; terminal: False",
            "no newline at the end|after",
            "still here",
        ]
    )


def test_python_still_writes_to_the_terminal() -> None:
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", SCRIPT], stderr=theirs, check=True)
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "a message; terminal: True" in shown
    assert "constructor arguments" not in shown


def test_an_error_inside_leaves_standard_error_as_it_was() -> None:
    script = """
import os, sys
from pipeline.cluster.ray_stderr import without_false_alarms
try:
    with without_false_alarms():
        raise KeyboardInterrupt
except KeyboardInterrupt:
    os.write(2, b"one\\n")
    print("two", file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == ["one", "two"]
