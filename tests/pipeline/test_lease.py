"""One build at a time in a bucket: a lease is held, waited for when its holder may be dead, and taken over."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
from faulty_proxy import spoiling
from seaweed import S3Server

from pipeline.errors import BuildError
from pipeline.lease import lease
from pipeline.lock import output_lock
from storage.path import ObjectPath

pytestmark = pytest.mark.usefixtures("credentials", "hurried")


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.lease.RENEW_S", 0.2)
    monkeypatch.setattr("pipeline.lease.DEAD_AFTER_S", 1.5)
    monkeypatch.setattr("pipeline.lease.LOOK_S", 0.1)


@pytest.fixture
def output(tmp_path: Path) -> ObjectPath:
    return ObjectPath("s3://leases", tmp_path.name)


def test_a_second_build_is_refused_while_the_first_runs(output: ObjectPath) -> None:
    said: list[str] = []
    with output_lock(output, said.append) as check:
        began = time.monotonic()
        with (
            pytest.raises(BuildError, match=r"Another build is writing to s3://leases/.*: process "),
            output_lock(output, said.append),
        ):
            pass
        assert time.monotonic() - began < 1.5
        check()
    assert any("Waiting 2 s to see whether it still runs" in message for message in said)
    assert not (output / ".staging/lock-owner").exists()
    with output_lock(output, said.append):
        pass


def test_the_lease_of_a_build_that_was_killed_is_taken_over(output: ObjectPath) -> None:
    (output / ".staging/lock-owner").write_bytes(
        b'{"owner":"process 1 on elsewhere","renewed":7,"token":"x"}'
    )
    said: list[str] = []
    with lease(output, ".staging", said.append) as check:
        time.sleep(1.0)
        check()
    assert said == [
        f"process 1 on elsewhere holds {output}. Waiting 2 s to see whether it still runs",
    ]


def test_a_build_that_lost_its_lease_is_told(output: ObjectPath) -> None:
    with lease(output, ".staging", print) as check:
        (output / ".staging/lock-owner").write_bytes(b"another build")
        time.sleep(1.0)
        with pytest.raises(BuildError, match="another build has taken it over"):
            check()
    assert (output / ".staging/lock-owner").read_bytes() == b"another build"


def test_a_lease_that_cannot_be_renewed_in_time_is_lost(
    output: ObjectPath, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.lease.TRY_S", 0.2)
    with spoiling(s3.port, 0.0) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        with lease(output, ".staging", print) as check:
            time.sleep(0.5)
            check()
            proxy.denied = "ExpiredToken"
            time.sleep(2.0)
            with pytest.raises(BuildError, match="could not be renewed in time"):
                check()
            proxy.denied = ""


def test_a_renewal_whose_answer_was_lost_is_no_loss(output: ObjectPath) -> None:
    with lease(output, ".staging", print) as check:
        held = json.loads((output / ".staging/lock-owner").read_bytes())
        (output / ".staging/lock-owner").write_bytes(json.dumps(held | {"renewed": 99}).encode())
        time.sleep(1.0)
        check()


def test_the_lease_of_another_is_not_given_back(output: ObjectPath) -> None:
    with lease(output, ".staging", print):
        (output / ".staging/lock-owner").write_bytes(b'{"owner":"process 1 on elsewhere","token":"x"}')
    assert (output / ".staging/lock-owner").is_file()


def test_a_lease_that_is_given_back_while_one_waits_is_taken(output: ObjectPath) -> None:
    path = output / ".staging/lock-owner"
    path.write_bytes(b'{"owner":"process 1 on elsewhere","token":"x"}')
    ended = threading.Timer(0.5, path.unlink)
    ended.start()
    began = time.monotonic()
    with lease(output, ".staging", print):
        assert time.monotonic() - began < 1.5
    ended.join()
