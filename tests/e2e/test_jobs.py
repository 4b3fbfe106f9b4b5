"""Jobs that are submitted to a cluster: what is uploaded, a dry run, and nodes that have only Ray."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import obstore
import pytest
from builds import REPOSITORY, SCRIPTS, WORKFLOW, Cluster, canonical_files
from heads import running_cluster
from raylets import mounted_over, raylets
from seaweed import S3Server

from shards.verify import verify

SUBMIT = REPOSITORY / "workflows/curate/submit.sh"
RUNTIME_ENV = REPOSITORY / "workflows/curate/runtime_env.yaml"
LOCK = REPOSITORY / "workflows/curate/requirements.lock"
MOST_UPLOADED = 4 * 2**20
"""Bytes. Ray takes up to half a gigabyte, and keeps it in the memory of the head."""


def submitted(
    cluster: Cluster, scripts: Path, *options: str, build: list[str]
) -> subprocess.CompletedProcess[str]:
    """Submit a build as data engineers do, and follow it to its end."""
    return subprocess.run(
        [str(SUBMIT), *options, WORKFLOW, *build],
        env=cluster.environment | {"RAY": str(scripts / "ray")},
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )


def changed(output: Path) -> dict[Path, int]:
    """All files of an output, with the time of their last change."""
    return {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()}


def test_a_job_uploads_the_code_of_the_pipeline_and_nothing_else(tmp_path: Path) -> None:
    from ray._private.runtime_env.packaging import _zip_files

    archive = tmp_path / "package.zip"
    _zip_files(
        str(REPOSITORY), [".git", ".venv", "venv", "__pycache__"], str(archive), include_gitignore=True
    )
    uploaded = set(zipfile.ZipFile(archive).namelist())
    tops = {name.partition("/")[0] for name in uploaded}
    assert tops == {"faces", "pipeline", "settings", "shards", "storage", "workflows", "pyproject.toml"}
    assert {"pipeline/build_mfhq.py", WORKFLOW, "workflows/curate/requirements.lock"} <= uploaded
    assert archive.stat().st_size < MOST_UPLOADED


@pytest.mark.ray
@pytest.mark.slow
def test_a_submitted_dry_run_shows_the_cluster_and_leaves_no_output(
    cluster: Cluster, demo_clips: Path, tmp_path: Path
) -> None:
    output = tmp_path / "new" / "mfhq"
    job = submitted(cluster, SCRIPTS, build=[f"source.path={demo_clips}", f"output={output}", "--dry-run"])
    assert job.returncode == 0, job.stdout + job.stderr
    assert "videos      15: 0 finished, 15 to curate" in job.stdout
    assert f"dashboard {cluster.environment['RAY_API_SERVER_ADDRESS']}" in job.stdout
    assert re.search(r"nodes       1 with 2 CPUs, 0 GPUs, [\d.]+ GiB: 2 analysers \(", job.stdout)
    assert "analysers   2 at first, at most 15" in job.stdout
    assert "warning" not in job.stdout
    assert not output.parent.exists()


@pytest.mark.ray
@pytest.mark.slow
def test_a_dry_run_over_a_finished_dataset_leaves_it_as_it_was(
    cluster: Cluster, demo_clips: Path, undisturbed: Path
) -> None:
    before = changed(undisturbed)
    build = [f"source.path={demo_clips}", f"output={undisturbed}", "--retry-failed", "--dry-run"]
    job = submitted(cluster, SCRIPTS, build=build)
    assert job.returncode == 0, job.stdout + job.stderr
    assert "2 finished videos are curated again" in job.stdout
    assert "videos      15: 13 finished, 2 to curate" in job.stdout
    assert changed(undisturbed) == before


@pytest.mark.ray
@pytest.mark.slow
def test_a_dry_run_between_buckets_leaves_no_object(cluster: Cluster, s3: S3Server, demo_clips: Path) -> None:
    clips = s3.upload(demo_clips, "datasets", "dry/clips")
    job = submitted(
        cluster, SCRIPTS, build=[f"source.path={clips}", "output=s3://datasets/dry/mfhq", "--dry-run"]
    )
    assert job.returncode == 0, job.stdout + job.stderr
    assert "output      s3://datasets/dry/mfhq can be written to" in job.stdout
    assert "warning" not in job.stdout
    left = obstore.list(s3.store("datasets"), prefix="dry/mfhq").collect()
    assert left == []


@pytest.mark.ray
@pytest.mark.slow
def test_a_dry_run_names_the_node_that_lacks_the_source(demo_clips: Path, tmp_path: Path) -> None:
    output, log = tmp_path / "mfhq", tmp_path / "log"
    arguments = ("--dry-run", "run.failing_nodes=0.5")
    with raylets() as cluster:
        cluster.add()
        cluster.add()
        with mounted_over(demo_clips, "empty"):
            cluster.add()
        build = cluster.start_build(demo_clips, output, *arguments, log=log)
        assert build.wait(240) == 0, log.read_text()
    text = log.read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("warning")]
    assert re.search(r"node \S+ \(.*\): the source's file .* is not there\. Mount the source", line)
    assert "nodes       3 with 1 CPU, 0 GPUs, 8 GiB: 1 analyser each" in text
    assert "1 with 0 CPUs" in text
    assert not output.exists()


@pytest.mark.slow
def test_a_job_runs_on_nodes_that_have_only_ray(
    request: pytest.FixtureRequest, undisturbed: Path, demo_clips: Path, tmp_path: Path
) -> None:
    if not request.config.getoption("--download"):
        pytest.skip("--download is not given: the job downloads 4 GB of packages")
    ray = re.search(r"^ray==(\S+)", LOCK.read_text(), re.M)
    assert ray is not None
    environment, uv = tmp_path / "node", str(SCRIPTS / "uv")
    subprocess.run(
        [uv, "venv", "--quiet", "--seed", f"--python={sys.executable}", str(environment)], check=True
    )
    python = f"--python={environment}/bin/python"
    subprocess.run([uv, "pip", "install", "--quiet", python, f"ray[default]=={ray[1]}"], check=True)
    output = tmp_path / "mfhq"
    with running_cluster(environment / "bin", {}) as cluster:
        job = submitted(
            cluster,
            environment / "bin",
            f"--runtime-env={RUNTIME_ENV}",
            build=[f"source.path={demo_clips}", f"output={output}"],
        )
    assert job.returncode == 0, job.stdout + job.stderr
    assert verify(output) == []
    assert canonical_files(output) == canonical_files(undisturbed)
