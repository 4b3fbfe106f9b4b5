"""Where the check runs: the GPU, the driver, the versions, and the packages that are missing.

A program, because the check itself imports neither torch nor what a directory of wheels brings. It prints JSON.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SHOWN = (
    *("torch", "torchvision", "triton", "numpy", "pillow", "pyarrow", "opencv-python-headless", "simplejpeg"),
    *("open-clip-torch", "timm", "diffusers", "transformers", "pydantic", "safetensors"),
)
"""Packages whose versions decide how fast the parts are, or whether they run."""
BESIDES = ("webdataset", "scikit-image", "pytest", "pytest-timeout", "hypothesis")
"""What the parts need and the trainer does not: to write shards, for a photograph, for tests."""


def main() -> None:
    """Print it."""
    print(json.dumps({"environment": environment(), "missing_packages": list(missing_packages())}))


def environment() -> dict[str, Any]:
    """Machine and versions."""
    found: dict[str, Any] = {
        "python_version": platform.python_version(),
        "platform": platform.platform(),
        "cpu_name": _cpu_name(),
        "cpu_cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "packages": {name: _version(name) for name in SHOWN},
        "driver_version": _driver(),
    }
    try:
        import torch
    except ImportError as error:
        return found | {"torch_error": str(error)}
    found |= {
        "torch_version": torch.__version__,
        "cuda_version": torch.version.cuda,
        "cudnn_version": torch.backends.cudnn.version(),
        "nccl_version": None,
        "gpus": [],
    }
    if torch.cuda.is_available():
        found["nccl_version"] = ".".join(map(str, torch.cuda.nccl.version()))
        for number in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(number)
            found["gpus"].append(
                {
                    "name": properties.name,
                    "memory_gb": round(properties.total_memory / 1e9, 1),
                    "compute_capability": f"{properties.major}.{properties.minor}",
                    "multiprocessors": properties.multi_processor_count,
                }
            )
    return found


def missing_packages() -> Iterator[dict[str, str | None]]:
    """The packages that the trainer and the parts need, directly or through others, and that are not installed."""
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    direct = [*project["dependencies"], *project["optional-dependencies"]["training"], *BESIDES]
    versions = dict(
        re.findall(
            r"^([a-z0-9-]+)==([^ ;\\]+)",
            (ROOT / "requirements.lock").read_text(encoding="utf-8"),
            re.MULTILINE,
        )
    )
    waiting = [(text, "omniid") for text in direct]
    seen: set[str] = set()
    while waiting:
        text, needed_by = waiting.pop(0)
        requirement = Requirement(text)
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(name)
        installed = _version(name)
        if installed is None:
            pinned = versions.get(name)
            wheel = f"{name.replace('-', '_')}-{pinned or '*'}-*.whl"
            yield {"package": name, "needed_by": needed_by, "installed": None, "wheel": wheel}
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            wheel = f"{name.replace('-', '_')}-{versions.get(name) or '*'}-*.whl ({requirement.specifier})"
            yield {"package": name, "needed_by": needed_by, "installed": installed, "wheel": wheel}
        waiting += [(needed, name) for needed in importlib.metadata.requires(name) or []]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _driver() -> str | None:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    command = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    return found.stdout.strip().splitlines()[0] if found.returncode == 0 and found.stdout.strip() else None


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
