"""One Ray cluster, one set of demo clips and one undisturbed build for all tests of whole builds."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from builds import REPOSITORY, SCRIPTS, WORKFLOW, Cluster
from faulty_proxy import FaultyProxy, spoiling
from heads import running_cluster
from seaweed import S3Server


@pytest.fixture(scope="session")
def spoiler(s3: S3Server) -> Iterator[FaultyProxy]:
    """The cluster's way to the object store: spoils no request, until a test raises its share."""
    with spoiling(s3.port, share=0.0, stall_s=1.0) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def cluster(s3: S3Server, spoiler: FaultyProxy) -> Iterator[Cluster]:
    with running_cluster(SCRIPTS, s3.environment(spoiler.port)) as started:
        yield started


@pytest.fixture(scope="session")
def demo_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pipeline.demo.clips import make_demo_clips

    folder = tmp_path_factory.mktemp("clips")
    make_demo_clips(folder)
    return folder


@pytest.fixture(scope="session")
def undisturbed(cluster: Cluster, demo_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of all demo clips, built by the command that data engineers use."""
    output = tmp_path_factory.mktemp("undisturbed") / "mfhq"
    subprocess.run(
        [
            *(str(SCRIPTS / "ray"), "job", "submit", "--working-dir=."),
            *("--", "python", "pipeline/build_mfhq.py", WORKFLOW),
            *(f"source.path={demo_clips}", f"output={output}"),
        ],
        cwd=REPOSITORY,
        env=cluster.environment,
        check=True,
        timeout=540,
    )
    return output
