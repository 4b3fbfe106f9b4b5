"""Decodes with PyAV (FFmpeg) and watches every sign of damage.

FFmpeg conceals errors: it gives a frame for a damaged packet, made up from its neighbours or from grey, and
goes on predicting from it. Its signs of damage are in four places, and all of them are read:

- exceptions: a packet that cannot be decoded. Decoding goes on with the next packet; its frame is missing.
- flags: `packet.is_corrupt` of the demuxer, `frame.is_corrupt` of the decoder.
- the codec's messages while a packet is decoded. Concealment, missing references and gaps in the frame numbers
  appear nowhere else. Decoding runs on one thread, so a message belongs to the packet just sent.
- the demuxer's messages while it looks for the next packet: something between the two is lost.

`bitstream.py` adds bytes that no encoder writes, `blocking.py` what only the picture shows.

`damage.py` carries each sign forward to the frames that depend on it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.decode.bitstream import intact_check
from pipeline.decode.blocking import CODECS, BlockingCheck
from pipeline.decode.container import best_stream, message_of, open_container
from pipeline.decode.damage import DamageTracker
from pipeline.decode.picture import Image
from pipeline.decode.places import Places
from pipeline.decode.probe import Probe, is_lost_share, lost_share
from pipeline.decode.strict import listening, reports_damage, strict_decoder, without_discard
from pipeline.decode.vpx import IS_KEY

if TYPE_CHECKING:
    import av

REORDER = 32
"""Most packets that a decoder holds back before it shows a frame; codecs allow 16 frames, or 32 fields."""
INDEXED = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})
"""Containers in which FFmpeg finds key frames by an index."""
LEAST_SEEK_S = 2.0
"""Less is decoded from the start of the file."""
NO_PIXELS: Image = np.zeros((0, 0, 3), np.uint8)


class DecodeError(RuntimeError):
    """No frame of the file can be decoded; the message states why."""


@dataclass(frozen=True)
class _Waiting:
    """A decoded frame, held until no earlier packet in decode order can still prove damaged."""

    packet: int
    index: int
    key: bool
    picture: Any
    """The decoded frame; None when it is not wanted."""


def pyav_frames(
    path: str | Path, probe: Probe, wanted: Sequence[int], pixels: bool = True
) -> Iterator[tuple[int, Image | None]]:
    """Decode the wanted frames of a file.

    Args:
        path: of the file.
        probe: facts about the file.
        wanted: ascending indices into `probe.times_s`.
        pixels: whether pictures are wanted, or only their soundness: then every sound picture is `NO_PIXELS`.

    Yields:
        Ascending: the index, and the picture as it is coded, (height, width, 3) uint8 RGB; None where it is
        corrupt. An index that shows no frame although nothing is damaged (VP8's alternative
        references) is left out.

    Raises:
        DecodeError: the file cannot be opened.
        MachineFault: the storage is lost.
        MemoryError: FFmpeg could not get the memory that the file asks for.
    """
    import av

    try:
        if _is_worth_seeking(probe, wanted):
            with open_container(path) as container:
                found = _Pass(container, probe, wanted, pixels).frames_from_key()
                first = next(found, None)
                if first is not None and first[1] is not None:
                    yield first
                    yield from found
                    return
        # A key frame that is none (intra refresh, a file without a list of them) cannot be decoded from.
        with open_container(path) as container:
            yield from _Pass(container, probe, wanted, pixels).frames()
    except MemoryError as error:
        raise MemoryError(message_of(error)) from error
    except (av.FFmpegError, ValueError) as error:
        if is_lost_share(error):
            raise lost_share(error) from error
        raise DecodeError(f"pyav: {message_of(error)}") from error


def _is_worth_seeking(probe: Probe, wanted: Sequence[int]) -> bool:
    return (
        len(wanted) > 0
        and probe.start_s is not None
        and probe.container in INDEXED
        and bool(probe.times_s[wanted[0]] >= LEAST_SEEK_S)
    )


class _Pass:
    """One pass over a file, in decode order."""

    def __init__(
        self, container: av.container.InputContainer, probe: Probe, wanted: Sequence[int], pixels: bool
    ) -> None:
        self._container = container
        self._stream: Any = best_stream(container)
        if self._stream is None or self._stream.codec_context is None:
            raise ValueError("no video stream that FFmpeg has a decoder for")
        self._codec = strict_decoder(self._stream.codec_context)
        self._is_key = IS_KEY.get(self._stream.codec_context.codec.canonical_name)
        self._keys: set[int] = set()
        self._failed: dict[int, int | None] = {}
        self._marked: set[int] = set()
        self._is_intact = intact_check(
            self._stream.codec_context.codec.canonical_name, self._stream.codec_context.extradata
        )
        blocks_tell = self._stream.codec_context.codec.canonical_name in CODECS
        self._blocking = BlockingCheck() if blocks_tell else None
        self._probe = probe
        self._pixels = pixels
        self._wanted = set(wanted)
        self._pending = deque(wanted)
        self._damage = DamageTracker()
        self._places = Places(probe, float(self._stream.time_base))
        self._place_of: dict[int, int | None] = {}
        self._packet_at: dict[int, int] = {}
        self._open: set[int] = set()
        self._hidden: set[int] = set()
        self._waiting: deque[_Waiting] = deque()

    def frames(self) -> Iterator[tuple[int, Image | None]]:
        """All wanted frames."""
        with listening() as messages:
            number = -1
            packets = self._container.demux(self._stream)
            while self._pending:
                packet = self._next_packet(packets)
                damaged = reports_damage(messages)
                if packet is None or not packet.size:
                    break
                number += 1
                if damaged:
                    self._damage.hole_before(number)
                yield from self._decode(packet, number, messages)
            for frame in self._decoded(None, number, messages):
                self._wait(frame, number)
            self._open.clear()
            yield from self._release()
        while self._pending:
            yield from self._pass_over(self._pending.popleft())

    def frames_from_key(self) -> Iterator[tuple[int, Image | None]]:
        """The same, begun with the second last key frame before the first of them; nothing where that fails.

        Pictures that follow a key frame and are shown before it may need what is before it, and so look damaged.
        The next key frame ends that damage, so it has to come before the first wanted frame.
        """
        import av

        assert self._probe.start_s is not None  # noqa: S101 - by _is_worth_seeking
        first_s = float(self._probe.times_s[self._pending[0]]) + self._probe.start_s
        try:
            with listening():
                last = self._key_before(int(first_s / float(self._stream.time_base)))
                sought = last is not None and self._key_before(last - 1) is not None
        except av.FFmpegError as error:
            if isinstance(error, MemoryError) or is_lost_share(error):
                raise
            return
        if sought:
            yield from self.frames()

    def _key_before(self, time: int) -> int | None:
        """Go to the last key frame that is decoded and shown by `time`; returns when that is, None without one.

        Times are in units of the stream's time base.
        """
        at = time
        while at >= 0:
            self._container.seek(at, stream=self._stream, backward=True)
            packet = self._next_packet(self._container.demux(self._stream))
            if packet is None or packet.pts is None:
                return None
            # Matroska stores no times of decoding.
            times = (packet.pts, packet.pts if packet.dts is None else packet.dts)
            if max(times) <= time:
                self._container.seek(at, stream=self._stream, backward=True)
                return int(min(times))
            if min(times) > at:
                return None
            at = min(times) - 1
        return None

    def _next_packet(self, packets: Iterator[Any]) -> Any | None:
        """The next packet; None where the demuxer gives up, as at the end of a file."""
        import av

        try:
            return next(packets, None)
        except MemoryError:
            raise
        except av.FFmpegError as error:
            if is_lost_share(error):
                raise
            return None

    def _decode(self, packet: Any, number: int, messages: list[Any]) -> Iterator[tuple[int, Image | None]]:
        hidden = packet.is_discard
        if hidden:
            self._hidden.add(number)
        place = None if hidden else self._places.of(packet)
        self._place_of[number] = place
        if place in self._wanted:
            self._packet_at[place] = number
        if packet.is_keyframe:
            self._marked.add(number)
        self._open.add(number)
        self._open.discard(number - REORDER)
        if packet.is_corrupt:
            self._damage.damage(number)
        if self._is_intact is not None and not self._is_intact(bytes(packet)):
            self._damage.damage(number)
        if self._is_key is not None and self._is_key(bytes(packet)):
            self._keys.add(number)
        for frame in self._decoded(without_discard(packet) if hidden else packet, number, messages):
            self._wait(frame, number)
        yield from self._release()

    def _decoded(self, packet: Any, number: int, messages: list[Any]) -> list[Any]:
        """Send a packet (None: the end) and take the frames that come; record its damage."""
        import av

        if packet is not None:
            # A tuple, because PyAV keeps opaque values by their id: a small number has one id in all passes, and
            # the end of another pass would take it away from this one.
            packet.opaque = (number,)
        frames = []
        try:
            frames = self._codec.decode(packet)
        except MemoryError:
            raise
        except (av.FFmpegError, ValueError):
            self._damage.damage(number)
            self._open.discard(number)
            self._failed[number] = self._place_of.get(number)
            self._places.lost()
        if reports_damage(messages):
            self._damage.damage(number)
        return frames

    def _wait(self, frame: Any, newest: int) -> None:
        packet = frame.opaque[0] if frame.opaque else newest
        self._open.discard(packet)
        if self._is_damaged(frame):
            self._damage.damage(packet)
        index = self._places.shown(self._place_of.pop(packet, None), hidden=packet in self._hidden)
        wanted = index in self._wanted
        key = packet in self._keys if self._is_key else bool(frame.key_frame)
        # A damaged byte can make a key frame of any packet: behind damage, the container has to agree.
        key = key and (packet in self._marked or not self._damage.any)
        self._waiting.append(_Waiting(packet, index, key, frame if wanted else None))

    def _is_damaged(self, frame: Any) -> bool:
        size = (self._probe.coded_width, self._probe.coded_height)
        # Asked of every frame, because the next one is compared with it.
        shows_blocks = self._blocking is not None and self._blocking.is_damaged(frame)
        return shows_blocks or bool(frame.is_corrupt) or (frame.width, frame.height) != size

    def _release(self) -> Iterator[tuple[int, Image | None]]:
        """Give the frames before which nothing is open in decode order."""
        while self._waiting:
            head = self._waiting[0]
            if any(packet < head.packet for packet in self._open):
                return
            self._waiting.popleft()
            # Before the frame is shown: as a key frame it would end the damage that applies to them.
            while self._pending and self._pending[0] < head.index:
                yield from self._pass_over(self._pending.popleft())
            missing = [
                packet
                for packet, place in self._failed.items()
                if packet < head.packet or (place is not None and place < head.index)
            ]
            for packet in missing:
                del self._failed[packet]
                self._damage.miss()
            sound = self._damage.show(head.packet, head.key)
            if head.picture is not None and self._pending and self._pending[0] == head.index:
                self._pending.popleft()
                yield head.index, self._image(head.picture) if sound else None

    def _image(self, picture: Any) -> Image:
        image: Image = picture.to_ndarray(format="rgb24", threads=1) if self._pixels else NO_PIXELS
        return image

    def _pass_over(self, index: int) -> Iterator[tuple[int, Image | None]]:
        """A wanted frame that was not shown is corrupt, unless its packet is sound and shows none."""
        packet = self._packet_at.get(index)
        if packet is None or self._damage.reaches(packet):
            yield index, None
