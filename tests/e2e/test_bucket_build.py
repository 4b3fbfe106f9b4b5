"""A build from bucket to bucket gives the bytes of a build on a disk, whatever happens to its requests."""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import obstore
import pytest
from builds import REPOSITORY, SCRIPTS, WORKFLOW, Cluster, canonical_files, mfhq
from faulty_proxy import FAULTS, FaultyProxy
from seaweed import S3Server

pytestmark = [pytest.mark.ray, pytest.mark.slow]
BUCKET = "datasets"
Downloads = Callable[[str], Path]


@pytest.fixture(scope="module")
def clips(s3: S3Server, demo_clips: Path) -> str:
    return s3.upload(demo_clips, BUCKET, "raw/clips")


@pytest.fixture
def downloads(s3: S3Server, tmp_path: Path) -> Downloads:
    """Copies the objects below a prefix to a folder."""
    store = s3.store(BUCKET)

    def download(prefix: str) -> Path:
        for batch in obstore.list(store, prefix=prefix):
            for entry in batch:
                path = tmp_path / "copy" / entry["path"].removeprefix(f"{prefix}/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(bytes(obstore.get(store, entry["path"]).bytes()))
        return tmp_path / "copy"

    return download


@pytest.fixture
def spoiled(spoiler: FaultyProxy) -> Iterator[FaultyProxy]:
    spoiler.counts.clear()
    spoiler.share, spoiler.faults = 0.1, list(FAULTS)
    yield spoiler
    spoiler.share = 0.0


def test_a_build_between_buckets_with_spoiled_requests_gives_the_same_bytes(
    cluster: Cluster, clips: str, undisturbed: Path, spoiled: FaultyProxy, downloads: Downloads
) -> None:
    output = f"s3://{BUCKET}/built/mfhq"
    scratch = set(Path(tempfile.gettempdir()).glob("mfhq-*"))

    made = mfhq(cluster, "build", WORKFLOW, f"source.path={clips}", f"output={output}")

    assert made.returncode == 0, made.stderr
    assert all(spoiled.counts[fault] for fault in FAULTS), spoiled.counts
    spoiled.share = 0.0
    copy = downloads("built/mfhq")
    assert canonical_files(copy) == canonical_files(undisturbed)
    assert set(Path(tempfile.gettempdir()).glob("mfhq-*")) <= scratch
    assert not (copy / ".staging/lock-owner").exists()
    print("faults", dict(spoiled.counts))

    # The commands that read a dataset read this one as well.
    verified = mfhq(cluster, "verify", output)
    assert (verified.returncode, verified.stdout) == (0, f"{output}: valid, no errors\n")
    reported = mfhq(cluster, "report", output)
    assert (reported.returncode, reported.stdout) == (0, f"{output}/report/index.html\n"), reported.stderr
    told = mfhq(cluster, "status", output)
    assert told.stdout.startswith(f"{output}: finished "), told.stderr
    assert "videos      15: 9 accepted  4 rejected  2 failed" in told.stdout
    explained = mfhq(cluster, "explain", output, "two-people.webm")
    assert "demo/two-people.webm" in explained.stdout, explained.stderr

    # Nothing is left to do, and nothing is done.
    again = mfhq(cluster, "build", WORKFLOW, f"source.path={clips}", f"output={output}")
    assert again.returncode == 0, again.stderr
    assert re.search(r"(\d+) videos, \1 finished by an earlier run", again.stderr)
    assert "the dataset is packed already" in again.stderr


def test_a_bucket_that_turns_read_only_ends_the_build_and_the_same_command_continues_it(
    cluster: Cluster, clips: str, spoiler: FaultyProxy, undisturbed: Path, downloads: Downloads
) -> None:
    output = f"s3://{BUCKET}/readonly/mfhq"
    command = [str(SCRIPTS / "mfhq"), "build", WORKFLOW, f"source.path={clips}", f"output={output}"]
    running = subprocess.Popen(
        command, cwd=REPOSITORY, env=cluster.environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    while not any(
        path.startswith(f"/{BUCKET}/readonly/mfhq/.staging/") and path.endswith(".parquet")
        for path in spoiler.paths
    ):
        assert running.poll() is None
        time.sleep(0.05)
    spoiler.denied = "ExpiredToken"
    try:
        _, stderr = running.communicate(timeout=300)
    finally:
        spoiler.denied = ""
    text = stderr.decode()
    assert running.returncode == 1, text
    assert re.search(r"error: .*s3://datasets.*access is refused \(HTTP 403, ExpiredToken\)", text), text
    assert "Traceback" not in text

    # The lease could not be given back, so it is waited for.
    made = mfhq(cluster, *command[1:])
    assert made.returncode == 0, made.stderr
    assert re.search(r"process \d+ on .* holds .* Waiting 45 s", made.stderr)
    assert canonical_files(downloads("readonly/mfhq")) == canonical_files(undisturbed)


def test_a_build_in_a_place_that_another_build_holds_is_refused(
    cluster: Cluster, clips: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    from pipeline.lease import lease
    from storage.path import ObjectPath

    output = ObjectPath(f"s3://{BUCKET}", "held/mfhq")
    with lease(output, ".staging", print):
        made = mfhq(cluster, "build", WORKFLOW, f"source.path={clips}", f"output={output}")
    assert made.returncode == 1
    assert f"error: Another build is writing to {output}: process " in made.stderr


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["source.path=s3://no-such-bucket/clips"],
            "source.path: s3://no-such-bucket: there is no such bucket",
        ),
        (["source.path=s3://datasets/nothing"], "source.path: s3://datasets/nothing contains no video file"),
    ],
)
def test_what_is_not_there_is_named(
    cluster: Cluster, clips: str, tmp_path: Path, overrides: list[str], message: str
) -> None:
    made = mfhq(cluster, "build", WORKFLOW, *overrides, f"output={tmp_path}/mfhq")
    assert made.returncode == 1
    assert f"error: {message}" in made.stderr


def test_credentials_that_are_refused_are_named_without_their_values(
    cluster: Cluster, clips: str, tmp_path: Path
) -> None:
    cluster = Cluster(cluster.process, cluster.environment | {"AWS_SECRET_ACCESS_KEY": "another-secret"})
    made = mfhq(cluster, "build", WORKFLOW, f"source.path={clips}", f"output={tmp_path}/mfhq")
    assert made.returncode == 1
    assert "HTTP 403, SignatureDoesNotMatch" in made.stderr
    assert "AWS_SECRET_ACCESS_KEY" in made.stderr
    assert "another-secret" not in made.stderr
