"""Equal samples give equal bytes, contradictions are rejected, and only whole datasets look whole."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import shards_factory as factory

from shards.atomic import OutOfSpace
from shards.findings import Check
from shards.metadata import DatasetError, ShardLimits
from shards.reader import Dataset
from shards.sample import Sample
from shards.schema import Split
from shards.tar import header
from shards.verify import verify
from shards.writer import write_dataset

RENAMES = 7
"""Three shards, three tables and dataset.json."""


def change(sample: Sample, **fields: object) -> Sample:
    return dataclasses.replace(sample, record=sample.record.model_copy(update=fields))


def test_two_writes_are_byte_identical(pristine: Path, tmp_path: Path) -> None:
    write_dataset(
        tmp_path, iter(factory.samples()), factory.videos()[::-1], factory.PROVENANCE, factory.LIMITS
    )
    assert factory.snapshot(tmp_path) == factory.snapshot(pristine)


def test_a_rewrite_leaves_nothing_of_the_old_dataset(pristine: Path, root: Path) -> None:
    factory.build(root, ShardLimits(max_samples=1))
    assert len(list(root.glob("train/*.tar"))) == 4
    factory.build(root)
    assert factory.snapshot(root) == factory.snapshot(pristine)


def test_files_for_people_survive_a_rewrite(root: Path) -> None:
    (root / "README.md").write_text("card")
    (root / "report").mkdir()
    (root / "report" / "index.html").write_text("report")
    factory.build(root)
    assert (root / "README.md").read_text() == "card"
    assert (root / "report" / "index.html").read_text() == "report"
    assert verify(root) == []


@pytest.mark.parametrize("name", ["a.0.jpg", "k" * 80 + ".7.mask.png"])
@pytest.mark.parametrize("size", [0, 1, 511, 512, 100_000, 2**31])
def test_headers_are_those_of_the_standard_library(name: str, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size = size
    assert header(name, size) == info.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize(("name", "size"), [("", 1), ("n" * 101, 1), ("é.jpg", 1), ("a", 8**11), ("a", -1)])
def test_a_header_that_ustar_cannot_hold_is_rejected(name: str, size: int) -> None:
    with pytest.raises(ValueError, match=r"does not fit|ascii"):
        header(name, size)


def test_shards_are_those_that_the_standard_library_writes(pristine: Path, tmp_path: Path) -> None:
    for shard in Dataset.open(pristine).metadata.shards:
        taken = factory.Shard.take_apart(pristine / shard.name)
        taken.path = tmp_path / "again.tar"
        taken.put_together()
        assert taken.path.read_bytes() == (pristine / shard.name).read_bytes()
        assert shard.bytes % 10_240 == 0


def test_shards_are_those_that_webdataset_writes(pristine: Path, tmp_path: Path) -> None:
    from webdataset.writer import TarWriter

    for shard in Dataset.open(pristine).metadata.shards:
        taken = factory.Shard.take_apart(pristine / shard.name)
        with (tmp_path / "again.tar").open("wb") as file:
            settings = {"user": "", "group": "", "mode": 0o644, "mtime": 0}
            tar = TarWriter(file, encoder=False, **settings)
            for name, data in taken.members:
                key, field = name.split(".", 1)
                tar.write({"__key__": key, field: data})
            tar.close()
        assert (tmp_path / "again.tar").read_bytes() == (pristine / shard.name).read_bytes()


def test_only_so_many_samples_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shards.writer.AHEAD", 2)
    written = [0]

    def lazily() -> Iterator[Sample]:
        for number, sample in enumerate(factory.samples()):
            assert written[0] >= number - 3
            yield sample

    write_dataset(
        tmp_path,
        lazily(),
        factory.videos(),
        factory.PROVENANCE,
        factory.LIMITS,
        progress=lambda count: written.__setitem__(0, count),
    )
    assert written == [5]


def _swapped(samples: list[Sample]) -> list[Sample]:
    return [samples[0], samples[2], samples[1], *samples[3:]]


def _train_first(samples: list[Sample]) -> list[Sample]:
    return [*samples[1:], samples[0]]


def _twice(samples: list[Sample]) -> list[Sample]:
    return [*samples[:2], *samples[1:]]


def _in_both_splits(samples: list[Sample]) -> list[Sample]:
    return [samples[0], change(samples[0], split=Split.TRAIN), *samples[1:]]


def _leaking_person(samples: list[Sample]) -> list[Sample]:
    return [*samples[:-1], change(samples[-1], person_id=samples[0].record.person_id)]


def _wrong_bytes(samples: list[Sample]) -> list[Sample]:
    images = (*samples[1].images[:3], samples[1].images[4], *samples[1].images[4:])
    return [samples[0], dataclasses.replace(samples[1], images=images), *samples[2:]]


def _wrong_mask(samples: list[Sample]) -> list[Sample]:
    masks = (factory.mask(49), *samples[1].masks[1:])
    return [samples[0], dataclasses.replace(samples[1], masks=masks), *samples[2:]]


def _seven_images(samples: list[Sample]) -> list[Sample]:
    return [samples[0], dataclasses.replace(samples[1], images=samples[1].images[:7]), *samples[2:]]


def _small_image(samples: list[Sample]) -> list[Sample]:
    small = factory.jpeg(1, (256, 256))
    record = samples[1].record
    images = [record.images[0].model_copy(update={"sha256": factory.sha256(small)}), *record.images[1:]]
    changed = dataclasses.replace(change(samples[1], images=images), images=(small, *samples[1].images[1:]))
    return [samples[0], changed, *samples[2:]]


def _unknown_video(samples: list[Sample]) -> list[Sample]:
    return [samples[0], change(samples[1], video_id="clip-z"), *samples[2:]]


def _other_license(samples: list[Sample]) -> list[Sample]:
    return [samples[0], change(samples[1], license=None), *samples[2:]]


def _other_track(samples: list[Sample]) -> list[Sample]:
    return [samples[0], change(samples[1], track=1), *samples[2:]]


def _not_a_number(samples: list[Sample]) -> list[Sample]:
    return [samples[0], change(samples[1], track_end_s=float("nan")), *samples[2:]]


def _other_version(samples: list[Sample]) -> list[Sample]:
    return [change(samples[0], format_version="3.1"), *samples[1:]]


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (_swapped, r"'clip-a_0'\) comes after .*'clip-b_0'\): sort by"),
        (_train_first, r"\('test', 'clip-b_1'\) comes after"),
        (_twice, r"'clip-a_0'\) occurs twice"),
        (_in_both_splits, "key clip-b_1 occurs in both splits"),
        (_leaking_person, "person p-b1 is in both splits"),
        (_wrong_bytes, r"clip-a_0\.3\.jpg: its bytes have another sha256"),
        (_wrong_mask, r"clip-a_0\.0\.mask\.png: its bytes have another sha256"),
        (_seven_images, "clip-a_0: 7 images and 8 masks, expected 8 of each"),
        (_small_image, r"clip-a_0\.0\.jpg: is 256 x 256 YCbCr, expected 512 x 512 in colour"),
        (_unknown_video, "clip-a_0: its video clip-z has no outcome"),
        (_other_license, "license is None in the sample and 'CC BY 4.0' in clip-a"),
        (_other_track, "track 1 of clip-a does not name it as its sample"),
        (_not_a_number, "clip-a_0: the record holds NaN or an infinity"),
        (_other_version, r"clip-b_1: format version 3\.1, not 3\.0"),
        (lambda samples: samples[:-1], "clip-d has 1 identities in its outcome, but 0 samples came"),
    ],
)
def test_samples_that_contradict_are_rejected_and_leave_no_dataset(
    root: Path, plant: Callable[[list[Sample]], list[Sample]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_dataset(root, plant(factory.samples()), factory.videos(), factory.PROVENANCE, factory.LIMITS)
    assert not (root / "dataset.json").exists()
    assert not [name for name in factory.snapshot(root) if ".tmp-" in name]


def test_contradicting_outcomes_are_rejected_before_anything_is_touched(pristine: Path, root: Path) -> None:
    videos = factory.videos()
    with pytest.raises(ValueError, match="clip-a has more than one outcome"):
        write_dataset(root, factory.samples(), [*videos, videos[0]], factory.PROVENANCE, factory.LIMITS)
    videos[0] = videos[0].model_copy(update={"identities": 3})
    with pytest.raises(ValueError, match="clip-a: 3 identities, but 1 of its tracks name a sample"):
        write_dataset(root, factory.samples(), videos, factory.PROVENANCE, factory.LIMITS)
    assert factory.snapshot(root) == factory.snapshot(pristine)


def test_a_directory_with_foreign_files_among_the_shards_is_rejected_untouched(root: Path) -> None:
    (root / "train" / "thesis.docx").write_text("dear")
    before = factory.snapshot(root)
    with pytest.raises(FileExistsError, match=r"thesis\.docx is no part of a dataset"):
        factory.build(root)
    assert factory.snapshot(root) == before


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import shards_factory as factory
base, renames = Path(sys.argv[2]), int(sys.argv[3])
samples, videos = factory.samples(), factory.videos()
for number in range(renames):
    child = os.fork()
    if child == 0:
        left = [number]
        def hook(event, args):
            if event == "os.rename":
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
        sys.addaudithook(hook)
        factory.build(base / str(number))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.slow
def test_kill_9_at_any_file_leaves_no_dataset_and_a_rerun_gives_the_same_bytes(
    pristine: Path, tmp_path: Path
) -> None:
    for number in range(RENAMES):
        shutil.copytree(pristine, tmp_path / str(number))
        shutil.copy(
            pristine / "train/mfhq-train-000000-g0000.tar",
            tmp_path / str(number) / "train/mfhq-train-000002-g0000.tar",
        )
    here = str(Path(factory.__file__).parent)
    result = subprocess.run(
        [sys.executable, "-c", KILLED, here, str(tmp_path), str(RENAMES)],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(factory.__file__).parents[2],
    )
    assert result.stdout.split() == [str(-signal.SIGKILL)] * RENAMES
    whole = factory.snapshot(pristine)
    for number in range(RENAMES):
        root = tmp_path / str(number)
        left = factory.snapshot(root)
        assert "dataset.json" not in left
        assert any(".tmp-" in name for name in left)
        for name, data in left.items():
            if name.endswith(".tar"):
                assert data == whole[name]
        with pytest.raises(DatasetError, match="is no finished dataset"):
            Dataset.open(root)
        assert Check.BAD_METADATA in {finding.check for finding in verify(root)}
        factory.build(root)
        assert factory.snapshot(root) == whole


def test_a_full_disk_is_named_and_leaves_no_half_file(
    pristine: Path, small_disk: Callable[[int], Path]
) -> None:
    whole = factory.snapshot(pristine)
    pages = {name: -(-len(data) // 4096) for name, data in whole.items()}
    shards = sum(count for name, count in pages.items() if name.endswith(".tar"))
    failed_at = []
    for size in (5, shards // 2, shards + 1, sum(pages.values()) - 1):
        root = small_disk(size * 4096)
        with pytest.raises(OutOfSpace, match="run the same command again: finished work is kept") as caught:
            factory.build(root)
        failed_at.append(caught.value.path.relative_to(root).as_posix())
        left = factory.snapshot(root)
        assert "dataset.json" not in left
        assert all(whole[name] == data for name, data in left.items())
    assert failed_at == [
        "test/mfhq-test-000000-g0000.tar",
        "train/mfhq-train-000000-g0000.tar",
        "images-g0000.parquet",
        "dataset.json",
    ]
    root = small_disk(sum(pages.values()) * 4096)
    factory.build(root)
    assert factory.snapshot(root) == whole
