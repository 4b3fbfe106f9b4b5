"""A Ray cluster of one node in processes of its own, with a dashboard that takes jobs."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from builds import Cluster


@contextmanager
def running_cluster(scripts: Path, variables: Mapping[str, str]) -> Iterator[Cluster]:
    """A cluster for the time of the block.

    Args:
        scripts: directory of the `ray` and `python` of its node.
        variables: of the environment of its processes.
    """
    # Ray's sockets are in this folder, and the path of a socket may have 107 characters only.
    folder = tempfile.mkdtemp(prefix="ray")
    port, dashboard = _free_port(), _free_port()
    command = [
        *(str(scripts / "ray"), "start", "--head", "--block", "--num-cpus=2", f"--temp-dir={folder}"),
        *(f"--port={port}", f"--dashboard-port={dashboard}", "--disable-usage-stats"),
        # Not Ray's own fixed ports, which another cluster on this machine may have.
        *(f"--dashboard-agent-listen-port={_free_port()}", f"--ray-client-server-port={_free_port()}"),
        f"--object-store-memory={512 * 2**20}",
    ]
    log = Path(folder, "start.log").open("wb")  # noqa: SIM115 - lives as long as the process
    environment = os.environ | {
        # A job's `python` is the one that its cluster's PATH finds.
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        **variables,
        # A test need not wait ten seconds for what Ray serves to Prometheus.
        "RAY_metrics_report_interval_ms": "1000",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment)
    try:
        jobs = f"http://127.0.0.1:{dashboard}"
        _wait_for(f"{jobs}/api/version", process, Path(folder, "start.log"))
        environment |= {"RAY_ADDRESS": f"127.0.0.1:{port}", "RAY_API_SERVER_ADDRESS": jobs}
        _wait_for_jobs(scripts, environment)
        yield Cluster(process, environment)
    finally:
        # Its own shutdown waits half a minute for idle workers.
        for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for_jobs(scripts: Path, environment: dict[str, str]) -> None:
    """The dashboard answers before the cluster can run a job."""
    for _ in range(40):
        command = [str(scripts / "ray"), "job", "submit", "--no-wait", "--", "true"]
        submitted = subprocess.run(
            command, check=False, env=environment, capture_output=True, text=True, timeout=120
        )
        if submitted.returncode == 0:
            return
        time.sleep(1)
    raise RuntimeError(f"the cluster takes no jobs: {submitted.stderr[-1000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(240):
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - our own loopback address
                return
        except urllib.error.HTTPError:
            return  # it answers; a missing token does not matter
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"Ray did not start:\n{log.read_text(errors='replace')}")
