"""The stream of a rank: complete, in order, bounded, and plain about what is damaged."""

from __future__ import annotations

import gc
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import shards_factory as factory
import small_data
import torch
from small_data import TRAIN

from faces.landmark_image import landmark_image
from settings.section import ConfigError
from shards.landmarks import decode_landmarks
from shards.metadata import DatasetError
from shards.schema import IMAGE_SIDE, Split
from shards.writer import write_dataset
from training.config import Config
from training.data import workers
from training.data.batch import Batch
from training.data.dataset import StreamedDataset, open_dataset
from training.data.needs import Needs
from training.data.reader import never
from training.data.stream import IdentityStream
from training.errors import Stopped, TrainingError


def open_stream(
    config: Config,
    *,
    rank: int = 0,
    world_size: int = 1,
    start_step: int = 0,
    dataset: StreamedDataset | None = None,
    needs: Needs = small_data.MTD,
    stopping: Callable[[], bool] = never,
) -> IdentityStream:
    return IdentityStream(
        dataset or open_dataset(config.data.root, retry_s=1.0),
        config,
        needs,
        rank=rank,
        world_size=world_size,
        start_step=start_step,
        stopping=stopping,
    )


def take(stream: IdentityStream, count: int) -> list[Batch]:
    try:
        return [next(stream) for _ in range(count)]
    finally:
        stream.close()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return small_data.build(tmp_path / "mfhq")


def test_every_identity_comes_once_an_epoch(mfhq: Path) -> None:
    stream = open_stream(small_data.config(mfhq))
    assert (stream.identities, stream.accumulation) == (12, 2)
    batches = take(stream, 12)
    for first in (0, 6):
        epoch = batches[first : first + 6]
        assert sorted(key for batch in epoch for key in batch.keys) == TRAIN
    assert all(batch.valid_B.all() for batch in batches)
    assert [batch.keys for batch in batches[:6]] != [batch.keys for batch in batches[6:]]


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_landmark_images_are_those_of_the_targets_and_mirrored_with_them(mfhq: Path, flip: float) -> None:
    config = small_data.config(mfhq)
    config = config.model_copy(update={"data": config.data.model_copy(update={"flip": flip})})
    needs = Needs(64, targets=True, landmark_images=64)
    dataset = open_dataset(str(mfhq), retry_s=1.0)
    (batch,) = take(open_stream(config, dataset=dataset, needs=needs), 1)
    assert batch.landmark_images_BNHHC is not None
    assert batch.valid_B.all()
    seen = set()
    for row, key in enumerate(batch.keys):
        landmarks_KP2 = decode_landmarks(dataset.read(key).landmarks)
        for place, number in enumerate(batch.targets_BN[row].tolist()):
            expected = landmark_image(landmarks_KP2[number], IMAGE_SIDE, 64)
            image = batch.landmark_images_BNHHC[row, place].numpy()
            assert np.array_equal(image, expected[:, ::-1] if flip else expected)
            seen.add(image.tobytes())
    assert len(seen) > 1  # so that another target's would be noticed


def test_resuming_gives_the_batches_that_would_have_come(mfhq: Path) -> None:
    config = small_data.config(mfhq, inputs=(1, 5))
    undisturbed = take(open_stream(config), 14)
    resumed = take(open_stream(config, start_step=5), 4)
    for one, other in zip(undisturbed[10:], resumed, strict=True):
        small_data.assert_same(one, other)


def test_all_batches_have_one_shape_however_many_inputs_were_drawn(mfhq: Path) -> None:
    batches = take(open_stream(small_data.config(mfhq, inputs=(1, 5))), 12)
    drawn = [int(batch.input_valid_BM.sum(1).max()) for batch in batches]
    assert min(drawn) < 5
    assert {batch.inputs_BM.shape[1] for batch in batches} == {5}
    assert all((batch.inputs_BM[~batch.input_valid_BM] == 0).all() for batch in batches)


def test_the_number_of_threads_and_of_batches_read_ahead_changes_nothing(mfhq: Path) -> None:
    few = take(open_stream(small_data.config(mfhq, decode_threads=1, prefetch=1)), 8)
    many = take(open_stream(small_data.config(mfhq, decode_threads=7, prefetch=9)), 8)
    for one, other in zip(few, many, strict=True):
        small_data.assert_same(one, other)


def test_what_no_decoder_needs_is_left_out_and_nothing_else_changes(mfhq: Path) -> None:
    config = small_data.config(mfhq, inputs=2)
    full = take(open_stream(config), 3)
    without_masks = take(open_stream(config, needs=Needs(64, targets=True)), 3)
    for one, other in zip(full, without_masks, strict=True):
        assert other.masks_BKSS is None
        small_data.assert_same(replace(one, masks_BKSS=None), other)
    for one, other in zip(full, take(open_stream(config, needs=Needs(64)), 3), strict=True):
        shown = other.images_BKSSC.flatten(2).any(2).bool()
        inputs = torch.zeros(shown.shape, dtype=torch.bool).scatter(1, other.inputs_BM, value=True)
        assert torch.equal(shown, inputs)
        assert torch.equal(other.images_BKSSC[inputs], one.images_BKSSC[inputs])


def test_a_step_holds_the_same_samples_on_any_number_of_processes(mfhq: Path) -> None:
    def step(world_size: int, number: int) -> dict[str, tuple[int, list[int]]]:
        config = small_data.config(mfhq, inputs=2, per_process=1)
        found = {}
        for rank in range(world_size):
            stream = open_stream(config, rank=rank, world_size=world_size, start_step=number)
            for batch in take(stream, stream.accumulation):
                found[batch.keys[0]] = (int(batch.seeds_B[0]), batch.inputs_BM[0].tolist())
        return found

    # 2 -> 1 -> 4 processes, as a run that is moved between machines.
    alone = [step(1, number) for number in range(3)]
    assert [step(2, 0), step(1, 1), step(4, 2)] == alone
    assert [len(found) for found in alone] == [4, 4, 4]


def test_a_batch_larger_than_the_dataset_is_refused(mfhq: Path) -> None:
    with pytest.raises(TrainingError, match="12 training identities, fewer than the batch of 14"):
        open_stream(small_data.config(mfhq, batch=14))


def test_a_batch_that_processes_cannot_share_is_refused(mfhq: Path) -> None:
    with pytest.raises(ConfigError, match=r"batch=4 .*on 4 processes.*run\.per_process may be 1$"):
        open_stream(small_data.config(mfhq), world_size=4)


def test_a_shard_that_stays_corrupt_leaves_blank_rows_and_is_named_and_counted(copy: Path) -> None:
    shard = copy / "train/mfhq-train-000001-g0000.tar"
    for offset in range(0, shard.stat().st_size, 5000):
        small_data.flip_byte(shard, offset)
    stream = open_stream(small_data.config(copy))
    batches = take(stream, 12)
    rows = [
        (key, bool(valid), batch, row)
        for batch in batches
        for row, (key, valid) in enumerate(zip(batch.keys, batch.valid_B, strict=True))
    ]
    assert sorted(key for key, _, _, _ in rows) == sorted(TRAIN * 2)
    assert {key for key, valid, _, _ in rows if not valid} == set(TRAIN[5:10])
    assert not any(batch.images_BKSSC[row].any() for _, valid, batch, row in rows if not valid)
    # One message an identity, although each came twice.
    named = sorted(
        re.match(r"sample (\S+): train/mfhq-train-000001-g0000\.tar: member", text)[1]
        for text in stream.problems.values()
    )  # type: ignore[index]
    assert named == sorted(stream.problems) == TRAIN[5:10]


def test_an_image_that_does_not_decode_is_a_damaged_sample(tmp_path: Path) -> None:
    good = factory.sample(TRAIN[0], Split.TRAIN)
    images = [*good.images]
    images[4] = images[4][: len(images[4]) // 2]
    records = [*good.record.images]
    records[4] = records[4].model_copy(update={"sha256": factory.sha256(images[4])})
    broken = replace(good, record=good.record.model_copy(update={"images": records}), images=tuple(images))
    samples = [broken, *(factory.sample(key, Split.TRAIN) for key in TRAIN[1:])]
    write_dataset(tmp_path / "mfhq", samples, factory.videos(samples), factory.PROVENANCE, factory.LIMITS)
    stream = open_stream(small_data.config(tmp_path / "mfhq"))
    batches = take(stream, 6)
    (message,) = stream.problems.values()
    assert message.startswith(f"sample {TRAIN[0]}, image 4: ")
    assert sum(int(batch.valid_B.sum()) for batch in batches) == 11


def test_a_shard_that_vanishes_while_training_ends_the_stream(copy: Path) -> None:
    stream = open_stream(small_data.config(copy))
    next(stream)
    for shard in copy.glob("train/*.tar"):
        shard.unlink()
    with pytest.raises(DatasetError, match=r"has no train/mfhq-train-00000\d-g0000\.tar"):
        list(islice(stream, 6))
    assert stream.problems == {}


def test_a_shard_that_is_cut_short_while_training_is_a_failing_read_not_a_damaged_sample(copy: Path) -> None:
    dataset = open_dataset(str(copy), retry_s=0.5)
    for shard in copy.glob("train/*.tar"):
        shard.write_bytes(b"")
    stream = open_stream(small_data.config(copy), dataset=dataset)
    with pytest.raises(TrainingError, match=r"could not be read for 0 s: 0 bytes came instead of"):
        next(stream)
    assert stream.problems == {}


class Counting(StreamedDataset):
    """The real dataset, which counts what was asked of it, and can be slow or held up."""

    fetched = 0
    pause_s = 0.0
    flowing: threading.Event | None = None
    _counting = threading.Lock()

    def fetch(self, key: str, stopped: threading.Event | None = None):  # type: ignore[no-untyped-def]
        with self._counting:
            self.fetched += 1
        if self.flowing:
            self.flowing.wait(30)
        time.sleep(self.pause_s)
        return super().fetch(key, stopped)


@pytest.fixture
def counting(mfhq: Path) -> Counting:
    dataset = open_dataset(str(mfhq), retry_s=1.0)
    dataset.__class__ = Counting
    return dataset


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


def test_no_more_is_read_ahead_than_configured(mfhq: Path, counting: Counting) -> None:
    stream = open_stream(small_data.config(mfhq, prefetch=3), dataset=counting)
    for taken in (1, 2):
        next(stream)
        wait_until(lambda taken=taken: counting.fetched >= 2 * (taken + 3))
        time.sleep(0.3)
        assert counting.fetched == 2 * (taken + 3)
    stream.close()


def test_waiting_is_measured_and_batches_that_are_ready_cost_none(mfhq: Path, counting: Counting) -> None:
    counting.pause_s = 0.6
    stream = open_stream(small_data.config(mfhq, prefetch=3), dataset=counting)
    next(stream)
    waited = stream.waited_s
    assert waited > 0.5
    wait_until(stream._pending[0]._finished.is_set)
    next(stream)
    assert stream.waited_s - waited < 0.5  # a read takes longer
    stream.close()


def test_a_stop_ends_the_wait_for_storage_and_the_batch_can_still_be_had(
    mfhq: Path, counting: Counting
) -> None:
    counting.flowing = threading.Event()
    config = small_data.config(mfhq)
    looks = []

    def stopping() -> bool:
        looks.append(time.monotonic())
        return len(looks) > 2

    stream = open_stream(config, dataset=counting, stopping=stopping)
    with pytest.raises(Stopped):
        next(stream)
    assert len(looks) == 3
    assert stream.waited_s >= looks[-1] - looks[0] > 0
    counting.flowing.set()
    wait_until(stream._pending[0]._finished.is_set)
    # What has been read needs no wait, so no stop ends it.
    (expected,) = take(open_stream(config), 1)
    small_data.assert_same(take(stream, 1)[0], expected)


def stream_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith(("decode-", "fetch-"))}


def test_closing_ends_all_threads_and_the_iteration(mfhq: Path) -> None:
    before = stream_threads()
    stream = open_stream(small_data.config(mfhq))
    next(stream)
    started = stream_threads() - before
    assert len(started) == 2 * (1 + 4)
    stream.close()
    stream.close()
    assert not started & stream_threads()
    assert list(stream) == []


def test_a_stream_that_is_forgotten_leaves_no_threads(mfhq: Path) -> None:
    before = stream_threads()
    stream = open_stream(small_data.config(mfhq))
    next(stream)
    started = stream_threads() - before
    assert started
    del stream
    gc.collect()
    wait_until(lambda: not started & stream_threads())


def test_closing_leaves_a_read_behind_that_never_returns(
    mfhq: Path, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "PATIENCE_S", 0.3)
    counting.flowing = threading.Event()
    stream = open_stream(small_data.config(mfhq), dataset=counting, stopping=lambda: True)
    with pytest.raises(Stopped):
        next(stream)
    began = time.monotonic()
    stream.close()
    assert time.monotonic() - began < 10
    counting.flowing.set()
