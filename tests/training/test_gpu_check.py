"""`benchmarks/gpu_check.py` runs to its end when a part fails, and records it in its JSON file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from contextlib import suppress
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from gpu_check import status
from gpu_parts.environment import missing_packages
from gpu_parts.plan import PARTS, Part
from gpu_parts.report import code_version, why_missing
from gpu_parts.run_tests import read_report
from gpu_parts.running import LEFT_S, Outcome, run_part
from gpu_parts.stream import run_figures
from gpu_parts.wheels import install

from tests.processes import has_ended

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
PROGRAM = """\
import argparse, subprocess, sys, time
from gpu_parts.result import run

def part(options, result):
    {body}

run(part, argparse.ArgumentParser())
"""


def run_program(folder: Path, body: str, *, budget_s: float = 60.0, left_s: float = 600.0) -> Outcome:
    """Run a part that does what `body` says."""
    (folder / "program.py").write_text(PROGRAM.format(body=body))
    return run_part(
        Part("made", "made for a test", "program", budget_s=budget_s, least_s=1.0),
        work=folder,
        arguments=["--device", "cpu"],
        environment=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(BENCHMARKS), str(folder)])},
        deadline=time.monotonic() + left_s,
        explain_missing=lambda module: f"no {module}",
    )


def test_a_part_that_passes_leaves_its_figures(tmp_path: Path) -> None:
    found = run_program(tmp_path, "result.add(step_s=0.5); result.add(mfu=None)")
    assert (found.status, found.reason) == ("passed", None)
    assert found.figures == {"step_s": 0.5, "mfu": None}


def test_a_part_that_fails_says_why_and_keeps_what_it_had(tmp_path: Path) -> None:
    found = run_program(tmp_path, "result.add(step_s=0.5); raise ValueError('too hot')")
    assert (found.status, found.reason) == ("failed", "ValueError: too hot")
    assert found.figures == {"step_s": 0.5}
    assert found.log_tail[-1] == "ValueError: too hot"


def test_a_process_that_dies_has_failed(tmp_path: Path) -> None:
    found = run_program(tmp_path, "result.add(step_s=0.5); import os; os.abort()")
    assert (found.status, found.reason) == ("failed", "its process ended with exit code -6")


def test_a_part_without_figures_has_failed(tmp_path: Path) -> None:
    assert run_program(tmp_path, "pass").status == "failed"


def test_a_part_that_hangs_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    body = (
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
        "result.add(child=child.pid); time.sleep(600)"
    )
    found = run_program(tmp_path, body, budget_s=5.0)
    assert found.status == "timed_out"
    assert found.took_s < 60
    with suppress(psutil.NoSuchProcess):
        child, end = psutil.Process(found.figures["child"]), time.monotonic() + 20
        while not has_ended(child):  # it was killed a moment ago
            assert time.monotonic() < end
            time.sleep(0.05)


def test_a_part_without_a_package_is_skipped_and_says_which(tmp_path: Path) -> None:
    found = run_program(tmp_path, "import of_no_such_name.part")
    assert (found.status, found.reason) == ("skipped", "no of_no_such_name")


def test_a_missing_module_of_this_project_is_a_failure(tmp_path: Path) -> None:
    found = run_program(tmp_path, "import training.of_no_such_name")
    assert found.status == "failed"
    assert "training.of_no_such_name" in str(found.reason)


def test_a_part_that_no_longer_fits_before_the_deadline_is_not_started(tmp_path: Path) -> None:
    found = run_program(tmp_path, "result.add(step_s=0.5)", left_s=LEFT_S + 0.5)
    assert found.status == "skipped"
    assert "deadline" in str(found.reason)
    assert not (tmp_path / "made.log").exists()


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        (["passed", "passed"], "passed"),
        (["passed", "skipped"], "incomplete"),
        (["passed", "timed_out"], "failed"),
        (["failed", "skipped"], "failed"),
        (["skipped", "skipped"], "failed"),
        ([], "failed"),
    ],
)
def test_the_status_of_a_check(outcomes: list[str], expected: str) -> None:
    parts = {str(number): {"status": outcome} for number, outcome in enumerate(outcomes)}
    assert status({"parts": parts}) == expected


def test_a_check_that_had_an_error_has_failed() -> None:
    assert status({"error": "no GPU", "parts": {"tests": {"status": "passed"}}}) == "failed"


def write_wheel(folder: Path, name: str, tag: str = "py3-none-any") -> Path:
    path = folder / f"{name}-1.0-{tag}.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "ANSWER = 42\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def test_wheels_are_installed_and_those_that_do_not_fit_are_named(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    write_wheel(wheels, "of_use")
    write_wheel(wheels, "of_another_python", "cp27-cp27m-win32")
    (wheels / "damaged-1.0-py3-none-any.whl").write_bytes(b"no zip file")

    found = install(wheels, tmp_path / "site")

    assert found.wheels == ["of_use-1.0-py3-none-any.whl"]
    assert sorted(found.rejected) == [
        "damaged-1.0-py3-none-any.whl",
        "of_another_python-1.0-cp27-cp27m-win32.whl",
    ]
    assert (tmp_path / "site" / "of_use.py").read_text() == "ANSWER = 42\n"


def test_a_directory_without_wheels_is_an_error_and_no_directory_is_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="make gpu-wheels"):
        install(tmp_path, tmp_path / "site")
    assert install(None, tmp_path / "site").wheels == []


def test_here_no_package_is_missing() -> None:
    assert list(missing_packages()) == []


def test_a_missing_package_is_named_with_its_wheel() -> None:
    missing = [{"package": "opencv-python-headless", "wheel": "opencv_python_headless-5.0-*.whl"}]
    assert why_missing("cv2", missing) == (
        "the package opencv-python-headless is not installed; opencv_python_headless-5.0-*.whl brings it"
    )
    assert "gpu-wheels.txt" in why_missing("unheard_of", missing)


def test_all_wheels_that_travel_are_locked() -> None:
    lines = (BENCHMARKS / "gpu-wheels.txt").read_text().splitlines()
    names = {line for line in lines if line and not line.startswith("#")}
    locked = (ROOT / "requirements.lock").read_text()
    assert [name for name in sorted(names) if f"\n{name}==" not in f"\n{locked}"] == []
    assert {"pydantic", "diffusers", "open-clip-torch", "simplejpeg"} < names


def test_the_code_is_known_by_its_digest_too() -> None:
    found = code_version(ROOT)
    assert len(found["sha256"]) == 64
    assert found == code_version(ROOT)


def test_a_report_of_pytest_is_read(tmp_path: Path) -> None:
    test = tmp_path / "test_of_three.py"
    test.write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): assert 1 == 2\n"
        "def test_left_out(): pytest.skip('no GPU')\n"
    )
    report = tmp_path / "report.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        str(test),
        f"--junitxml={report}",
        "--rootdir",
        str(tmp_path),
    ]
    subprocess.run([*command, "-o", "junit_family=xunit1"], check=False, cwd=tmp_path)
    found = {test["name"]: (test["outcome"], test.get("reason")) for test in read_report(report)}
    assert found == {
        "test_of_three::test_good": ("passed", None),
        "test_of_three::test_bad": ("failed", "assert 1 == 2"),
        "test_of_three::test_left_out": ("skipped", "no GPU"),
    }


def test_the_first_lines_of_a_run_do_not_count() -> None:
    def line(step: int, speed: float, waiting: float) -> dict[str, float]:
        figures = {"speed/targets_per_s": speed, "speed/data_wait": waiting, "memory/peak_gb": 3.0}
        return figures | {"step": step, "train/loss": 0.5, "train/skipped": 0}

    lines = [
        line(1, 1.0, 0.9),
        line(2, 2.0, 0.9),
        line(3, 90.0, 0.0),
        line(4, 100.0, 0.2),
        line(5, 110.0, 0.5),
    ]
    found = run_figures(lines)
    assert found["run_targets_per_s"] == 100
    assert found["run_data_wait_share"] == 0.2
    assert found["run_targets_per_s_without_waiting"] == pytest.approx(125)
    assert found["run_mfu"] is None
    with pytest.raises(ValueError, match="too few"):
        run_figures(lines[:2])


def test_all_parts_together_may_take_longer_than_the_deadline_but_each_fits() -> None:
    assert all(part.least_s < part.budget_s < 9 * 60 - 60 for part in PARTS)


def test_no_benchmark_hides_a_package_that_libraries_import() -> None:
    """Programs of benchmarks/ have that directory on their path; transformers looks for `kernels`, for example."""
    ours = {path.stem for path in BENCHMARKS.iterdir()} - {"gpu_parts"}
    assert ours & (packages_distributions().keys() | sys.stdlib_module_names | {"kernels"}) == set()


def check(out: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, str(BENCHMARKS / "gpu_check.py"), "--out", str(out), *arguments]
    code = subprocess.run(command, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}).returncode
    return code, json.loads(out.read_text())


def test_without_a_gpu_the_check_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    code, report = check(tmp_path / "check.json")
    assert code == 2
    assert "--device cpu --tiny" in report["error"]
    assert report["environment"]["torch_version"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_part_runs_on_a_cpu_at_its_smallest(tmp_path: Path) -> None:
    code, report = check(tmp_path / "check.json", "--device", "cpu", "--tiny", "--minutes", "25")
    assert {name: part["reason"] for name, part in report["parts"].items()} == dict.fromkeys(
        part.name for part in PARTS
    )
    assert (code, report["status"]) == (0, "passed")
    assert report["parts"]["tests"]["figures"]["failed"] == 0
    assert report["parts"]["tests"]["figures"]["passed"] >= 15
    for name in ("mtd", "mtd_compiled", "flow", "flow_compiled", "control"):
        figures = report["parts"][name]["figures"]
        assert figures["step_s"] > 0
        assert figures["skipped_steps"] == 0
        assert 0 < figures["share_of_matrix_product"] < 1
        assert figures["mfu"] is None  # a CPU has no peak that is known
        assert figures["compile"] == name.endswith("compiled")
    for name in ("flow", "control"):
        assert report["parts"][name]["figures"]["data_wait_share"] < 1
    stream = report["parts"]["stream"]["figures"]
    assert stream["stream_targets_per_s"] > 0
    assert 0 <= stream["run_data_wait_share"] < 1
    assert stream["run_steps"] >= 6
