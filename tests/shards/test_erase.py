"""An erasure is one step for readers, loses nothing else when it is killed, and leaves no bytes."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import shards_factory as factory
from damage import found

from shards.canonical import sha256_hex
from shards.erase import erase, remove_superseded
from shards.findings import Check
from shards.metadata import DatasetError, encode_metadata
from shards.reader import Dataset, read_metadata
from shards.schema import Reason, Split, Status
from shards.verify import verify

SAMPLES = {sample.record.key: sample for sample in factory.samples()}
TABLES = ("images", "index", "tombstones", "videos")


def shard_names(root: Path) -> list[str]:
    return [shard.name for shard in read_metadata(root).shards]


def contents(root: Path) -> dict[str, factory.Sample]:
    return {sample.record.key: sample for sample in Dataset.open(root).samples()}


def without(*keys: str) -> dict[str, factory.Sample]:
    return {key: sample for key, sample in SAMPLES.items() if key not in keys}


def test_an_erased_sample_is_gone_and_the_others_are_as_before(root: Path) -> None:
    metadata = erase(root, ["clip-b_0"], "taken_down")
    assert read_metadata(root) == metadata
    assert verify(root) == []
    assert contents(root) == without("clip-b_0")
    assert metadata.generation == 1
    assert shard_names(root) == [
        "test/mfhq-test-000000-g0000.tar",
        "train/mfhq-train-000000-g0001.tar",
        "train/mfhq-train-000001-g0000.tar",
    ]
    assert {role: table.name for role, table in metadata.tables.items()} == {
        role: f"{role}-g0001.parquet" for role in TABLES
    }
    assert metadata.counts.identities == {Split.TRAIN: 3, Split.TEST: 1}
    assert (metadata.counts.images, metadata.counts.persons) == (32, 4)


def test_its_video_keeps_its_row_and_its_key_becomes_a_tombstone(root: Path) -> None:
    erase(root, ["clip-b_0", "clip-a_0"], "taken_down")
    dataset = Dataset.open(root)
    videos = {video.video_id: video for video in dataset.videos()}
    assert len(videos) == 6
    assert (videos["clip-b"].status, videos["clip-b"].identities) == (Status.ACCEPTED, 1)
    assert [(track.key, track.reason) for track in videos["clip-b"].tracks] == [
        (None, "taken_down"),
        ("clip-b_1", None),
        (None, Reason.TRACK_TOO_SHORT),
    ]
    assert (videos["clip-a"].status, videos["clip-a"].reason) == (Status.REJECTED, "taken_down")
    digests = sorted(sha256_hex(key.encode()) for key in ("clip-a_0", "clip-b_0"))
    assert dataset.tombstones().to_pylist() == [
        {"key_sha256": digest, "generation": 1, "reason": "taken_down"} for digest in digests
    ]
    assert dataset.metadata.counts.videos == {Status.ACCEPTED: 3, Status.REJECTED: 2, Status.FAILED: 1}


def test_a_shard_without_samples_is_gone_and_its_number_stays_unused(root: Path) -> None:
    erase(root, ["clip-a_0", "clip-b_0", "clip-b_1"], "taken_down")
    assert shard_names(root) == ["train/mfhq-train-000001-g0000.tar"]
    assert verify(root) == []
    assert Dataset.open(root).keys(Split.TEST) == []
    assert contents(root) == without("clip-a_0", "clip-b_0", "clip-b_1")


def test_a_second_erasure_keeps_the_tombstones_of_the_first(root: Path) -> None:
    erase(root, ["clip-b_0"], "taken_down")
    erase(root, ["clip-c_0"], "license_ended")
    assert verify(root) == []
    assert shard_names(root) == [
        "test/mfhq-test-000000-g0000.tar",
        "train/mfhq-train-000000-g0001.tar",
        "train/mfhq-train-000001-g0002.tar",
    ]
    stones = Dataset.open(root).tombstones().to_pylist()
    assert sorted((stone["generation"], stone["reason"]) for stone in stones) == [
        (1, "taken_down"),
        (2, "license_ended"),
    ]
    erase(root, ["clip-a_0", "clip-d_0", "clip-b_1"], "taken_down")
    assert verify(root) == []
    assert contents(root) == {}


def test_a_reader_of_the_old_generation_goes_on_until_its_files_are_removed(root: Path) -> None:
    reader = Dataset.open(root)
    videos = list(reader.videos())
    erase(root, ["clip-b_0"], "taken_down")
    assert {sample.record.key: sample for sample in reader.samples()} == SAMPLES
    assert list(reader.videos()) == videos
    assert reader.images().num_rows == 40
    remove_superseded(root)
    assert reader.sample("clip-c_0") == SAMPLES["clip-c_0"]
    with pytest.raises(FileNotFoundError):
        reader.sample("clip-b_0")


def test_the_bytes_are_gone_once_the_superseded_files_are_removed(root: Path) -> None:
    (root / "README.md").write_text("card")
    erased = SAMPLES["clip-b_0"]
    pieces = [*erased.images, erased.record.person_id.encode(), b"clip-b_0"]
    erase(root, ["clip-b_0"], "taken_down")
    assert any(pieces[0] in data for data in factory.snapshot(root).values())
    removed = [path.relative_to(root).as_posix() for path in remove_superseded(root)]
    assert removed == [
        "images-g0000.parquet",
        "index-g0000.parquet",
        "train/mfhq-train-000000-g0000.tar",
        "videos-g0000.parquet",
    ]
    left = factory.snapshot(root)
    assert set(left) == {"README.md", "dataset.json", *read_metadata(root).files()}
    assert not any(piece in data for piece in pieces for data in left.values())
    assert remove_superseded(root) == []
    assert verify(root) == []


@pytest.mark.parametrize(
    ("keys", "reason", "error"),
    [
        (["clip-a_0", "nobody_0"], "taken_down", KeyError),
        ([], "taken_down", ValueError),
        (["clip-a_0"], "Taken down", ValueError),
        (["clip-a_0"], "", ValueError),
        (["clip-a_0"], Reason.TIMEOUT, ValueError),
    ],
)
def test_what_cannot_be_erased_changes_nothing(
    root: Path, keys: list[str], reason: str, error: type[Exception]
) -> None:
    before = factory.snapshot(root)
    with pytest.raises(error):
        erase(root, keys, reason)
    assert factory.snapshot(root) == before


def test_a_damaged_sample_beside_an_erased_one_ends_it_and_changes_nothing(root: Path) -> None:
    shard = root / "train/mfhq-train-000000-g0000.tar"
    data = bytearray(shard.read_bytes())
    data[600] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DatasetError, match=r"clip-a_0\.0\.jpg is damaged"):
        erase(root, ["clip-b_0"], "taken_down")
    assert Dataset.open(root).sample("clip-b_0") == SAMPLES["clip-b_0"]


def test_a_change_by_another_process_is_not_overwritten(root: Path) -> None:
    metadata = read_metadata(root)
    other = encode_metadata(metadata.model_copy(update={"version": "1.0.1"}))
    armed = [True]

    def hook(event: str, _: object) -> None:
        if event == "os.rename" and armed:
            armed.clear()
            (root / "dataset.json").write_bytes(other)

    sys.addaudithook(hook)
    with pytest.raises(DatasetError, match="was changed by another process"):
        erase(root, ["clip-b_0"], "taken_down")
    assert (root / "dataset.json").read_bytes() == other
    assert verify(root) == []


def test_a_sample_that_comes_back_is_found(root: Path) -> None:
    erase(root, ["clip-b_0"], "taken_down")
    name = "tombstones-g0001.parquet"
    digest = sha256_hex(b"clip-a_0")
    factory.change_rows(root / name, lambda rows: rows[0].update(key_sha256=digest))
    factory.reseal_metadata(root)
    assert found(root) == {(Check.ERASED_SAMPLE, f"{name}:clip-a_0")}


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from shards.erase import erase, remove_superseded
base, event, number = Path(sys.argv[2]), sys.argv[3], 0
while True:
    root = base / str(number)
    child = os.fork()
    if child == 0:
        left = [number]
        def hook(seen, args):
            if seen == event:
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
        sys.addaudithook(hook)
        if event == "os.rename":
            erase(root, ["clip-b_0", "clip-c_0", "clip-d_0"], "taken_down")
        else:
            remove_superseded(root)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(code)
    number += 1
    if code == 0:
        break
"""


def killed_at_every(event: str, base: Path) -> list[int]:
    here = Path(factory.__file__).parent
    command = [sys.executable, "-c", KILLED, str(here), str(base), event]
    result = subprocess.run(command, check=True, capture_output=True, text=True, cwd=here.parents[1])
    return [int(code) for code in result.stdout.split()]


@pytest.mark.slow
def test_kill_9_at_any_file_leaves_one_generation_or_the_other(pristine: Path, tmp_path: Path) -> None:

    for number in range(8):
        shutil.copytree(pristine, tmp_path / str(number))
    codes = killed_at_every("os.rename", tmp_path)
    # One shard (the other has no sample left), four tables and dataset.json.
    assert codes == [-signal.SIGKILL] * 6 + [0]
    for number in range(6):
        root = tmp_path / str(number)
        assert verify(root) == []
        assert contents(root) == SAMPLES
        remaining = without("clip-b_0")
        erase(root, ["clip-b_0"], "taken_down")
        assert verify(root) == []
        assert contents(root) == remaining
        remove_superseded(root)
        assert set(factory.snapshot(root)) == {"dataset.json", *read_metadata(root).files()}
    assert verify(tmp_path / "6") == []
    assert contents(tmp_path / "6") == without("clip-b_0", "clip-c_0", "clip-d_0")


def test_kill_9_while_superseded_files_are_removed_is_made_good_by_doing_it_again(
    pristine: Path, tmp_path: Path
) -> None:

    for number in range(6):
        shutil.copytree(pristine, tmp_path / str(number))
        erase(tmp_path / str(number), ["clip-b_0"], "taken_down")
    assert killed_at_every("os.remove", tmp_path) == [-signal.SIGKILL] * 4 + [0]
    for number in range(5):
        root = tmp_path / str(number)
        assert verify(root) == []
        remove_superseded(root)
        assert set(factory.snapshot(root)) == {"dataset.json", *read_metadata(root).files()}
        assert contents(root) == without("clip-b_0")
