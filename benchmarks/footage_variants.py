"""Other versions of the same footage, as they occur on the web: encoded, resized, cropped, trimmed again.

Every version is a pure function of a clip's frames, its kind and a seed, so a benchmark can be repeated.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from faces.types import Image
from pipeline.decode.frames import Frame, decode
from pipeline.decode.probe import Probe, probe

TICK = Fraction(1, 90_000)
"""Time base of the files: as fine as MPEG's, so that every frame keeps its time."""
LEAST_S = 3.0
"""Least length of a trimmed version."""
HEAD = 0.35
"""A crop keeps the face's box with this share of its sides around it."""

X264_FAST = {"preset": "veryfast"}


@dataclass(frozen=True)
class Version:
    """How a version of a clip is made.

    Attributes:
        kind: name of the group in the table.
        codec: name of FFmpeg's encoder.
        options: of the encoder.
        suffix: of the file.
        scale: of both sides.
        crop: share of the frame's area that is cut away.
        trim: "", "start", "end", "both" or "short".
        fps: frames a second; None keeps all frames.
        bars: black bars, as a share of the height (positive) or of the width (negative).
        gain: contrast.
        lift: brightness, in grey levels.
    """

    kind: str
    codec: str = "libx264"
    options: tuple[tuple[str, str], ...] = (("crf", "20"),)
    suffix: str = ".mp4"
    scale: float = 1.0
    crop: float = 0.0
    trim: str = ""
    fps: float | None = None
    bars: float = 0.0
    gain: float = 1.0
    lift: float = 0.0


def _x264(kind: str, crf: int, **how: object) -> Version:
    return replace(Version(kind, options=(("crf", str(crf)),)), **how)  # type: ignore[arg-type]


VERSIONS: dict[str, Version] = {
    "x264_crf23": _x264("re-encoded", 23),
    "x264_crf33": _x264("re-encoded", 33),
    "x264_crf42": _x264("re-encoded", 42),
    "x264_gop12": Version("re-encoded", options=(("crf", "28"), ("g", "12"))),
    "x264_15fps": _x264("re-encoded", 28, fps=15.0),
    "x264_24fps": _x264("re-encoded", 26, fps=24.0),
    "x265_crf30": Version("re-encoded", "libx265", (("crf", "30"), ("x265-params", "log-level=none"))),
    "vp9_crf45": Version(
        "re-encoded",
        "libvpx-vp9",
        (("crf", "45"), ("b", "0"), ("deadline", "realtime"), ("cpu-used", "8")),
        ".webm",
    ),
    "mpeg4_q8": Version("re-encoded", "mpeg4", (("qmin", "8"), ("qmax", "8"))),
    "scale_0.35": _x264("resized", 23, scale=0.35),
    "scale_0.5": _x264("resized", 23, scale=0.5),
    "scale_0.75": _x264("resized", 28, scale=0.75),
    "scale_1.5": _x264("resized", 23, scale=1.5),
    "crop_10": _x264("cropped", 23, crop=0.10),
    "crop_25": _x264("cropped", 23, crop=0.25),
    "crop_40": _x264("cropped", 23, crop=0.40),
    "trim_start": _x264("trimmed", 23, trim="start"),
    "trim_end": _x264("trimmed", 23, trim="end"),
    "trim_both": _x264("trimmed", 28, trim="both"),
    "trim_short": _x264("trimmed", 23, trim="short"),
    "letterbox": _x264("framed", 28, bars=0.25),
    "pillarbox": _x264("framed", 28, bars=-0.3, scale=0.7),
    "light": _x264("light", 26, gain=1.15, lift=12.0),
    "dark": _x264("light", 26, gain=0.85, lift=-8.0),
    "crop_trim": _x264("combined", 30, crop=0.25, trim="both"),
    "small_trim": _x264("combined", 33, scale=0.5, trim="start", fps=20.0),
    "bad_crop_trim": _x264("combined", 38, scale=0.6, crop=0.15, trim="short"),
}


@dataclass(frozen=True)
class Footage:
    """The frames of a clip with their times, and the box that holds its faces, in pixels."""

    frames: list[Frame]
    faces: tuple[float, float, float, float] | None = None

    @property
    def duration_s(self) -> float:
        """From the first frame to the last."""
        return self.frames[-1].time_s - self.frames[0].time_s


def footage_of(path: Path, faces: tuple[float, float, float, float] | None = None) -> Footage:
    """All intact frames of a clip.

    Raises:
        ValueError: it cannot be opened.
    """
    found = probe(path)
    if not isinstance(found, Probe):
        raise ValueError(f"{path.name} is not an intact clip: {found.reason}")
    decoded = decode(path, found, np.arange(found.frames), "auto")
    return Footage([item for item in decoded if isinstance(item, Frame)], faces)


def is_possible(version: Version, footage: Footage) -> bool:
    """Whether a clip is long enough for the trim, and its faces leave room for the crop."""
    if version.trim and footage.duration_s < (LEAST_S + 1.0):
        return False
    return not version.crop or _window(version, footage, random.Random(0)) is not None  # noqa: S311


def write_version(path: Path, version: Version, footage: Footage, seed: int) -> float:
    """Write a version of a clip.

    Args:
        path: file to write.
        version: how.
        footage: the clip.
        seed: of the place of the crop and of the trim.

    Returns:
        Seconds that were cut from the clip's start.
    """
    import av

    draw = random.Random(seed)  # noqa: S311 - repeatable
    window = _window(version, footage, draw) if version.crop else None
    start_s, end_s = _span(version.trim, footage.duration_s, draw)
    first_s = footage.frames[0].time_s
    kept = [frame for frame in footage.frames if start_s <= frame.time_s - first_s <= end_s]
    zero_s = kept[0].time_s
    with av.open(str(path), "w") as container:
        stream = container.add_stream(version.codec, rate=Fraction(30), options=dict(version.options))
        if version.codec == "libx264":
            stream.options = {**X264_FAST, **dict(version.options)}
        stream.pix_fmt = "yuv420p"
        # MPEG-4 stores its clock in 16 bits.
        tick = Fraction(1, 1000) if version.codec == "mpeg4" else TICK
        stream.codec_context.time_base = tick
        for count, (image, time_s) in enumerate(_at_rate(kept, version.fps)):
            changed = _changed(image, version, window)
            if count == 0:
                stream.height, stream.width = changed.shape[:2]
            frame = av.VideoFrame.from_ndarray(changed, format="rgb24")
            frame.time_base, frame.pts = tick, round(Fraction(time_s - zero_s) / tick)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return zero_s - first_s


def _at_rate(frames: list[Frame], fps: float | None) -> Iterator[tuple[Image, float]]:
    if fps is None:
        yield from ((frame.image, frame.time_s) for frame in frames)
        return
    times = np.array([frame.time_s for frame in frames])
    for step in range(int((times[-1] - times[0]) * fps) + 1):
        time_s = float(times[0]) + step / fps
        yield frames[int(np.searchsorted(times, time_s + 1e-6)) - 1].image, time_s


def _span(trim: str, duration_s: float, draw: random.Random) -> tuple[float, float]:
    """Start and end from the clip's start; a trim leaves half of the clip and `LEAST_S`, or just that."""
    if not trim:
        return 0.0, math.inf
    left = max(LEAST_S, duration_s * draw.uniform(0.5, 0.9))
    if trim == "short":
        left = LEAST_S
    cut = duration_s - left
    start = {"start": cut, "end": 0.0}.get(trim, draw.uniform(0.0, cut))
    return start, start + left


def _window(version: Version, footage: Footage, draw: random.Random) -> tuple[int, int, int, int] | None:
    """The part of the frame that a crop keeps: x0, y0, width, height, with every face in it; None: no room."""
    if footage.faces is None:
        return None
    height, width = footage.frames[0].image.shape[:2]
    side = math.sqrt(1.0 - version.crop)
    x0, y0, x1, y1 = footage.faces
    around = HEAD * (x1 - x0), HEAD * (y1 - y0)
    x0, x1 = max(0.0, x0 - around[0]), min(float(width), x1 + around[0])
    y0, y1 = max(0.0, y0 - around[1]), min(float(height), y1 + around[1])
    # A crop may be another shape than the frame, so that a tall face in a wide frame leaves room.
    wide = min(max(side, (x1 - x0) / width), 1.0)
    high = min(max(side, (y1 - y0) / height), 1.0)
    if wide > side:
        high = (1.0 - version.crop) / wide
    elif high > side:
        wide = (1.0 - version.crop) / high
    kept_w, kept_h = wide * width, high * height
    if kept_w < x1 - x0 - 1 or kept_h < y1 - y0 - 1:
        return None
    left = draw.uniform(max(0.0, x1 - kept_w), min(x0, width - kept_w))
    top = draw.uniform(max(0.0, y1 - kept_h), min(y0, height - kept_h))
    return int(left), int(top), int(kept_w), int(kept_h)


def _changed(image: Image, version: Version, window: tuple[int, int, int, int] | None) -> Image:
    if window is not None:
        left, top, width, height = window
        image = image[top : top + height, left : left + width]
    height, width = image.shape[:2]
    size = (_even(width * version.scale), _even(height * version.scale))
    if size != (width, height):
        method = cv2.INTER_AREA if version.scale < 1 else cv2.INTER_CUBIC
        image = np.asarray(cv2.resize(np.ascontiguousarray(image), size, interpolation=method), np.uint8)
    if version.gain != 1.0 or version.lift:
        image = np.clip(image.astype(np.float32) * version.gain + version.lift, 0, 255).astype(np.uint8)
    if version.bars:
        rows = _even(size[1] * version.bars / 2) if version.bars > 0 else 0
        columns = _even(size[0] * -version.bars / 2) if version.bars < 0 else 0
        image = np.pad(image, ((rows, rows), (columns, columns), (0, 0)))
    return np.ascontiguousarray(image)


def _even(length: float) -> int:
    return max(2, round(length / 2) * 2)
