"""The first signal is a request, which the run answers in its own time; a second Ctrl-C is not."""

from __future__ import annotations

import os
import signal

import pytest

from training.engine.signals import StopRequest


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    signal.sigpending()  # any call: handlers run between two of them


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_noted_and_nothing_else_happens(number: signal.Signals) -> None:
    with StopRequest() as stop:
        assert not stop.asked()
        send(number)
        assert stop.asked()


def test_a_second_ctrl_c_ends_at_once() -> None:
    with StopRequest() as stop:
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
        assert stop.asked()


def test_schedulers_may_repeat_sigterm() -> None:
    with StopRequest() as stop:
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        send(signal.SIGINT)
        assert stop.asked()


def test_afterwards_signals_do_what_they_did_before() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopRequest():
        send(signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
