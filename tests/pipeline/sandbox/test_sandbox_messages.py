"""A decoder that was taken over may send anything; the build answers each with one failed row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sandboxed_videos import TIMEOUT_S, Attack, write_attack

from pipeline.decode.frames import CorruptFrame, Frame
from pipeline.sandbox import SandboxedDecoder
from shards.schema import Reason
from tests.processes import left_open, open_descriptors

BROKEN = {
    "send_too_much": "a message is too long",
    "send_no_json": "a message is not JSON",
    "send_deep_json": "a message is not JSON",
    "send_long_number": "a message is not JSON",
    "send_infinite_start": "a message is not JSON",
    "send_unknown_type": "a message of type b'Z' instead of b'P'",
    "send_unknown_reason": "a rejection has no known reason",
    "send_reason_of_no_decoder": "a rejection has no known reason",
    "send_long_text": "a text is not one, or too long",
    "send_probe_with_wrong_type": "a probe's coded_width is not valid",
    "send_probe_with_more_fields": "a probe has other fields than expected",
    "send_huge_frame_size": "a frame size out of range",
    "send_zero_aspect": "a probe's pixel_aspect is not valid",
    "send_many_frames": "a probe has no valid number of frames",
    "send_no_frames": "a probe has no valid number of frames",
    "send_times_that_are_not_numbers": "frame times are not ascending seconds from 0",
    "send_times_that_end_with_nan": "frame times are not ascending seconds from 0",
    "send_falling_times": "frame times are not ascending seconds from 0",
    "send_endless_times": "frame times are not ascending seconds from 0",
    "send_wrong_slot": "a frame is not within its slot",
    "send_wrong_index": "a frame that was not asked for",
    "send_frame_again": "a frame that was not asked for",
    "send_frame_larger_than_slot": "a frame is not within its slot",
    "send_empty_frame": "a frame is not within its slot",
    "send_short_frame_message": "a frame's message has another length",
    "send_frames_without_end": "a frame that was not asked for",
    "send_probe_for_frames": "a message of type b'P' instead of b'F' or b'D' or b'E'",
    "send_nothing": "it closed its socket",
    "close_socket": "it closed its socket",
}


@pytest.mark.parametrize(("name", "detail"), BROKEN.items())
def test_a_broken_message_is_one_failed_row(attack: Attack, name: str, detail: str) -> None:
    rejection = attack(name)
    assert rejection.reason is Reason.DECODER_CRASHED
    assert rejection.detail == f"the decoder broke its protocol: {detail}"


def test_control_characters_do_not_reach_a_terminal(attack: Attack) -> None:
    assert attack("send_control_characters").detail == "a?[2J?b"


def test_descriptors_that_a_decoder_sends_are_closed(attack: Attack) -> None:
    before = open_descriptors()
    assert attack("send_descriptors").detail == "sent"
    assert left_open(before) == set()


def test_pixels_cannot_change_after_they_were_read(hostile: SandboxedDecoder, tmp_path: Path) -> None:
    with hostile.open(write_attack(tmp_path, "change_pixels_later"), TIMEOUT_S) as video:
        video.probe()
        first, second, third = video.frames(np.arange(3), "pyav")
    assert isinstance(first, Frame)
    assert isinstance(second, Frame)
    assert np.all(first.image == 255)
    assert np.all(second.image == 0)
    assert third == CorruptFrame(2, 0.08)


def test_a_lost_storage_that_only_the_decoder_sees_does_not_end_the_build(attack: Attack) -> None:
    rejection = attack("lose_storage")
    assert rejection.reason is Reason.DECODER_CRASHED
    assert rejection.detail == "the decoder could not read the file, which reads well outside of it"


def test_a_decoder_without_memory_is_out_of_memory(attack: Attack) -> None:
    assert attack("run_out_of_memory").reason is Reason.OUT_OF_MEMORY
