"""The digest of a directory of frames depends on the names and bytes of its image files, and on nothing else."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from shards.digests import directory_sha256


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Names whose order differs between bytes and letters."""
    for name in ("b.jpg", "A.png", "a b.webp", "é.JPEG", "Z10.tif", "Z9.bmp"):
        (tmp_path / name).write_bytes(name.encode() * 3)
    (tmp_path / os.fsdecode(b"\xff.jpg")).write_bytes(b"a name that is not UTF-8")
    return tmp_path


def test_it_is_what_coreutils_print(frames: Path) -> None:
    command = "LC_ALL=C sha256sum * | sha256sum"
    printed = subprocess.run(
        ["bash", "-c", command], cwd=frames, check=True, capture_output=True, text=True
    ).stdout
    assert directory_sha256(frames) == printed.split()[0]


def test_it_is_the_hash_of_one_line_for_each_file(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"first")
    (tmp_path / "2.jpg").write_bytes(b"second")
    lines = "".join(
        f"{hashlib.sha256(data).hexdigest()}  {name}\n"
        for name, data in (("1.jpg", b"first"), ("2.jpg", b"second"))
    )
    assert directory_sha256(tmp_path) == hashlib.sha256(lines.encode()).hexdigest()


def test_other_files_do_not_count_and_links_are_followed(frames: Path, tmp_path_factory) -> None:
    before = directory_sha256(frames)
    (frames / "notes.txt").write_text("x")
    (frames / ".hidden.jpg").write_bytes(b"x")
    (frames / "jpg").write_bytes(b"x")
    (frames / "inner.jpg").mkdir()
    os.mkfifo(frames / "pipe.jpg")
    (frames / "gone.jpg").symlink_to(frames / "nowhere")
    assert directory_sha256(frames) == before
    kept = tmp_path_factory.mktemp("kept") / "original"
    (frames / "b.jpg").rename(kept)
    (frames / "b.jpg").symlink_to(kept)
    assert directory_sha256(frames) == before


@pytest.mark.parametrize("change", ["bytes", "name", "fewer"])
def test_it_changes_with_bytes_names_and_number(frames: Path, change: str) -> None:
    before = directory_sha256(frames)
    if change == "bytes":
        (frames / "b.jpg").write_bytes(b"other")
    elif change == "name":
        (frames / "b.jpg").rename(frames / "c.jpg")
    else:
        (frames / "b.jpg").unlink()
    assert directory_sha256(frames) != before


def test_a_directory_without_images_and_a_line_feed_in_a_name_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no image files"):
        directory_sha256(tmp_path)
    (tmp_path / "a\nb.jpg").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"contains a line feed: b'a\\nb\.jpg'"):
        directory_sha256(tmp_path)
