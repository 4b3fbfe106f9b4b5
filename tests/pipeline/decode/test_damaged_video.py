"""Damaged video never becomes data: what comes out of a damaged file is what was in the original."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from video_files import (
    corrupt_and_sound,
    damage,
    decoded,
    hide_first_frames,
    known,
    number_of,
    write_video,
)

from pipeline.decode.frames import CorruptFrame, Frame, decode
from pipeline.decode.probe import Probe, probe

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
import damaged_video
from damaged_sources import Source, cut, make_sources
from video_mutations import MUTATIONS

H264 = {"g": "8", "crf": "10", "bf": "2"}


def damage_packet(path: Path, number: int, intact: float = 0.5) -> Path:
    """Overwrite the end of a packet's bytes, by its number in decode order; returns `path`."""
    import av

    with av.open(str(path)) as file:
        packet = [p for p in file.demux(video=0) if p.size][number]
        kept = int(intact * packet.size)
        start, size = packet.pos + kept, packet.size - kept
    data = bytearray(path.read_bytes())
    data[start : start + size] = np.random.default_rng(0).bytes(size)
    path.write_bytes(data)
    return path


def textured(path: Path, frames: int = 24, **options: Any) -> Path:
    """A video of noise that moves, so that every packet holds something."""
    return write_video(path, frames, (160, 128), texture=True, **options)


def test_damage_of_a_packet_costs_the_frames_up_to_the_next_key_frame(tmp_path: Path) -> None:
    path = textured(tmp_path / "a.mp4", options={"g": "8", "crf": "10", "bf": "0"})
    corrupt, sound = corrupt_and_sound(damage_packet(path, 10, intact=0.1), "pyav")
    assert corrupt == list(range(10, 16))
    assert sound == [*range(10), *range(16, 24)]


def test_a_damaged_first_key_frame_costs_its_group_and_no_more(tmp_path: Path) -> None:
    path = textured(tmp_path / "a.mp4", options={"g": "8", "crf": "10", "bf": "0"})
    corrupt, sound = corrupt_and_sound(damage_packet(path, 0), "pyav")
    assert corrupt == list(range(8))
    assert sound == list(range(8, 24))


def test_frames_that_the_decoder_leaves_out_before_an_intact_key_frame_are_corrupt(tmp_path: Path) -> None:
    options = {"g": "8", "keyint_min": "8", "crf": "10", "preset": "ultrafast"}
    path = textured(tmp_path / "a.mp4", options=options)
    corrupt, sound = corrupt_and_sound(damage_packet(path, 0, intact=0.0), "pyav")
    assert corrupt == list(range(8))
    assert sound == list(range(8, 24))


@pytest.mark.parametrize("decoder", ["pyav", "decord", "auto"])
def test_every_decoder_gives_the_same_verdicts(tmp_path: Path, decoder: str) -> None:
    path = damage_packet(textured(tmp_path / "a.mp4", options=H264), 12)
    corrupt, sound = corrupt_and_sound(path, decoder)
    assert (corrupt, sound) == corrupt_and_sound(path, "pyav")
    assert corrupt
    assert sound


def test_sound_frames_of_a_damaged_file_are_those_of_the_original(tmp_path: Path) -> None:
    path = textured(tmp_path / "a.mp4", options=H264)
    original = {frame.index: frame.image for frame in decoded(path, "pyav")}
    damage_packet(path, 12)
    found = known(path)
    for item in decode(path, found, np.arange(found.frames), "pyav"):
        if isinstance(item, Frame):
            np.testing.assert_array_equal(item.image, original[item.index])


def test_a_cut_between_key_frames_loses_its_head_only(tmp_path: Path) -> None:
    path = textured(tmp_path / "a.mkv", 40, options={"g": "10", "crf": "10", "bf": "0"})
    head = cut(path, tmp_path / "cut.mkv", 10.0, start_s=0.55)
    corrupt, sound = corrupt_and_sound(head, "pyav")
    frames = known(head).frames
    assert 24 <= frames <= 28
    assert corrupt == list(range(frames - 20))
    assert sound == list(range(frames - 20, frames))


def test_an_edit_list_that_hides_the_key_frame_costs_nothing(tmp_path: Path) -> None:
    path = hide_first_frames(write_video(tmp_path / "a.mp4", 24, options={"g": "24"}), 0.32)
    assert [number_of(frame.image) for frame in decoded(path, "pyav")] == list(range(8, 24))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("open.mp4", {"options": {"g": "8", "bf": "3", "x264-params": "open-gop=1"}}),
        ("hevc.mp4", {"codec": "libx265", "options": {"x265-params": "keyint=8:open-gop=1:log-level=none"}}),
        ("refresh.mp4", {"options": {"x264-params": "intra-refresh=1:keyint=12"}}),
        ("cavlc.flv", {"options": {"x264-params": "cabac=0"}}),
        (
            "altref.webm",
            {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "12", "b": "300k"}},
        ),
        ("vp9.webm", {"codec": "libvpx-vp9", "options": {"lag-in-frames": "12", "b": "300k", "g": "12"}}),
        ("av1.mp4", {"codec": "libsvtav1", "options": {"preset": "12", "g": "12", "svtav1-params": "lp=1"}}),
        ("packed.avi", {"codec": "mpeg4", "options": {"bf": "2", "g": "8"}}),
        ("a.mpg", {"codec": "mpeg2video", "options": {"bf": "2", "g": "8"}}),
        ("motion.mov", {"codec": "mjpeg", "pixels": "yuvj420p"}),
    ],
)
def test_an_intact_video_loses_nothing(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    corrupt, sound = corrupt_and_sound(textured(tmp_path / name, **options), "pyav")
    assert corrupt == []
    assert len(sound) >= 24


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"g": "8"}),
        ("a.avi", "mpeg4", {"g": "8"}),
        ("a.webm", "libvpx-vp9", {"g": "8", "b": "400k", "cpu-used": "8"}),
        ("av1.mp4", "libsvtav1", {"g": "8", "preset": "12", "svtav1-params": "lp=1"}),
    ],
)
def test_no_frame_of_a_mutated_file_is_unsound_where_the_decoder_reports_damage(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    path = textured(tmp_path / name, codec=codec, options=options)
    frames, _, lost, _ = damaged_video.decoded(path, "auto")
    assert not lost
    originals = damaged_video.views(frames)
    source = Source(path, codec, stream_start=48, keys=(0, 8, 16))
    outcomes = [
        damaged_video.examine(source, originals, mutation, seed, decoder="auto", folder=tmp_path)
        for seed in range(12)
        for mutation in MUTATIONS
    ]
    assert sum(len(outcome.psnr) for outcome in outcomes) > 100
    assert [outcome for outcome in outcomes if outcome.known] == []
    # So few frames cannot hold the benchmark's limit of 1 percent: one damaged key frame makes eight unsound.
    assert sum(outcome.silent for outcome in outcomes) <= 0.1 * sum(len(outcome.psnr) for outcome in outcomes)


@settings(max_examples=30, deadline=None)
@given(start=st.floats(0, 0.99), share=st.floats(0.001, 0.5))
def test_any_damage_ends_in_frames_corrupt_frames_or_a_rejection(
    tmp_path_factory: pytest.TempPathFactory, start: float, share: float
) -> None:
    path = damage(write_video(tmp_path_factory.mktemp("v") / "a.mp4", 12, options={"g": "4"}), start, share)
    try:
        found = probe(path)
    except MemoryError:  # a damaged header asks for more than there is; the sandbox makes it out_of_memory
        return
    if isinstance(found, Probe):
        indices = [item.index for item in decode(path, found, np.arange(found.frames), "auto")]
        assert indices == sorted(set(indices))


@pytest.mark.clips
@pytest.mark.slow
def test_intact_clips_lose_nothing(clips: Path) -> None:
    for path in sorted(clips.iterdir()):
        found = probe(path) if path.suffix != ".tsv" else None
        if isinstance(found, Probe):
            planned = np.arange(found.frames)
            lost = [
                item.index for item in decode(path, found, planned, "auto") if isinstance(item, CorruptFrame)
            ]
            assert lost == [], path.name


@pytest.mark.clips
@pytest.mark.slow
def test_damaged_real_clips_give_sound_frames(clips: Path, tmp_path: Path) -> None:
    cv2.setNumThreads(1)
    # Damage in two codecs that no decoder reports is measured by the benchmark and not tested here.
    sources = [source for source in make_sources(clips, tmp_path) if source.codec not in {"vp8", "hevc"}]
    frames = known_bad = silent = 0
    for number, source in enumerate(sources):
        originals = damaged_video.views(damaged_video.decoded(source.path, "auto")[0])
        for kind, mutation in enumerate(MUTATIONS):
            outcome = damaged_video.examine(
                source, originals, mutation, number + kind, decoder="auto", folder=tmp_path
            )
            frames += len(outcome.psnr)
            known_bad += outcome.known
            silent += outcome.silent
    assert frames > 1000
    assert known_bad == 0
    assert silent <= 0.01 * frames
