"""A stream from a real S3 server through a proxy that spoils requests loses nothing and repeats nothing."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
import small_data
from faulty_proxy import FAULTS, spoiling
from seaweed import S3Server

import storage.store as store_module
from training.data.dataset import open_dataset
from training.data.stream import IdentityStream
from training.errors import TrainingError

pytestmark = pytest.mark.usefixtures("credentials", "impatient")


def collect(root: str, steps: int, retry_s: float = 60.0) -> list:  # type: ignore[type-arg]
    config = small_data.config(root, batch=4)
    stream = IdentityStream(open_dataset(root, retry_s), config, small_data.MTD, rank=0, world_size=1)
    try:
        batches = [next(stream) for _ in range(steps * stream.accumulation)]
        assert stream.problems == {}
        return batches
    finally:
        stream.close()


def test_the_stream_from_s3_is_the_stream_from_disk(mfhq: Path, uploaded: str) -> None:
    for near, far in zip(collect(str(mfhq), 4), collect(uploaded, 4), strict=True):
        small_data.assert_same(near, far)


@pytest.mark.parametrize("faults", [*[[fault] for fault in (*FAULTS, "shorten", "corrupt")], FAULTS])
def test_spoiled_requests_lose_nothing_and_repeat_nothing(
    faults: list[str], mfhq: Path, uploaded: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 18 if len(faults) > 1 else 9
    with spoiling(s3.port, share=0.1, faults=faults, seed=5) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        spoiled = collect(uploaded, steps)
        assert all(proxy.counts[fault] for fault in faults), proxy.counts
        assert sum(proxy.counts.values()) > steps * 4
    for near, far in zip(collect(str(mfhq), steps), spoiled, strict=True):
        small_data.assert_same(near, far)


def test_storage_that_fails_for_too_long_ends_the_stream_with_the_reason(
    uploaded: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with spoiling(s3.port, share=0.0) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        dataset = open_dataset(uploaded, retry_s=1.0)
        proxy.share, proxy.faults = 1.0, ["error"]
        stream = IdentityStream(dataset, small_data.config(uploaded), small_data.MTD, rank=0, world_size=1)
        with pytest.raises(
            TrainingError, match=r"could not be read for 1 s: HTTP 503.*the same command again"
        ):
            next(stream)
        with pytest.raises(StopIteration):
            next(stream)
        assert stream.problems == {}


def test_closing_does_not_wait_for_storage_that_fails(
    uploaded: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with spoiling(s3.port, share=0.0) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        dataset = open_dataset(uploaded, retry_s=300.0)
        stream = IdentityStream(dataset, small_data.config(uploaded), small_data.MTD, rank=0, world_size=1)
        next(stream)
        time.sleep(1.0)  # two micro-batches are read ahead
        proxy.share, proxy.faults = 1.0, ["error", "stall"]
        next(stream)
        next(stream)
        time.sleep(1.0)  # all further reads fail, and wait for another try
        began = time.monotonic()
        stream.close()
        assert time.monotonic() - began < 5.0


def test_a_long_wait_for_storage_is_told_now_and_then(
    uploaded: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(store_module, "_SILENT_S", 0.2)
    with spoiling(s3.port, share=0.0) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        dataset = open_dataset(uploaded, retry_s=1.5)
        proxy.share, proxy.faults = 1.0, ["error"]
        with pytest.raises(TrainingError):
            dataset.read(small_data.TRAIN[0])
    assert re.search(r"tar could not be read for \d s: HTTP 503\. It is tried for 2 s", caplog.text)
    assert 1 <= len(caplog.records) <= 7
