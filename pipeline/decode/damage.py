"""Which frames are corrupt, given which packets are damaged.

A frame is predicted from frames that are decoded before it, back to the last key frame. So one damaged packet
makes corrupt every frame that is decoded from it on, until a key frame is intact. Two orders matter:

- Damage travels in *decode order*, the order of packets.
- A key frame ends it for the frames *shown* after it. Leading pictures (decoded after a key frame, shown before
  it) may be predicted from the frames before the key frame too, as open groups of pictures do.

Hence the rule: a frame is sound when a key frame that is itself intact has been shown before it, and no packet
from that key frame up to its own, in decode order, is damaged or missing. Frames before the first key frame are
corrupt: a cut without re-encoding begins with them. What is shown after a corrupt frame is corrupt as well, up to
the next key frame: damage that the decoder notices late may have begun a few packets before.
"""

from __future__ import annotations

from bisect import bisect_right


class DamageTracker:
    """Follows the damage through a stream. Packets are numbered in decode order, from 0."""

    def __init__(self) -> None:
        self._damaged: set[int] = set()
        self._breaks: list[int] = []
        self._key: int | None = None
        self._corrupt = True

    @property
    def any(self) -> bool:
        """Whether anything has been found damaged or missing."""
        return bool(self._breaks)

    def damage(self, packet: int) -> None:
        """The packet is damaged: the decoder reports it, or fails on it."""
        if packet not in self._damaged:
            self._damaged.add(packet)
            self._break_at(packet)

    def hole_before(self, packet: int) -> None:
        """Something is missing between the packet and the one before it; the packet itself is whole."""
        self._break_at(packet)

    def _break_at(self, packet: int) -> None:
        self._breaks.insert(bisect_right(self._breaks, packet), packet)

    def show(self, packet: int, key: bool) -> bool:
        """Show the frame of a packet; frames come in the order in which they are shown.

        Args:
            packet: number of the packet that the frame comes from.
            key: whether the frame is predicted from no other.

        Returns:
            Whether the frame is sound.
        """
        if key:
            if packet in self._damaged:
                self._corrupt = True
                return False
            self._key = packet if self._key is None else max(packet, self._key)
            self._corrupt = False
            return True
        self._corrupt = self._corrupt or self.reaches(packet)
        return not self._corrupt

    def miss(self) -> None:
        """The frame that is due to be shown next is missing: its packet cannot be decoded."""
        self._corrupt = True

    def reaches(self, packet: int) -> bool:
        """Whether damage reaches a frame that is predicted from others, were it shown now."""
        if self._key is None:
            return True
        # The key frame's own position is not checked: it is intact, and a hole before it is behind it.
        return bisect_right(self._breaks, packet) != bisect_right(self._breaks, self._key)
