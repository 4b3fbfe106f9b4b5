"""Runs a part of `gpu_check.py` in its own process, within a time limit.

A part writes its result as JSON into the file that `--result` names, as often as it has more to say. So a part
that is killed leaves the figures that it had. Its result has `figures`, and `missing_module` when a module cannot
be imported.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gpu_parts.plan import Part

ROOT = Path(__file__).parents[2]
LOG_LINES = 40
"""Of a part that failed, which the report contains."""
LEFT_S = 5.0
"""Kept until the deadline to write the report."""

Status = Literal["passed", "failed", "timed_out", "skipped"]


@dataclass
class Outcome:
    """The outcome of a part."""

    status: Status
    reason: str | None
    """Why it did not pass."""
    took_s: float
    budget_s: float
    figures: dict[str, Any]
    log_tail: list[str]
    """The last lines of its output, where it failed or was killed."""


def run_part(
    part: Part,
    *,
    work: Path,
    arguments: list[str],
    environment: Mapping[str, str],
    deadline: float,
    explain_missing: Callable[[str], str],
) -> Outcome:
    """Run a part to its end or until its time is up.

    Args:
        part: which one.
        work: directory for its result and its log.
        arguments: for all parts, such as `--tiny`.
        environment: of its process.
        deadline: of the whole check, in the seconds of `time.monotonic`.
        explain_missing: what to say about a module that cannot be imported.
    """
    left_s = deadline - time.monotonic() - LEFT_S
    if left_s < part.least_s:
        reason = f"the deadline: {max(left_s, 0):.0f} s are left, and it needs {part.least_s:.0f} s"
        return Outcome("skipped", reason, 0.0, part.budget_s, {}, [])
    budget_s = min(part.budget_s, left_s)
    result, log = work / f"{part.name}.json", work / f"{part.name}.log"
    command = [sys.executable, "-m", part.module, *part.arguments, *arguments]
    command += ["--result", str(result), "--seconds", f"{budget_s:.0f}", "--work", str(work)]
    began_s = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=dict(environment),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # so that what it starts ends with it
        )
        try:
            code = process.wait(budget_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
    took_s = time.monotonic() - began_s
    found = _read(result)
    status, reason = _judge(part, code, took_s, found, explain_missing)
    tail = [] if status == "passed" else _tail(log)
    figures = found.get("figures", {})
    return Outcome(status, reason, round(took_s, 2), round(budget_s, 1), figures, tail)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a part and all processes that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read(result: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found


def _judge(
    part: Part,
    code: int | None,
    took_s: float,
    found: Mapping[str, Any],
    explain_missing: Callable[[str], str],
) -> tuple[Status, str | None]:
    if module := found.get("missing_module"):
        return "skipped", explain_missing(module)
    if code is None:
        return "timed_out", f"it was killed after {took_s:.0f} s"
    if code != 0:
        return "failed", found.get("reason") or f"its process ended with exit code {code}"
    if not found.get("figures"):
        return "failed", f"{part.module} wrote no figures"
    return "passed", None


def _tail(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
