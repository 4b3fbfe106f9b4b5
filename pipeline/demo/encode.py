"""Writing frames as a video file, the same bytes every time."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np

from faces.types import Image

_OPTIONS = {
    "libx264": {"preset": "veryfast", "crf": "18", "x264-params": "threads=1"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "24", "b": "0", "threads": "1"},
}
WIDTH_STEP = 64
"""Stored widths are multiples of this: with others, x264's output depends on memory beyond the rows."""
_MILLISECOND = Fraction(1, 1000)


def write_video(
    path: Path, frames: Iterable[tuple[Image, float]], codec: str, fps: float, *, variable_rate: bool = False
) -> int:
    """Encode frames into a file whose container follows from its suffix.

    Args:
        path: file to write.
        frames: images of one size, its width a multiple of `WIDTH_STEP` and its height even, with their
            presentation times in seconds, which rise.
        codec: "libx264" or "libvpx-vp9".
        fps: nominal frame rate.
        variable_rate: keep every frame's own time, to the millisecond; otherwise frames are 1/fps apart.

    Returns:
        How many frames were written.

    Raises:
        ValueError: a width for which the bytes could differ from run to run.
    """
    import av

    rate = Fraction(fps).limit_denominator(1001)
    # Without bitexact the muxers write the date, their version and random numbers.
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(codec, rate=rate, options=_OPTIONS[codec])
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        time_base = _MILLISECOND if variable_rate else 1 / rate
        stream.codec_context.time_base = time_base
        count = 0
        for image, time in frames:
            if count == 0:
                stream.height, stream.width = image.shape[:2]
                if stream.width % WIDTH_STEP:
                    raise ValueError(f"{path.name}: width {stream.width} is no multiple of {WIDTH_STEP}")
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.time_base = time_base
            frame.pts = round(time / time_base) if variable_rate else count
            container.mux(stream.encode(frame))
            count += 1
        container.mux(stream.encode())
    return count


def mark_quarter_turn(path: Path) -> None:
    """Set the display matrix of an mp4 file to a quarter turn clockwise, as a phone held upright does.

    Raises:
        ValueError: the file has not exactly one track header.
    """
    data = bytearray(path.read_bytes())
    if data.count(b"tkhd") != 1:
        raise ValueError(f"{path} has not exactly one track header")
    # Version 0 of the box: 4 bytes of version and flags, 36 of times, number and layer, then the matrix.
    matrix = data.index(b"tkhd") + 4 + 4 + 36
    height = int.from_bytes(data[matrix + 40 : matrix + 44], "big")
    one = 1 << 16
    turned = np.array([0, one, 0, -one, 0, 0, height, 0, 1 << 30], ">i4")
    data[matrix : matrix + 36] = turned.tobytes()
    path.write_bytes(data)
