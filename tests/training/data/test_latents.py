"""Kept latents: checked when they are read, and in the batch in place of the pixels of targets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_data
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save
from seaweed import S3Server
from small_data import TEST, TRAIN

import training.data.decode as decode_module
from settings.section import ConfigError
from training.config import Config, Validation
from training.data.batch import Batch, pick
from training.data.dataset import open_dataset
from training.data.held_out import held_out_batches
from training.data.latents import LatentFiles, latents_directory
from training.data.needs import KeptLatents, Needs
from training.data.stream import IdentityStream
from training.errors import BadSample, TrainingError

SHAPE = (4, 6, 6)
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
PIXELS = Needs(64) | Needs(512, targets=True)
"""A run that decodes targets at 512 pixels, beside an encoder that takes 64."""


def kept(directory: Path | str, dtype: torch.dtype = torch.float32, **changes: object) -> Needs:
    """The same run with kept latents."""
    latents = KeptLatents(str(directory), "a" * 64, "codec-1", 512, SHAPE, dtype)
    return Needs(64, latents=replace(latents, **changes))


def numbers(key: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The latents of an identity."""
    generator = torch.Generator().manual_seed(int.from_bytes(key.encode()[-7:], "big"))
    return torch.randn(8, *SHAPE, generator=generator).to(dtype)


def write_all(needs: Needs, keys: list[str]) -> LatentFiles:
    files = LatentFiles(needs, retry_s=1.0)
    for key in keys:
        files.write(key, numbers(key, needs.latents.dtype))
    return files


@given(
    values=st.lists(st.floats(-6e4, 6e4, width=16), min_size=1, max_size=40), dtype=st.sampled_from(DTYPES)
)
def test_what_is_written_is_read_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], dtype: torch.dtype
) -> None:
    files = LatentFiles(kept(tmp_path_factory.mktemp("kept"), dtype), retry_s=1.0)
    latents = torch.tensor(np.resize(values, (8, *SHAPE))).to(dtype)
    files.write("k", latents)
    bits = torch.from_numpy(files.check("k", files.read("k")).copy())
    assert torch.equal(bits.view(dtype), latents)


SPOILS = {
    "no safetensors file": lambda data: b"spoilt",
    "no safetensors file ": lambda data: data[:-30],
    "its sha256 is wrong": lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
    "it holds latents instead of": lambda data: save({"latents": numbers(TRAIN[0])}),
    "it holds BF16 of shape": lambda data: contents(numbers(TRAIN[0], torch.bfloat16)),
    r"it holds F32 of shape \[8, 4, 3, 3\]": lambda data: contents(
        numbers(TRAIN[0])[..., :3, :3].contiguous()
    ),
    "numbers that are not finite": lambda data: contents(numbers(TRAIN[0]) / 0),
}


def contents(latents: torch.Tensor) -> bytes:
    from training.data.latents import _file

    return _file(latents)


@pytest.mark.parametrize("problem", SPOILS)
def test_a_damaged_file_is_an_error_that_names_it_and_the_remedy(problem: str, tmp_path: Path) -> None:
    files = write_all(kept(tmp_path), ["k"])
    path = Path(files.directory) / files.path("k")
    path.write_bytes(SPOILS[problem](path.read_bytes()))
    with pytest.raises(TrainingError, match=problem.strip()) as caught:
        files.check("k", files.read("k"))
    assert f"decoders.flow.latents: {path} is damaged: " in str(caught.value)
    assert "Delete this file, then run `omniid latents`" in str(caught.value)


def test_files_that_are_not_there_or_were_cut_off_are_missing(tmp_path: Path) -> None:
    files = write_all(kept(tmp_path), TRAIN[:4])
    assert files.missing(TRAIN) == TRAIN[4:]
    (Path(files.directory) / files.path(TRAIN[1])).write_bytes(b"")
    files.write_damaged(TRAIN[5], "sample train-05_0: torn")
    assert files.missing(TRAIN[:6]) == [TRAIN[1], *TRAIN[4:6]]
    assert files.missing(TRAIN[:6], without_damaged=True) == [TRAIN[1], TRAIN[4]]
    assert LatentFiles(kept(tmp_path / "nowhere"), retry_s=1.0).missing(TRAIN) == TRAIN
    with pytest.raises(BadSample, match=r"sample train-05_0: torn \(it was so when latents were computed"):
        files.read(TRAIN[5])


@pytest.mark.parametrize(
    "other", [{"dataset_sha256": "b" * 64}, {"codec": "codec-2"}, {"side": 256}, {"side": 448}]
)
def test_latents_of_other_images_or_another_codec_are_others(
    other: dict[str, object], tmp_path: Path
) -> None:
    write_all(kept(tmp_path), TRAIN)
    assert LatentFiles(kept(tmp_path, **other), retry_s=1.0).missing(TRAIN) == TRAIN


def test_images_that_another_part_decodes_larger_have_other_latents(tmp_path: Path) -> None:
    small = kept(tmp_path, side=128)
    names = [LatentFiles(needs, 1.0).directory for needs in (small, small | Needs(200, targets=True))]
    assert [name.rsplit("-", 2)[1:] for name in names] == [["128", "128"], ["128", "256"]]


def test_the_directory_is_beside_the_shards_or_the_one_that_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert latents_directory("on_the_fly", str(tmp_path)) is None
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    for root in (str(tmp_path), f"~/{tmp_path.name}", f"file://{tmp_path}"):
        assert latents_directory("beside_shards", root) == str(tmp_path / "latents")
    assert latents_directory("beside_shards", "s3://bucket/mfhq/") == "s3://bucket/mfhq/latents"
    assert latents_directory("/fast/disk", "s3://bucket/mfhq") == "/fast/disk"
    assert latents_directory("~/disk", "root") == str(tmp_path.parent / "disk")
    assert latents_directory("s3://other/latents/", "root") == "s3://other/latents"
    with pytest.raises(ConfigError, match=r"nothing can be written beside_shards of https://example\.org"):
        latents_directory("beside_shards", "https://example.org/mfhq")
    with pytest.raises(ConfigError, match=r"decoders\.flow\.latents: .*a password") as caught:
        latents_directory("s3://me:word@bucket/latents", "root")
    assert "word@" not in str(caught.value)


def config(root: Path | str, **run: object) -> Config:
    found = small_data.config(root, **run)
    return found.model_copy(update={"data": found.data.model_copy(update={"targets": 3})})


def batches(root: Path | str, needs: Needs, count: int = 6, **run: object) -> Iterator[Batch]:
    dataset = open_dataset(str(root), retry_s=1.0)
    with closing(IdentityStream(dataset, config(root, **run), needs, rank=0, world_size=1)) as stream:
        for _ in range(count):
            yield next(stream)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_batch_has_the_latents_of_its_targets_and_the_rest_is_the_same(
    mfhq: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    needs = kept(tmp_path, dtype)
    write_all(needs, TRAIN)
    plain = batches(mfhq, Needs(64))
    for found, expected in zip(batches(mfhq, needs), plain, strict=True):
        latents_BKCHH = torch.stack([numbers(key, dtype) for key in found.keys])
        assert torch.equal(found.latents_BNCHH, pick(latents_BKCHH, found.targets_BN))
        assert found.latents_BNCHH.shape == (2, 3, *SHAPE)
        small_data.assert_same(replace(found, latents_BNCHH=None), expected)


def test_target_images_are_not_decoded_and_inputs_at_the_side_of_the_encoder(
    mfhq: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_all(kept(tmp_path), TRAIN)
    decode, decoded = decode_module.decode_image, []

    def counted(data: bytes, into_SSC: np.ndarray) -> None:
        decoded.append(into_SSC.shape[0])
        decode(data, into_SSC)

    monkeypatch.setattr(decode_module, "decode_image", counted)
    work = {}
    for name, needs in (("pixels", PIXELS), ("latents", kept(tmp_path))):
        decoded.clear()
        dataset = open_dataset(str(mfhq), retry_s=1.0)
        run = config(mfhq, prefetch=1)
        with closing(IdentityStream(dataset, run, needs, rank=0, world_size=1)) as stream:
            size = next(stream).images_BKSSC.numel()
            stream._pending[0].wait(lambda: False)
        work[name] = (len(decoded), {*decoded}, size)
    identities = 4  # two batches, one of them ahead
    assert work["latents"] == (3 * identities, {64}, 2 * 8 * 64 * 64 * 3)
    assert work["pixels"][1:] == ({512}, 2 * 8 * 512 * 512 * 3)
    assert 3 * identities < work["pixels"][0] <= (3 + 3) * identities


def test_held_out_batches_have_latents_too(mfhq: Path, tmp_path: Path) -> None:
    needs = kept(tmp_path)
    write_all(needs, TEST)
    dataset = open_dataset(str(mfhq), retry_s=1.0)
    validation = Validation(targets=2)
    found = list(held_out_batches(dataset, TEST, validation, 2, needs, rank=0, world_size=1))
    assert sum(int(batch.valid_B.sum()) for batch, *_ in found) == len(TEST)
    for batch, *_ in found:
        for row, key in enumerate(batch.keys):
            expected = numbers(key)[batch.targets_BN[row]] * batch.valid_B[row]
            assert torch.equal(batch.latents_BNCHH[row], expected)


def test_a_file_that_goes_missing_ends_the_stream_with_the_remedy(mfhq: Path, tmp_path: Path) -> None:
    files = write_all(kept(tmp_path), TRAIN)
    (Path(files.directory) / files.path(TRAIN[3])).unlink()
    with pytest.raises(TrainingError, match=rf"{files.path(TRAIN[3])} is missing\. Run `omniid latents`"):
        list(batches(mfhq, kept(tmp_path)))


def test_a_damaged_file_ends_the_stream_with_the_remedy(mfhq: Path, tmp_path: Path) -> None:
    files = write_all(kept(tmp_path), TRAIN)
    small_data.flip_byte(Path(files.directory) / files.path(TRAIN[3]), files.file_bytes - 5)
    with pytest.raises(TrainingError, match=r"is damaged: its sha256 is wrong\. Delete this file"):
        list(batches(mfhq, kept(tmp_path)))


def test_an_identity_that_was_damaged_when_latents_were_computed_is_a_blank_row(
    mfhq: Path, tmp_path: Path
) -> None:
    files = write_all(kept(tmp_path), TRAIN[1:])
    files.write_damaged(TRAIN[0], f"sample {TRAIN[0]}: torn")
    rows = [
        (key, bool(valid), bool(batch.latents_BNCHH[row].any()))
        for batch in batches(mfhq, kept(tmp_path))
        for row, (key, valid) in enumerate(zip(batch.keys, batch.valid_B, strict=True))
    ]
    assert sorted(rows) == [(TRAIN[0], False, False), *((key, True, True) for key in TRAIN[1:])]


@pytest.mark.usefixtures("credentials")
def test_they_can_be_in_an_object_store(mfhq: Path, tmp_path: Path, s3: S3Server) -> None:
    s3.upload(mfhq, "bucket", "sets/mfhq")  # makes the bucket
    near, far = kept(tmp_path), kept("s3://bucket/latents")
    assert LatentFiles(far, retry_s=1.0).missing(TRAIN) == TRAIN
    write_all(near, TRAIN)
    files = write_all(far, TRAIN[1:])
    assert files.missing(TRAIN) == TRAIN[:1]
    files.write_damaged(TRAIN[0], "torn")
    assert files.missing(TRAIN, without_damaged=True) == []
    files.write(TRAIN[0], numbers(TRAIN[0]))
    for one, other in zip(batches(mfhq, near), batches(mfhq, far), strict=True):
        small_data.assert_same(one, other)


def test_two_kinds_of_latents_do_not_fit_into_a_batch(tmp_path: Path) -> None:
    one = kept(tmp_path)
    assert (one | one) == one
    assert (one | Needs(512)).latents == one.latents
    with pytest.raises(ValueError, match="two decoders read different kept latents"):
        one | kept(tmp_path, codec="codec-2")


def test_the_grid_needs_the_images_in_their_place(tmp_path: Path) -> None:
    assert kept(tmp_path).with_target_images() == PIXELS
    assert PIXELS.with_target_images() is PIXELS
