"""A part of `gpu_check.py`: the tests of tests/gpu, on the GPU, or on the CPU those that can run there."""

from __future__ import annotations

import argparse
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from gpu_parts.result import Result, run
from gpu_parts.running import ROOT

OUTCOMES = ("passed", "failed", "skipped")
TEST_S = 90
"""Time limit of a test in seconds."""
END_S = 15.0
"""So many seconds before the part is killed, pytest begins no further test, and writes its report."""


def main(options: argparse.Namespace, result: Result) -> None:
    """Run pytest."""
    # Packages that all tests need, so that a missing one is reported once and not by each test.
    import cv2  # noqa: F401
    import hypothesis  # noqa: F401
    import pytest_timeout  # noqa: F401
    import webdataset  # noqa: F401

    import training.train  # noqa: F401

    report = options.work / "tests.xml"
    selection = "gpu" if options.device == "cuda" else "not gpu and not slow"
    command = [sys.executable, "-m", "pytest", "-q", "tests/gpu", "-m", selection, f"--junitxml={report}"]
    command += ["-p", "no:cacheprovider", "-o", "junit_family=xunit1", f"--timeout={TEST_S}"]
    command.append(f"--session-timeout={max(1.0, result.left_s() - END_S):.0f}")
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    tests = read_report(report)
    counts = {outcome: sum(test["outcome"] == outcome for test in tests) for outcome in OUTCOMES}
    result.add(**counts, tests=tests)
    if code != 0:
        failed = [test["name"] for test in tests if test["outcome"] == "failed"]
        raise RuntimeError(f"pytest ended with exit code {code}; failed: {', '.join(failed) or 'none'}")
    if not counts["passed"]:
        raise RuntimeError("no test passed: all of them were skipped")


def read_report(path: Path) -> list[dict[str, Any]]:
    """The tests of a JUnit report: `name`, `outcome`, `took_s` and, unless it passed, `reason`."""
    tests = []
    for case in ET.parse(path).iter("testcase"):  # noqa: S314 - pytest wrote it just now
        test: dict[str, Any] = {
            "name": f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}",
            "outcome": "passed",
            "took_s": round(float(case.get("time", "0")), 2),
        }
        for tag, outcome in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
            found = case.find(tag)
            if found is not None:
                test |= {"outcome": outcome, "reason": (found.get("message") or "").splitlines()[0][:300]}
        tests.append(test)
    return tests


if __name__ == "__main__":
    run(main, argparse.ArgumentParser(description=__doc__))
