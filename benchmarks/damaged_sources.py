"""Short clips to damage: stream copies of real ones, and encodes of a real face for codecs that no clip has."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

CUTS = {
    # One or more clips a codec and container; seconds to keep.
    "lp_d18.mp4": 3.0,
    "vr_3.mp4": 3.0,
    "if_810.mp4": 4.0,
    "fr_hamilton.mp4": 4.0,
    "lia_d3.mov": 4.0,
    "intel_book.mkv": 2.5,
    "iplap_129.mp4": 4.0,
    "em_b.mp4": 2.5,
    "mma_testavi.avi": 4.0,
    "grid_brbk7n.mpg": 3.0,
    "mdn_rabbit.webm": 3.0,
    "ls_3.mp4": 0.7,
}
FACE = "vr_3.mp4"
ENCODES: dict[str, tuple[str, dict[str, str]]] = {
    # With several key frames each, as long videos have, and open groups of pictures where a codec has them. x264
    # does not look ahead, because that reads memory that nothing has written: the bytes would differ each time.
    "made_h264.ts": (
        "libx264",
        {"rc-lookahead": "0", "g": "15", "bf": "2", "x264-params": "open-gop=1", "crf": "20"},
    ),
    "made_h264.flv": (
        "libx264",
        {"rc-lookahead": "0", "g": "20", "bf": "0", "x264-params": "cabac=0", "crf": "20"},
    ),
    "made_hevc.mp4": ("libx265", {"x265-params": "keyint=15:open-gop=1:log-level=none", "crf": "22"}),
    "made_hevc.mkv": ("libx265", {"x265-params": "keyint=20:open-gop=0:log-level=none", "crf": "22"}),
    "made_vp8.webm": ("libvpx", {"g": "20", "b": "600k", "auto-alt-ref": "1", "lag-in-frames": "10"}),
    "made_vp9.webm": ("libvpx-vp9", {"g": "20", "b": "500k", "cpu-used": "5"}),
    "made_vp9.mp4": ("libvpx-vp9", {"g": "20", "b": "500k", "cpu-used": "5"}),
    "made_av1.mp4": ("libsvtav1", {"g": "20", "preset": "10", "crf": "30", "svtav1-params": "lp=1"}),
    "made_av1.webm": ("libsvtav1", {"g": "20", "preset": "10", "crf": "30", "svtav1-params": "lp=1"}),
    "made_mpeg2.mpg": ("mpeg2video", {"g": "12", "bf": "2", "b": "1500k"}),
    "made_mpeg2.ts": ("mpeg2video", {"g": "12", "bf": "2", "b": "1500k"}),
    "made_mpeg4.mp4": ("mpeg4", {"g": "12", "bf": "2", "b": "1000k"}),
}


@dataclass(frozen=True)
class Source:
    """An intact clip."""

    path: Path
    codec: str
    stream_start: int
    """Offset of the first coded frame in the file."""
    keys: tuple[int, ...]
    """Indices of the key frames, in display order."""


def make_sources(clips: Path, folder: Path) -> list[Source]:
    """Write all clips to `folder`.

    Args:
        clips: directory of the real clips; those that it lacks are left out.
        folder: for the cuts and encodes.
    """
    made = [
        cut(clips / name, folder / name, seconds) for name, seconds in CUTS.items() if (clips / name).exists()
    ]
    face = clips / FACE
    made += [encode(face, folder / name, codec, options) for name, (codec, options) in ENCODES.items()]
    return [_source(path) for path in made]


def cut(path: Path, target: Path, seconds: float, start_s: float | None = None) -> Path:
    """Copy a part of the video stream without decoding it; returns `target`.

    Args:
        path: of a video.
        target: file to write.
        seconds: length of the part.
        start_s: its start, which need not be a key frame; None for the first packet.
    """
    with av.open(str(path)) as source, av.open(str(target), "w") as file:
        stream = source.streams.video[0]
        out: Any = file.add_stream_from_template(stream)
        first: int | None = None
        for packet in source.demux(stream):
            stamp = packet.pts if packet.dts is None else packet.dts
            if not packet.size or stamp is None:
                continue
            if start_s is not None and float(stamp * packet.time_base) < start_s:
                continue
            first = stamp if first is None else first
            if float((stamp - first) * packet.time_base) > seconds:
                break
            packet.dts = None if packet.dts is None else packet.dts - first
            packet.pts = None if packet.pts is None else packet.pts - first
            packet.stream = out
            file.mux(packet)
    return target


def encode(
    path: Path, target: Path, codec: str, options: dict[str, str], *, frames: int = 48, side: int = 256
) -> Path:
    """Encode the first frames of a video anew; returns `target`."""
    with av.open(str(path)) as source, av.open(str(target), "w") as file:
        out: Any = file.add_stream(codec, rate=25, options=options)
        out.width, out.height, out.pix_fmt = side, side, "yuv420p"
        out.codec_context.thread_count = 1
        for number, frame in enumerate(source.decode(video=0)):
            if number == frames:
                break
            image = frame.to_ndarray(width=side, height=side, format="rgb24")
            file.mux(out.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(out.encode())
    # SVT-AV1 gives the thread of a root process real-time priority, which would starve the machine.
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return target


def _source(path: Path) -> Source:
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        packets = [packet for packet in file.demux(stream) if packet.size]
    starts = [packet.pos for packet in packets if packet.pos is not None]
    order = sorted(packets, key=lambda packet: (packet.dts if packet.pts is None else packet.pts) or 0)
    keys = tuple(index for index, packet in enumerate(order) if packet.is_keyframe)
    return Source(path, stream.codec_context.codec.canonical_name, max(min(starts, default=0), 0), keys)
