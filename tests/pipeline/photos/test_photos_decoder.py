"""Photographs are decoded in a sandbox: what one does costs only itself."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from photograph_files import png_that_claims, portrait, save
from PIL import Image as Pillow

from faces.photograph import read_photograph
from faces.types import Image
from pipeline.photos.child import jpeg_damage
from pipeline.photos.decoder import PhotographDecoder
from pipeline.rejection import Rejection
from shards.schema import Reason

SOUND = b"sound"


@pytest.fixture(scope="module")
def decoder() -> Iterator[PhotographDecoder]:
    made = PhotographDecoder(max_pixels=1_000_000, memory_gb=1.0, timeout_s=30.0, mode="best_effort")
    yield made
    made.close()


@pytest.fixture(scope="module")
def hostile() -> Iterator[PhotographDecoder]:
    """A decoder that runs the attacks that "photographs" name."""
    made = PhotographDecoder(
        max_pixels=1_000_000,
        memory_gb=0.25,
        timeout_s=1.0,
        mode="best_effort",
        entry="hostile_photographs:serve",
    )
    yield made
    made.close()


@pytest.fixture(scope="module")
def jpeg() -> bytes:
    file = io.BytesIO()
    Pillow.fromarray(portrait("astronaut")).save(file, "JPEG", quality=95)
    return file.getvalue()


def images(decoder: PhotographDecoder, files: list[bytes]) -> list[Image | Rejection]:
    return list(decoder.decode(files))


def test_pixels_are_those_that_are_read_outside_of_the_sandbox(
    decoder: PhotographDecoder, tmp_path: Path
) -> None:
    image = portrait("astronaut")
    files = [
        save(tmp_path / f"a.{suffix}", image) for suffix in ("jpg", "png", "webp", "avif", "tiff", "bmp")
    ]
    turned = Pillow.Exif()
    turned[0x0112] = 6
    Pillow.fromarray(image).save(tmp_path / "turned.jpg", exif=turned)
    files.append(tmp_path / "turned.jpg")
    found = images(decoder, [file.read_bytes() for file in files])
    assert len(found) == len(files)
    for file, pixels in zip(files, found, strict=True):
        assert not isinstance(pixels, Rejection), (file, pixels)
        np.testing.assert_array_equal(pixels, read_photograph(file))
    turned_image = found[-1]
    assert not isinstance(turned_image, Rejection)
    assert turned_image.shape[:2] == image.shape[1::-1]


def test_files_that_are_no_photographs_have_their_reasons_and_cost_no_other(
    decoder: PhotographDecoder, jpeg: bytes
) -> None:
    bad = {
        b"no picture": Reason.UNREADABLE,
        b"<svg xmlns='http://www.w3.org/2000/svg'/>": Reason.UNREADABLE,
        jpeg[: len(jpeg) // 2]: Reason.DECODE_ERROR,
        png_that_claims(2_000, 1_000): Reason.FRAME_TOO_LARGE,
        png_that_claims(100_000, 100_000): Reason.FRAME_TOO_LARGE,
        png_that_claims(100, 100): Reason.DECODE_ERROR,
    }
    found = images(decoder, [part for file in bad for part in (file, jpeg)])
    for (file, reason), rejection, sound in zip(bad.items(), found[::2], found[1::2], strict=True):
        assert isinstance(rejection, Rejection), file
        assert rejection.reason is reason
        assert rejection.detail
        assert not isinstance(sound, Rejection)


def test_a_jpeg_with_damaged_data_is_rejected_although_pillow_shows_it(
    decoder: PhotographDecoder, jpeg: bytes
) -> None:
    draw = random.Random(1)  # noqa: S311 - not for secrets
    passed = rejected = 0
    for _ in range(200):
        damaged = bytearray(jpeg)
        damaged[draw.randrange(700, len(jpeg))] = draw.randrange(256)
        if jpeg_damage(bytes(damaged)) is None:
            passed += 1
            continue
        (found,) = images(decoder, [bytes(damaged)]) if rejected < 5 else (Rejection(Reason.DECODE_ERROR),)
        assert isinstance(found, Rejection)
        assert found.reason is Reason.DECODE_ERROR
        rejected += 1
    assert jpeg_damage(jpeg) is None
    assert rejected >= 20, passed


@pytest.mark.parametrize(
    ("attack", "reason", "detail"),
    [
        ("crash", Reason.DECODER_CRASHED, "SIGABRT"),
        ("exec", Reason.SANDBOX_VIOLATION, "SIGSYS"),
        ("exit", Reason.DECODER_CRASHED, "exit code 0"),
        ("sleep", Reason.TIMEOUT, "longer than 1 s (run.photograph_timeout_s)"),
        ("memory", Reason.OUT_OF_MEMORY, "more than 0.25 GB (run.photograph_memory_gb)"),
        ("size", Reason.DECODER_CRASHED, "a frame is not within its slot"),
        ("chatter", Reason.DECODER_CRASHED, "a message of type"),
        ("reason", Reason.DECODER_CRASHED, "a rejection has no known reason"),
        ("read /etc/passwd", Reason.UNREADABLE, "denied"),
        (f"read {Path(__file__)}", Reason.UNREADABLE, "denied"),
    ],
)
def test_an_attack_costs_its_own_photograph_and_no_other(
    hostile: PhotographDecoder, attack: str, reason: Reason, detail: str
) -> None:
    if attack.startswith("read ") and not hostile.enforced.landlock_abi:
        pytest.skip("this kernel has no Landlock")
    before, found, after = images(hostile, [SOUND, attack.encode(), SOUND])
    assert isinstance(found, Rejection)
    assert found.reason is reason
    assert found.detail is not None
    assert detail in found.detail
    for sound in (before, after):
        assert not isinstance(sound, Rejection)
        assert sound.tolist() == [[[7, 7, 7]]]


def test_a_decoder_that_died_is_replaced_for_the_next_person(hostile: PhotographDecoder) -> None:
    assert images(hostile, []) == []
    (found,) = images(hostile, [b"crash"])
    assert isinstance(found, Rejection)
    (sound,) = images(hostile, [SOUND])
    assert not isinstance(sound, Rejection)
