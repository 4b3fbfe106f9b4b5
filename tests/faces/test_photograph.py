"""A photograph is read as a viewer shows it, in every supported storage form; other files are rejected."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageCms

from faces.photograph import MAX_PIXELS, PhotographError, read_photograph
from faces.types import Image

TOLERANCE = 3
"""Grey levels that a round trip through JPEG, CMYK or a colour profile may cost on average."""


@pytest.fixture(scope="module")
def picture() -> Image:
    """A face and its surroundings, wider than high, so that a quarter turn shows."""
    from skimage import data

    return np.ascontiguousarray(data.astronaut()[40:200, 130:330])


def saved(path: Path, pixels: NDArray[Any] | Pillow.Image, **options: Any) -> Path:
    image = pixels if isinstance(pixels, Pillow.Image) else Pillow.fromarray(pixels)
    image.save(path, **options)
    return path


def difference(one: Image, other: Image) -> float:
    assert one.shape == other.shape
    return float(np.abs(one.astype(int) - other).mean())


def oriented(number: int) -> Pillow.Exif:
    exif = Pillow.Exif()
    exif[0x0112] = number
    return exif


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.bmp"])
def test_pixels_stored_without_loss_come_back(tmp_path: Path, picture: Image, name: str) -> None:
    read = read_photograph(saved(tmp_path / name, picture))
    np.testing.assert_array_equal(read, picture)
    assert read.flags.c_contiguous
    assert read.dtype == np.uint8


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.avif"])
def test_pixels_stored_with_loss_come_back_nearly(tmp_path: Path, picture: Image, name: str) -> None:
    assert difference(read_photograph(saved(tmp_path / name, picture, quality=95)), picture) < TOLERANCE


@pytest.mark.parametrize("number", range(1, 9))
def test_a_picture_stored_turned_or_mirrored_is_put_upright(
    tmp_path: Path, picture: Image, number: int
) -> None:
    across = picture.transpose(1, 0, 2)
    # What EXIF says of each number: which side of the scene the first row and the first column show.
    stored = {
        1: picture,  # top, left
        2: picture[:, ::-1],  # top, right
        3: picture[::-1, ::-1],  # bottom, right
        4: picture[::-1],  # bottom, left
        5: across,  # left, top
        6: across[::-1],  # right, top
        7: across[::-1, ::-1],  # right, bottom
        8: across[:, ::-1],  # left, bottom
    }[number]
    file = saved(tmp_path / "a.png", np.ascontiguousarray(stored), exif=oriented(number))
    np.testing.assert_array_equal(read_photograph(file), picture)
    jpeg = saved(tmp_path / "a.jpg", np.ascontiguousarray(stored), exif=oriented(number), quality=95)
    assert difference(read_photograph(jpeg), picture) < TOLERANCE
    assert difference(read_photograph(jpeg), cv2.imread(str(jpeg))[..., ::-1]) < TOLERANCE


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", oriented(9).tobytes()]
)
def test_orientation_that_cannot_be_read_turns_nothing(tmp_path: Path, picture: Image, exif: bytes) -> None:
    np.testing.assert_array_equal(read_photograph(saved(tmp_path / "a.png", picture, exif=exif)), picture)


def test_a_printers_cmyk_becomes_rgb(tmp_path: Path, picture: Image) -> None:
    file = saved(tmp_path / "a.jpg", Pillow.fromarray(picture).convert("CMYK"), quality=95)
    assert difference(read_photograph(file), picture) < TOLERANCE


@pytest.mark.parametrize("mode", ["L", "1"])
def test_a_grey_picture_gets_three_equal_channels(tmp_path: Path, picture: Image, mode: str) -> None:
    grey = Pillow.fromarray(picture).convert(mode)
    read = read_photograph(saved(tmp_path / "a.png", grey))
    np.testing.assert_array_equal(read, np.asarray(grey.convert("L"))[..., None].repeat(3, axis=2))


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_sixteen_bits_become_eight_in_grey_and_in_colour(tmp_path: Path, picture: Image, name: str) -> None:
    deep = picture.astype(np.uint16) * 256 + 200
    cv2.imwrite(str(tmp_path / name), deep[..., ::-1])
    np.testing.assert_array_equal(read_photograph(tmp_path / name), picture)
    cv2.imwrite(str(tmp_path / name), deep[..., 0])
    np.testing.assert_array_equal(read_photograph(tmp_path / name), picture[..., :1].repeat(3, axis=2))


def test_what_is_transparent_is_white_and_what_is_opaque_is_unchanged(tmp_path: Path, picture: Image) -> None:
    alpha = np.full((*picture.shape[:2], 1), 255, np.uint8)
    alpha[:50], alpha[50:60] = 0, 128
    read = read_photograph(saved(tmp_path / "a.png", np.concatenate([picture, alpha], axis=2)))
    assert (read[:50] == 255).all()
    assert difference(read[50:60], ((picture[50:60].astype(int) + 255) / 2).astype(np.uint8)) < 1
    np.testing.assert_array_equal(read[60:], picture[60:])


def test_a_palette_with_a_transparent_colour_and_grey_with_alpha_are_laid_over_white(
    tmp_path: Path, picture: Image
) -> None:
    palette = Pillow.fromarray(picture).quantize(32)
    clear = np.asarray(palette) == 3
    read = read_photograph(saved(tmp_path / "p.png", palette, transparency=3))
    assert clear.any()
    assert (read[clear] == 255).all()
    np.testing.assert_array_equal(read[~clear], np.asarray(palette.convert("RGB"))[~clear])
    grey = np.dstack([picture[..., 0], np.zeros_like(picture[..., 0])])
    assert (read_photograph(saved(tmp_path / "la.png", Pillow.fromarray(grey, "LA"))) == 255).all()


def with_red_and_blue_exchanged(profile: bytes) -> bytes:
    """An ICC profile whose first channel shines blue and whose third shines red."""
    changed = bytearray(profile)
    places = {}
    for number in range(struct.unpack_from(">I", profile, 128)[0]):
        entry = 132 + 12 * number
        places[profile[entry : entry + 4]] = entry
    red, blue = places[b"rXYZ"] + 4, places[b"bXYZ"] + 4
    changed[red : red + 8], changed[blue : blue + 8] = profile[blue : blue + 8], profile[red : red + 8]
    return bytes(changed)


def test_colours_are_those_that_the_embedded_profile_names(tmp_path: Path, picture: Image) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    same = read_photograph(saved(tmp_path / "same.png", picture, icc_profile=srgb))
    assert difference(same, picture) < 1
    exchanged = saved(tmp_path / "other.png", picture, icc_profile=with_red_and_blue_exchanged(srgb))
    assert difference(read_photograph(exchanged), picture[..., ::-1]) < TOLERANCE


def test_a_damaged_or_foreign_profile_changes_nothing(tmp_path: Path, picture: Image) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    damaged = saved(tmp_path / "a.png", picture, icc_profile=b"no profile")
    np.testing.assert_array_equal(read_photograph(damaged), picture)
    grey = saved(tmp_path / "b.png", np.ascontiguousarray(picture[..., 0]), icc_profile=srgb)
    np.testing.assert_array_equal(read_photograph(grey)[..., 1], picture[..., 0])


def test_of_several_pictures_in_a_file_the_first_is_taken(tmp_path: Path, picture: Image) -> None:
    other = Pillow.fromarray(255 - picture)
    for name in ("a.tiff", "a.mpo"):
        file = saved(tmp_path / name, picture, save_all=True, append_images=[other], quality=95)
        assert difference(read_photograph(file), picture) < TOLERANCE


def test_a_missing_file_a_directory_and_an_empty_file_have_their_own_messages(tmp_path: Path) -> None:
    with pytest.raises(PhotographError, match=r"nowhere\.jpg does not exist"):
        read_photograph(tmp_path / "nowhere.jpg")
    with pytest.raises(PhotographError, match=r"is a directory\. Name the photographs in it"):
        read_photograph(tmp_path)
    with pytest.raises(PhotographError, match=r"xx\.jpg cannot be read: File name too long"):
        read_photograph(tmp_path / f"{'x' * 300}.jpg")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(PhotographError, match=r"empty\.jpg is empty"):
        read_photograph(tmp_path / "empty.jpg")


def test_other_kinds_of_files_are_rejected_by_name(tmp_path: Path, picture: Image) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "page.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    for name in ("text.jpg", "page.jpg", saved(tmp_path / "a.gif", picture).name):
        with pytest.raises(PhotographError, match=rf"{name} is no JPEG, PNG, WebP, AVIF, TIFF or BMP"):
            read_photograph(tmp_path / name)
    with pytest.raises(PhotographError, match=r"phone\.heic is a HEIC photograph.*export it as JPEG"):
        read_photograph(tmp_path / "phone.heic")


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.avif", "a.tiff", "a.bmp"])
def test_a_file_that_is_cut_short_is_called_damaged(tmp_path: Path, picture: Image, name: str) -> None:
    file = saved(tmp_path / name, picture)
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 3 // 4])
    with pytest.raises(PhotographError, match=rf"{name} .*(damaged|cannot be decoded)"):
        read_photograph(file)


def test_measurements_of_32_bits_are_no_photograph(tmp_path: Path, picture: Image) -> None:
    file = saved(tmp_path / "depth.tiff", picture[..., 0].astype(np.float32))
    with pytest.raises(PhotographError, match=r"depth\.tiff cannot be decoded \(it has 32 bits a channel\)"):
        read_photograph(file)


def png_that_claims(width: int, height: int) -> bytes:
    """The header of a black-and-white PNG, and no pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")


@pytest.mark.parametrize(
    ("width", "height", "message"),
    [
        (12_000, 10_001, "has 12000 x 10001 pixels"),
        (30_001, 2, "has 30001 x 2 pixels"),
        (60_000, 60_000, "has more than 178 megapixels"),
    ],
)
def test_a_bomb_is_rejected_by_its_header_before_a_pixel_is_decoded(
    tmp_path: Path, width: int, height: int, message: str
) -> None:
    (tmp_path / "bomb.png").write_bytes(png_that_claims(width, height))
    with pytest.raises(PhotographError, match=rf"bomb\.png {message}; a photograph may have 120 megapixels"):
        read_photograph(tmp_path / "bomb.png")


def test_the_largest_photograph_is_not_rejected_for_its_size(tmp_path: Path) -> None:
    assert MAX_PIXELS == 12_000 * 10_000
    (tmp_path / "large.png").write_bytes(png_that_claims(12_000, 10_000))
    with pytest.raises(PhotographError, match=r"large\.png cannot be decoded"):
        read_photograph(tmp_path / "large.png")


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.avif", "a.tiff", "a.bmp"])
def test_damage_anywhere_gives_a_picture_or_an_error_in_words(
    tmp_path: Path, picture: Image, name: str
) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    file = saved(tmp_path / name, picture[::4, ::4].copy(), exif=oriented(6), icc_profile=srgb)
    sound = file.read_bytes()
    draw = random.Random(name)  # noqa: S311 - not for secrets
    rejected = 0
    for _ in range(120):
        damaged = bytearray(sound)
        for _ in range(draw.choice([1, 4, 16])):
            damaged[draw.randrange(min(len(damaged), 900))] = draw.randrange(256)
        file.write_bytes(damaged)
        try:
            read = read_photograph(file)
        except PhotographError:
            rejected += 1
            continue
        assert read.ndim == 3
        assert read.shape[2] == 3
    assert rejected
