"""The cache of a node: shared, limited, and never a reason to stop or to be wrong."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import small_data
from faulty_proxy import spoiling
from seaweed import S3Server
from small_data import TRAIN

from training.config import Cache
from training.data.cache import SampleCache
from training.data.dataset import StreamedDataset, open_dataset
from training.data.stream import IdentityStream

KB = 1000


def cache_of(folder: Path, kilobytes: float = 10_000) -> SampleCache:
    return SampleCache(Cache(folder=folder, max_gb=kilobytes / 1e6))


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.parent != folder)


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in files(folder))


def test_what_is_put_is_got_back_by_any_process(tmp_path: Path) -> None:
    cache = cache_of(tmp_path / "new" / "cache")
    assert cache.get("a") is None
    cache.put("a", b"bytes")
    cache.put("b", memoryview(b"others"))
    assert cache_of(tmp_path / "new" / "cache").get("a") == b"bytes"
    assert cache.get("b") == b"others"
    cache.drop("a")
    assert cache.get("a") is None


@pytest.mark.parametrize("name", ["../../escape", "/etc/passwd", "a/b/../../../c", ".", "x" * 5000, "\0"])
def test_no_name_leads_out_of_the_folder(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "outer" / "cache"
    cache = cache_of(folder)
    cache.put(name, b"inside")
    assert cache.get(name) == b"inside"
    assert [path for path in tmp_path.rglob("*") if path.is_file() and folder not in path.parents] == []


def test_samples_unused_for_longest_go_when_the_limit_is_reached(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, 100)
    for number in range(9):
        cache.put(str(number), bytes(10 * KB))
        _age(tmp_path, 100)
    for used in ("0", "3"):
        assert cache.get(used) is not None
    cache.put("9", bytes(10 * KB))
    cache.put("10", bytes(10 * KB))
    assert size(tmp_path) <= 100 * KB
    kept = {name for name in map(str, range(11)) if cache.get(name) is not None}
    assert {"0", "3", "9", "10"} <= kept
    assert "1" not in kept


def _age(folder: Path, seconds: float) -> None:
    for path in files(folder):
        status = path.stat()
        os.utime(path, (status.st_atime - seconds, status.st_mtime - seconds))


def test_a_sample_larger_than_the_cache_is_left_out(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, 10)
    cache.put("small", bytes(KB))
    cache.put("large", bytes(20 * KB))
    assert cache.get("large") is None
    assert cache.get("small") is not None


def test_opening_with_a_lower_limit_makes_room(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, 100)
    for number in range(9):
        cache.put(str(number), bytes(10 * KB))
    cache_of(tmp_path, 50)
    assert 0 < size(tmp_path) <= 50 * KB


WRITER = """
import sys
from pathlib import Path
from training.config import Cache
from training.data.cache import SampleCache
cache = SampleCache(Cache(folder=Path(sys.argv[1]), max_gb=float(sys.argv[2])))
first, count = int(sys.argv[3]), int(sys.argv[4])
print("ready", flush=True)
sys.stdin.readline()
for number in range(first, first + count):
    name = str(number % 60)
    data = cache.get(name)
    assert data is None or data == name.encode() * 5000, name
    cache.put(name, name.encode() * 5000)
assert cache.on
"""


def start_writer(folder: Path, kilobytes: float, first: int, count: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(kilobytes / 1e6), str(first), str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.slow
def test_several_processes_share_a_cache_within_its_limit(tmp_path: Path) -> None:
    writers = [start_writer(tmp_path, 200, first, 400) for first in (0, 20, 40)]
    for writer in writers:
        writer.stdin.write("go\n")  # type: ignore[union-attr]
        writer.stdin.flush()  # type: ignore[union-attr]
    for writer in writers:
        _, errors = writer.communicate(timeout=300)
        assert writer.returncode == 0, errors
    assert 50 * KB < size(tmp_path) <= 200 * KB


def test_what_a_killed_process_leaves_is_removed_and_does_not_count(tmp_path: Path) -> None:
    writer = start_writer(tmp_path, 100_000, 0, 10**9)
    writer.stdin.write("go\n")  # type: ignore[union-attr]
    writer.stdin.flush()  # type: ignore[union-attr]
    while len(files(tmp_path)) < 20:
        time.sleep(0.01)
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    left = files(tmp_path)[0].with_name(".dead.sample.tmp-0123456789abcdef")
    left.write_bytes(bytes(KB))
    young = left.with_name(".living.sample.tmp-0123456789abcdef")
    young.write_bytes(bytes(KB))
    os.utime(left, (0, 0))
    cache = cache_of(tmp_path, 100_000)
    assert not left.exists()
    assert young.exists()
    for name in map(str, range(60)):
        assert cache.get(name) in (None, name.encode() * 5000)
    cache.put("new", b"goes on")
    assert cache.get("new") == b"goes on"


def test_a_damaged_count_of_bytes_is_mended_by_the_next_process(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, 100)
    cache.put("a", bytes(10 * KB))
    (tmp_path / "bytes.count").write_bytes(b"\0\xff")
    again = cache_of(tmp_path, 100)
    for number in range(30):
        again.put(str(number), bytes(10 * KB))
    assert size(tmp_path) <= 100 * KB


def test_a_full_disk_switches_the_cache_off_with_one_warning(
    small_disk: Callable[[int], Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = small_disk(200 * KB) / "cache"
    cache = cache_of(folder)
    with caplog.at_level(logging.WARNING):
        for number in range(20):
            cache.put(str(number), bytes(50 * KB))
            cache.get(str(number))
    assert not cache.on
    (warning,) = caplog.messages
    assert f"the cache in {folder} cannot be written and is switched off" in warning
    assert "The run goes on without it" in warning
    assert cache.get("0") is None


def test_a_folder_that_cannot_be_made_switches_the_cache_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = cache_of(tmp_path / "file" / "cache")
    assert not cache.on
    cache.put("a", b"b")
    assert cache.get("a") is None
    assert "cannot be opened and is switched off" in caplog.text


def read_all(dataset: StreamedDataset) -> list[object]:
    return [dataset.pictures(dataset.fetch(key)) for key in TRAIN]


@pytest.mark.usefixtures("credentials")
def test_cached_samples_are_not_read_again(
    uploaded: str, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with spoiling(s3.port, share=0.0) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        cold = read_all(open_dataset(uploaded, 1.0, cache_of(tmp_path)))
        reads = sum(".tar" in path for path in proxy.paths)
        warm = read_all(open_dataset(uploaded, 1.0, cache_of(tmp_path)))
        assert sum(".tar" in path for path in proxy.paths) == reads == len(TRAIN)
    assert warm == cold


def test_a_damaged_entry_is_noticed_and_fetched_again(mfhq: Path, tmp_path: Path) -> None:
    dataset = open_dataset(str(mfhq), 1.0, cache_of(tmp_path))
    expected = read_all(dataset)
    entries = files(tmp_path)
    assert len(entries) == len(TRAIN)
    small_data.flip_byte(entries[0], 5000)
    entries[1].write_bytes(entries[1].read_bytes()[:700])
    entries[2].write_bytes(b"")
    assert read_all(dataset) == expected
    assert dataset.fetch(TRAIN[0]).cached
    assert all(path.stat().st_size > 10 * KB for path in files(tmp_path))
    assert read_all(open_dataset(str(mfhq), 1.0, cache_of(tmp_path))) == expected


def test_a_damaged_sample_does_not_enter_the_cache(tmp_path: Path) -> None:
    root = small_data.build(tmp_path / "mfhq")
    dataset = open_dataset(str(root), 1.0, cache_of(tmp_path / "cache"))
    small_data.flip_byte(root / "train/mfhq-train-000000-g0000.tar", 2000)
    stream = IdentityStream(dataset, small_data.config(root), small_data.MTD, rank=0, world_size=1)
    for _ in range(6):
        next(stream)
    stream.close()
    assert [text.split()[1] for text in stream.problems.values()] == [f"{TRAIN[0]}:"]
    assert len(files(tmp_path / "cache")) == len(TRAIN) - 1


def test_two_data_sets_share_a_cache_without_mixing(mfhq: Path, tmp_path: Path) -> None:
    other = small_data.build(tmp_path / "other", train=TRAIN[:3])
    cache = cache_of(tmp_path / "cache")
    for root in (mfhq, other):
        dataset = open_dataset(str(root), 1.0, cache)
        dataset.pictures(dataset.fetch(TRAIN[0]))
    assert len(files(tmp_path / "cache")) == 2
