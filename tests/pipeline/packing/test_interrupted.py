"""Packing that is interrupted, or whose leftovers are damaged, ends with the bytes of one that was not."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from rich.console import Console
from seaweed import S3Server
from staged_videos import MODELS_USED, accepted, configured, make_source

from pipeline.cluster.task_nodes import FailedOnNodes
from pipeline.cluster.workers import InProcess, Processes, Workers
from pipeline.errors import BuildError
from pipeline.pack import pack
from pipeline.packing import shard
from pipeline.packing.shard import FOLDER, OWNER, ShardWriter
from pipeline.plan import BuildPlan, plan_build
from pipeline.progress import Reporter
from pipeline.staging import DamagedStagedFile
from shards.assemble import clear
from shards.shard_check import SeenShard, ShardCheck
from shards.verify import verify
from shards.write_shard import ShardPart
from storage.path import AnyPath, path_of

Item = TypeVar("Item")
Result = TypeVar("Result")
VIDEOS = 12


class Stopped(Exception):  # noqa: N818 - says what happened
    pass


class Until:
    """Runs tasks in this process, in reverse, and ends after some of those that write shards."""

    alone = True

    def __init__(self, most: int) -> None:
        self.most = most
        self.written: list[str] = []

    def run(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        check: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[int, Result]]:
        for number, item in reversed(list(enumerate(items))):
            name = getattr(getattr(item, "plan", None), "name", None)
            if name is not None and len(self.written) == self.most:
                raise Stopped
            result = function(item)
            if name is not None:
                self.written.append(name)
            yield number, result


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "clips", {f"{number:02}.mp4": 10 for number in range(VIDEOS)})


def plan(source: Path, output: AnyPath, *overrides: str) -> BuildPlan:
    config = configured(source, output, "shards.max_samples=3", "split.test_fraction=0.3", *overrides)
    planned = plan_build(config, MODELS_USED, replace=True)
    for number, video in enumerate(planned.manifest.videos):
        if video in planned.todo:
            planned.staging.write(video, accepted(video, (number,)))
    return planned


def packed(source: Path, output: AnyPath, workers: Workers | None = None, *overrides: str) -> BuildPlan:
    planned = plan(source, output, *overrides)
    config = configured(source, output, "shards.max_samples=3", "split.test_fraction=0.3", *overrides)
    pack(config, MODELS_USED, planned, Reporter(Console(file=io.StringIO())), workers=workers)
    return planned


def files(root: Path) -> dict[str, bytes]:
    paths = [*root.glob("*.json"), *root.glob("*.parquet"), *root.glob("*/*.tar")]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(paths)}


def inodes(root: Path) -> dict[str, int]:
    return {path.relative_to(root).as_posix(): path.stat().st_ino for path in root.glob("*/*.tar")}


@pytest.mark.slow
def test_shards_may_be_written_in_any_order_and_by_processes(source: Path, tmp_path: Path) -> None:
    packed(source, tmp_path / "plain")
    packed(source, tmp_path / "reversed", Until(99))
    packed(source, tmp_path / "processes", Processes(2))
    whole = files(tmp_path / "plain")
    assert sum(name.endswith(".tar") for name in whole) >= 4
    assert files(tmp_path / "reversed") == files(tmp_path / "processes") == whole
    assert verify(tmp_path / "processes", run=Processes(2).run) == []


def test_shards_of_an_interrupted_run_are_kept_and_damaged_ones_are_written_again(
    source: Path, tmp_path: Path
) -> None:
    packed(source, tmp_path / "plain")
    output = tmp_path / "mfhq"
    with pytest.raises(Stopped):
        packed(source, output, Until(3))
    before = inodes(output)
    assert len(before) == 3
    assert not (output / "dataset.json").exists()
    damaged, *sound = sorted(before)
    data = bytearray((output / damaged).read_bytes())
    data[700] ^= 1
    (output / damaged).write_bytes(data)

    staging = packed(source, output).staging
    assert files(output) == files(tmp_path / "plain")
    after = inodes(output)
    assert {name: after[name] for name in sound} == {name: before[name] for name in sound}
    assert list((staging.folder / FOLDER).iterdir()) == []


def test_a_damaged_part_of_an_interrupted_run_costs_its_shard_only(source: Path, tmp_path: Path) -> None:
    packed(source, tmp_path / "plain")
    output = tmp_path / "mfhq"
    with pytest.raises(Stopped):
        packed(source, output, Until(2))
    folder = plan(source, output).staging.folder / FOLDER
    first, second = sorted(path for path in folder.iterdir() if path.suffix == ".parquet")
    first.write_bytes(first.read_bytes()[:-20])
    second.write_bytes(b"")
    packed(source, output)
    assert files(output) == files(tmp_path / "plain")


def test_shards_of_other_settings_do_not_stay(source: Path, tmp_path: Path) -> None:
    packed(source, tmp_path / "plain", None, "shards.store_embeddings=false")
    output = tmp_path / "mfhq"
    with pytest.raises(Stopped):
        packed(source, output, Until(3))
    packed(source, output, None, "shards.store_embeddings=false")
    assert files(output) == files(tmp_path / "plain")


def test_a_task_of_an_earlier_driver_writes_nothing_any_more(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "mfhq"

    class TakenOver(InProcess):
        def run(
            self,
            function: Callable[[Item], Result],
            items: Iterable[Item],
            check: Callable[[], None] = lambda: None,
        ) -> Iterator[tuple[int, Result]]:
            for number, item in enumerate(items):
                if hasattr(item, "plan"):
                    (function.folder / OWNER).write_text("another")  # type: ignore[attr-defined]
                yield number, function(item)

    with pytest.raises(BuildError, match="another build writes to"):
        packed(source, output, TakenOver())
    assert list(output.glob("*/*.tar")) == []


@pytest.mark.slow
def test_a_damaged_staged_file_is_named_by_any_process(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "mfhq"
    planned = plan(source, output)
    path = planned.staging.path(planned.manifest.videos[4])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(
        BuildError, match=r"staged files of 1 finished videos .* such as demo/04\.mp4"
    ) as caught:
        packed(source, output, Processes(2))
    assert isinstance(caught.value.__cause__, DamagedStagedFile)
    packed(source, output)
    packed(source, tmp_path / "plain")
    assert files(output) == files(tmp_path / "plain")


def test_staged_files_of_an_older_version_are_measured_anew(source: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    planned = plan(source, tmp_path / "mfhq")
    for video in planned.manifest.videos[::2]:
        path = planned.staging.path(video)
        pq.write_table(pq.read_table(path).drop_columns(["measures"]), path)
    packed(source, tmp_path / "mfhq")
    packed(source, tmp_path / "plain")
    assert files(tmp_path / "mfhq") == files(tmp_path / "plain")


@pytest.mark.usefixtures("credentials")
@pytest.mark.slow
def test_shards_in_a_bucket_are_kept_too_and_have_the_same_bytes(
    source: Path, tmp_path: Path, s3: S3Server
) -> None:
    import obstore

    packed(source, tmp_path / "plain")
    s3.upload(make_source(tmp_path / "other", {"a.txt": 1}), "packing", "other")
    output = path_of("s3://packing/mfhq")
    with pytest.raises(Stopped):
        packed(source, output, Until(3))
    store = s3.store("packing")

    def shards() -> dict[str, str | None]:
        entries = [entry for batch in obstore.list(store, prefix="mfhq") for entry in batch]
        return {e["path"]: str(e["last_modified"]) for e in entries if e["path"].endswith(".tar")}

    before = shards()
    assert len(before) == 3
    packed(source, output)
    assert before.items() <= shards().items()
    whole = files(tmp_path / "plain")
    assert {name: (output / name).read_bytes() for name in whole} == whole
    assert verify(output, run=Until(99).run) == []


class Killed(Until):
    """As `Until`; keeps the task that was next, which a cluster may still begin when the driver was killed."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.late: list[Callable[[], object]] = []

    def run(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        check: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[int, Result]]:
        every = list(items)
        if len(every) > self.most and hasattr(every[0], "plan"):
            self.late = [partial(function, every[-1 - self.most])]
        yield from super().run(function, every, check)


def test_a_late_task_of_a_killed_driver_fails_before_the_new_driver_removes_anything(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = "shards.store_embeddings=false"
    packed(source, tmp_path / "plain", None, other)
    output, killed, met = tmp_path / "mfhq", Killed(2), list[str]()
    with pytest.raises(Stopped):
        packed(source, output, killed)

    def late_then_clear(root: AnyPath, keep: Collection[str] = ()) -> None:
        before = inodes(output)
        for task in killed.late:
            with pytest.raises(BuildError, match="another build writes to") as caught:
                task()
            met.append(str(caught.value))
        assert inodes(output) == before
        clear(root, keep)

    monkeypatch.setattr("pipeline.pack.clear", late_then_clear)
    packed(source, output, None, other)
    assert met
    assert files(output) == files(tmp_path / "plain")


def test_a_shard_of_a_killed_driver_that_appears_while_the_new_one_packs_is_removed(
    source: Path, tmp_path: Path
) -> None:
    other = "shards.max_samples=6"
    packed(source, tmp_path / "plain", None, other)
    output, killed = tmp_path / "mfhq", Killed(0)
    with pytest.raises(Stopped):
        packed(source, output, killed)
    appeared: list[str] = []

    class WithALateOne(InProcess):
        def run(
            self,
            function: Callable[[Item], Result],
            items: Iterable[Item],
            check: Callable[[], None] = lambda: None,
        ) -> Iterator[tuple[int, Result]]:
            for number, item in enumerate(items):
                yield number, function(item)
                if hasattr(item, "plan") and not appeared:
                    before = inodes(output).keys()
                    with pytest.MonkeyPatch.context() as patch:
                        # It had looked just before the owner changed.
                        patch.setattr(ShardWriter, "_check_owner", lambda _: None)
                        killed.late[0]()
                    appeared.extend(inodes(output).keys() - before)

    packed(source, output, WithALateOne(), other)
    assert appeared
    assert not (output / appeared[0]).exists()
    assert files(output) == files(tmp_path / "plain")
    assert verify(output) == []


def test_a_task_that_the_new_driver_overtakes_before_its_shard_has_a_name_leaves_none(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = "shards.max_samples=6"
    packed(source, tmp_path / "plain", None, other)
    output, killed = tmp_path / "mfhq", Killed(0)
    with pytest.raises(Stopped):
        packed(source, output, killed)
    overtaken: list[bool] = []
    check_owner = ShardWriter._check_owner

    def then_overtaken(writer: ShardWriter) -> None:
        check_owner(writer)
        if not overtaken:
            overtaken.append(True)
            packed(source, output, None, other)

    monkeypatch.setattr(ShardWriter, "_check_owner", then_overtaken)
    with pytest.raises(FileNotFoundError):
        killed.late[0]()
    assert overtaken
    assert files(output) == files(tmp_path / "plain")
    assert verify(output) == []


def test_a_shard_that_one_machine_cannot_read_is_read_by_the_driver_before_it_counts_as_damaged(
    source: Path, tmp_path: Path
) -> None:
    output = tmp_path / "mfhq"
    packed(source, output)
    read: list[SeenShard | None] = []

    def without_its_mount(
        function: Callable[[ShardCheck], SeenShard | None], items: Iterable[ShardCheck]
    ) -> Iterator[tuple[int, SeenShard | None]]:
        for number, item in enumerate(items):
            read.append(function(replace(item, root=tmp_path / "empty")))
            yield number, read[-1]

    done: list[int] = []
    assert verify(output, done.append, without_its_mount) == []
    assert done[-1] == VIDEOS
    assert all(seen is not None and seen.findings for seen in read)
    damaged = next(output.glob("*/*.tar"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert verify(output, None, without_its_mount) == verify(output) != []


def test_a_task_keeps_no_part_once_another_driver_has_the_output(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "mfhq"
    write = shard.write_shard

    def taken_over_behind(*arguments: Any, **more: Any) -> ShardPart:
        part = write(*arguments, **more)
        (owner,) = output.glob(f".staging/*/{FOLDER}/{OWNER}")
        owner.write_text("another")
        return part

    monkeypatch.setattr("pipeline.packing.shard.write_shard", taken_over_behind)
    with pytest.raises(BuildError, match="another build writes to"):
        packed(source, output)
    assert list(output.glob(f".staging/*/{FOLDER}/*.parquet")) == []


def test_a_staged_file_that_only_nodes_cannot_read_is_kept_and_the_nodes_are_named(
    source: Path, tmp_path: Path
) -> None:
    planned = plan(source, tmp_path / "mfhq")
    video = planned.manifest.videos[4]

    class BadNodes(InProcess):
        def run(
            self,
            function: Callable[[Item], Result],
            items: Iterable[Item],
            check: Callable[[], None] = lambda: None,
        ) -> Iterator[tuple[int, Result]]:
            error = DamagedStagedFile(video, planned.staging.path(video), "its checksum is wrong")
            raise FailedOnNodes("failed", error, ["a", "b"])
            yield

    with pytest.raises(BuildError) as caught:
        packed(source, tmp_path / "mfhq", BadNodes())
    assert str(caught.value) == (
        f"the staged file of {video.video_id} cannot be read back on node a and b (its checksum is wrong), but "
        "this process can read it now. Nothing was dropped. Check the memory, the disk and the network on node a "
        "and b, then run the same command again; it continues"
    )
    assert len(planned.staging.finished(planned.manifest.videos)) == VIDEOS
