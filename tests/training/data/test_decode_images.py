"""Images and masks as they arrive in a batch."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import shards_factory as factory
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from small_data import TEST, TRAIN

from faces.mask import encode_mask_png
from shards.sample import Sample
from shards.schema import Split
from training.data.batch import Batch
from training.data.decode import BatchBuffer, decode_image, decode_mask, decoded_side
from training.data.draws import Draw
from training.data.needs import Needs
from training.errors import BadSample

SAMPLE = factory.sample(TRAIN[0], Split.TRAIN)
NEEDS = st.builds(Needs, st.integers(16, 512), targets=st.booleans(), masks=st.booleans())
WHOLE = Draw(inputs=(3, 1), targets=tuple(range(8)), seed=-5)


def assemble(
    samples: Sequence[Sample | None], draws: Sequence[Draw], keys: Sequence[str], needs: Needs
) -> Batch:
    """A batch of samples; None leaves a row blank."""
    buffer = BatchBuffer(keys, draws, needs)
    for row, sample in enumerate(samples):
        if sample is None:
            buffer.blank(row)
        else:
            buffer.fill(row, sample)
    return buffer.batch()


def disc(x: float = 250, y: float = 260, radius: float = 150.3) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[:512, :512]
    return np.where((rows - y) ** 2 + (columns - x) ** 2 < radius**2, 255, 0).astype(np.uint8)


def claiming(side: int) -> bytes:
    """A mask whose header says another size."""
    data = encode_mask_png(disc())
    header = b"IHDR" + side.to_bytes(4, "big") * 2 + data[24:29]
    return data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:]


def decoded_mask(data: bytes, side: int) -> NDArray[np.uint8]:
    into_SS = np.full((side, side), 7, np.uint8)
    decode_mask(data, into_SS)
    return into_SS


@pytest.mark.parametrize(
    ("side", "decoded"), [(64, 64), (112, 128), (224, 256), (256, 256), (500, 512), (700, 512)]
)
def test_images_are_decoded_at_the_next_eighth_of_their_size(side: int, decoded: int) -> None:
    assert decoded_side(side) == decoded


@pytest.mark.parametrize("side", [64, 128, 256, 320, 512])
def test_a_scaled_image_is_the_whole_image_made_smaller(side: int) -> None:
    into_SSC = np.zeros((side, side, 3), np.uint8)
    decode_image(SAMPLE.images[0], into_SSC)
    with Image.open(io.BytesIO(SAMPLE.images[0])) as image:
        smaller = np.asarray(image.resize((side, side), Image.Resampling.BOX))
    assert np.abs(into_SSC.astype(int) - smaller).mean() < 6


@pytest.mark.parametrize("side", [64, 128, 256, 320, 512])
def test_a_mask_is_face_where_half_of_a_pixel_is(side: int) -> None:
    mask = disc()
    mask[0, ::2] = 255  # an edge that halves pixels
    with Image.fromarray(mask) as image:
        covered = np.asarray(image.convert("F").resize((side, side), Image.Resampling.BOX)) / 255
    reduced = decoded_mask(encode_mask_png(mask), side)
    assert set(np.unique(reduced)) == {0, 255}
    clear = np.abs(covered - 0.5) > 0.01
    np.testing.assert_array_equal((reduced == 255)[clear], (covered > 0.5)[clear])


@pytest.mark.parametrize("side", [64, 256, 512])
@pytest.mark.parametrize("mode", ["1", "L"])
def test_masks_of_every_kind_of_the_format_give_the_same(mode: str, side: int) -> None:
    mask = disc()
    expected = decoded_mask(encode_mask_png(mask), side)
    np.testing.assert_array_equal(decoded_mask(factory.png(mask, mode), side), expected)
    filtered = io.BytesIO()  # interlaced or filtered files are valid as well
    Image.fromarray(mask).convert(mode).save(filtered, "PNG", optimize=True)
    np.testing.assert_array_equal(decoded_mask(filtered.getvalue(), side), expected)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89PNG",
        encode_mask_png(disc())[:300],
        encode_mask_png(disc()[:256]),
        factory.jpeg(1)[:50],
        claiming(100_000),
        claiming(1024),
    ],
)
def test_a_file_that_is_no_mask_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"the mask is no PNG image of 512 x 512 pixels"):
        decoded_mask(data, 256)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no image",
        SAMPLE.images[0][: len(SAMPLE.images[0]) // 2],
        factory.jpeg(1, (300, 300)),
        factory.jpeg(1, (1024, 512)),
    ],
)
def test_an_image_that_does_not_decode_is_a_bad_sample_and_its_row_is_blank(data: bytes) -> None:
    damaged = replace(SAMPLE, images=(*SAMPLE.images[:2], data, *SAMPLE.images[3:]))
    with pytest.raises(BadSample, match=f"sample {TRAIN[0]}, image 2: "):
        assemble([damaged], [WHOLE], [TRAIN[0]], Needs(224, targets=True, masks=True))


def test_landmarks_that_do_not_decode_are_a_bad_sample_where_they_are_needed() -> None:
    damaged = replace(SAMPLE, landmarks=b"no landmarks")
    with pytest.raises(BadSample, match=f"sample {TRAIN[0]}, landmarks: "):
        assemble([damaged], [WHOLE], [TRAIN[0]], Needs(224, keypoints=True))
    assert assemble([damaged], [WHOLE], [TRAIN[0]], Needs(224)).keypoints_BKP2 is None


def test_a_batch_holds_what_was_drawn() -> None:
    draws = [Draw((3, 1), (6, 7), -5), Draw((5,), (0, 2), 9), Draw((0, 7, 2), (2, 4), 2**63 - 1)]
    other = factory.sample(TEST[0], Split.TEST)
    batch = assemble([SAMPLE, None, other], draws, ["a", "b", "c"], Needs(64, targets=True, masks=True))
    assert batch.images_BKSSC.shape == (3, 8, 64, 64, 3)
    assert batch.masks_BKSS.shape == (3, 8, 64, 64)
    assert batch.valid_B.tolist() == [True, False, True]
    assert batch.inputs_BM.tolist() == [[3, 1, 0], [5, 0, 0], [0, 7, 2]]
    assert batch.input_valid_BM.tolist() == [[True, True, False], [True, False, False], [True, True, True]]
    assert batch.seeds_B.tolist() == [-5, 9, 2**63 - 1]
    assert batch.keys == ("a", "b", "c")
    shown = batch.images_BKSSC.flatten(2).float().std(2) > 0
    assert shown.tolist() == [
        [number in parts for number in range(8)] for parts in ({1, 3, 6, 7}, set(), {0, 2, 4, 7})
    ]
    assert not batch.images_BKSSC[1].any()
    assert not batch.masks_BKSS[1].any()
    masked = batch.masks_BKSS.flatten(2).any(2)
    assert masked.tolist() == [
        [number in targets for number in range(8)] for targets in ({6, 7}, set(), {2, 4})
    ]
    assert batch.targets_BN.tolist() == [[6, 7], [0, 2], [2, 4]]
    assert (batch.inputs_BM.dtype, batch.targets_BN.dtype, batch.seeds_B.dtype) == (torch.int64,) * 3


@pytest.mark.parametrize(
    ("needs", "decoded"),
    [
        (Needs(64, targets=True, masks=True), {1, 3, 6, 7}),
        (Needs(64, targets=True), {1, 3, 6, 7}),
        (Needs(64), {1, 3}),
    ],
    ids=["masks", "targets", "inputs"],
)
def test_only_what_is_needed_is_decoded(needs: Needs, decoded: set[int]) -> None:
    """What is not needed is not looked at: here it would not decode."""
    spoilt = replace(
        SAMPLE,
        images=tuple(image if number in decoded else b"" for number, image in enumerate(SAMPLE.images)),
        masks=tuple(
            mask if needs.masks and number in {6, 7} else b"" for number, mask in enumerate(SAMPLE.masks)
        ),
    )
    batch = assemble([spoilt], [Draw((3, 1), (6, 7), 5)], ["a"], needs)
    assert batch.valid_B.tolist() == [True]
    shown = batch.images_BKSSC[0].flatten(1).any(1)
    assert {number for number in range(8) if shown[number]} == decoded
    assert (batch.masks_BKSS is not None) == needs.masks
    assert batch.targets_BN.tolist() == [[6, 7]]


@given(first=NEEDS, second=NEEDS)
def test_what_two_parts_need_together_covers_both(first: Needs, second: Needs) -> None:
    both = first | second
    for one in (first, second):
        assert both | one == both
        assert both.side >= one.side
        assert both.targets >= one.targets
        assert both.masks >= one.masks
    assert both == second | first
    assert first | first == first


def test_a_mirrored_sample_has_all_images_and_masks_mirrored() -> None:
    drawn = Draw((3, 1), (6, 7), 5)
    needs = Needs(64, targets=True, masks=True)
    plain, mirrored = (assemble([SAMPLE], [one], ["a"], needs) for one in (drawn, replace(drawn, flip=True)))
    assert torch.equal(mirrored.images_BKSSC, plain.images_BKSSC.flip(3))
    assert torch.equal(mirrored.masks_BKSS, plain.masks_BKSS.flip(3))
    assert not torch.equal(mirrored.images_BKSSC, plain.images_BKSSC)
    assert not torch.equal(mirrored.masks_BKSS, plain.masks_BKSS)
