"""Everything of this project that needs a GPU, checked and measured with one command in under 9 minutes.

    python benchmarks/gpu_check.py                         # on a machine with a GPU and this project's packages
    python benchmarks/gpu_check.py --wheels DIR            # on one without a network, where packages are missing
    python benchmarks/gpu_check.py --device cpu --tiny     # the same code, small, on a CPU

It runs from the source tree and installs nothing but the wheels of `--wheels`, into a temporary directory. Each
part runs in its own process and has a time budget: a part that fails or is killed is an entry of the JSON
file, and the others run. The exit code is 0 when nothing failed, 1 when a part failed or was killed or none
passed, 2 when nothing could run. docs/gpu-check.md explains the parts and the fields.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gpu_parts.plan import PARTS, Part
from gpu_parts.report import code_version, print_table, why_missing
from gpu_parts.running import ROOT, run_part
from gpu_parts.wheels import Installed, install

FORMAT = 1
"""Of the JSON file; raised when a field changes its meaning."""
DESCRIBE_S = 120
"""Time limit for describing the machine: torch may be read from a cold disk."""


def main() -> None:
    """Run the parts, write the JSON file, print the table."""
    options = parse()
    began, began_s = datetime.now(UTC), time.monotonic()
    deadline = began_s + 60 * options.minutes
    with tempfile.TemporaryDirectory(prefix="gpu-check-", dir=options.work) as work_name:
        work = Path(work_name)
        report: dict[str, Any] = {
            "format": FORMAT,
            "began_utc": began.isoformat(timespec="seconds"),
            "options": {"device": options.device, "tiny": options.tiny, "minutes": options.minutes},
            "code": code_version(ROOT),
        }
        try:
            wheels = install(options.wheels, work / "site")
            report["wheels"] = {
                "installed": wheels.wheels,
                "rejected": wheels.rejected,
                "size_mb": wheels.size_mb,
            }
            environment = child_environment(options.device, work, wheels)
            report |= describe_machine(environment)
            if options.device == "cuda" and not report["environment"].get("gpus"):
                raise RuntimeError(
                    "torch sees no CUDA device; --device cpu --tiny runs the same code on a CPU"
                )
            run_parts(options, work, environment, deadline, report)
        except (RuntimeError, FileNotFoundError) as error:
            report["error"] = str(error)
    report["took_s"] = round(time.monotonic() - began_s, 1)
    report["status"] = status(report)
    write(options.out, report)
    print_table(report)
    print(f"written: {options.out}")
    sys.exit(2 if "error" in report else int(report["status"] == "failed"))


def child_environment(device: str, work: Path, wheels: Installed) -> dict[str, str]:
    """The environment of the parts: this tree first, then the wheels, then what is installed."""
    path = [str(ROOT), str(ROOT / "benchmarks"), str(wheels.site), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        # Parts share what they compile; nothing is left from an earlier check, nor for a later one.
        "TORCHINDUCTOR_CACHE_DIR": str(work / "inductor"),
        "TRITON_CACHE_DIR": str(work / "triton"),
        "HF_HUB_OFFLINE": "1",
        "TMPDIR": str(work),
    }
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return environment


def describe_machine(environment: dict[str, str]) -> dict[str, Any]:
    """The machine, and the packages that are missing.

    Raises:
        RuntimeError: not even that can be found out.
    """
    command = [sys.executable, "-m", "gpu_parts.environment"]
    try:
        done = subprocess.run(
            command,
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=DESCRIBE_S,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"torch could not be imported within {DESCRIBE_S} s") from None
    if done.returncode != 0:
        raise RuntimeError(f"the machine cannot be described: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def run_parts(
    options: argparse.Namespace,
    work: Path,
    environment: dict[str, str],
    deadline: float,
    report: dict[str, Any],
) -> None:
    """Run the chosen parts one after another; the report is on the disk after each of them."""
    arguments = ["--device", options.device, *(["--tiny"] if options.tiny else [])]
    report |= {"status": "unfinished", "parts": {}}
    for part in chosen(options.parts):
        print(f"{part.title} …", file=sys.stderr, flush=True)
        found = run_part(
            part,
            work=work,
            arguments=arguments,
            environment=environment,
            deadline=deadline,
            explain_missing=lambda module: why_missing(module, report["missing_packages"]),
        )
        report["parts"][part.name] = asdict(found)
        write(options.out, report)
        print(f"{part.title}: {found.status} after {found.took_s:.0f} s", file=sys.stderr, flush=True)


def write(path: Path, report: dict[str, Any]) -> None:
    """Write the JSON file."""
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def chosen(names: list[str] | None) -> list[Part]:
    """The parts of these names, or all of them, in their order."""
    return [part for part in PARTS if names is None or part.name in names]


def status(report: dict[str, Any]) -> str:
    """`passed`; `incomplete` when parts were skipped; `failed` when one failed or was killed, or none passed."""
    outcomes = {part["status"] for part in report.get("parts", {}).values()}
    if "error" in report or "passed" not in outcomes or outcomes & {"failed", "timed_out"}:
        return "failed"
    return "incomplete" if "skipped" in outcomes else "passed"


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("gpu-check.json"), help="(gpu-check.json)")
    parser.add_argument(
        "--wheels", type=Path, help="directory of wheels that the machine lacks (`make gpu-wheels`)"
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="(cuda)")
    parser.add_argument(
        "--tiny", action="store_true", help="tiny networks and datasets: shows that the code runs"
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="deadline of all of it (9)")
    parser.add_argument(
        "--parts", nargs="+", choices=[part.name for part in PARTS], help="only these (all of them)"
    )
    parser.add_argument(
        "--work", type=Path, help="existing directory for temporary files, up to 1 GB (the system's)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
