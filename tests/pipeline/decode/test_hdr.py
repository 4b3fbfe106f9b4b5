"""High dynamic range is rejected; the transfer function of all others is known."""

from __future__ import annotations

from pathlib import Path

import pytest
from video_files import known, rejected, write_video

from shards.schema import Reason


def x265(transfer: str) -> dict[str, str]:
    params = f"log-level=none:colorprim=bt2020:colormatrix=bt2020nc:transfer={transfer}"
    return {"x265-params": params}


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
def test_hdr_is_rejected_by_its_transfer_function(tmp_path: Path, transfer: str) -> None:
    path = write_video(tmp_path / "a.mp4", 5, codec="libx265", pixels="yuv420p10le", options=x265(transfer))
    found = rejected(path)
    assert found.reason is Reason.HDR_VIDEO
    assert found.detail is not None
    assert found.detail.startswith(f"transfer function {transfer}")


def test_ten_bits_alone_are_no_hdr(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 5, codec="libx265", pixels="yuv420p10le", options=x265("bt709"))
    assert known(path).color_transfer == "bt709"


def test_a_video_may_say_nothing_of_its_transfer_function(tmp_path: Path) -> None:
    assert known(write_video(tmp_path / "a.mp4", 5)).color_transfer == "unspecified"
