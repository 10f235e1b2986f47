"""Signals that a training caught."""

import signal

import pytest

from lts.utils.signals import reraise_signal, stop_on_signals


def test_a_caught_signal_is_raised_again():
    """Fails if SIGTERM ends as Ctrl-C does, or if the run resumes where nothing handles the signal."""
    caught = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: caught.append(number))
    try:
        reraise_signal(None)
        assert not caught
        with pytest.raises(KeyboardInterrupt):
            reraise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught == [signal.SIGTERM]


@pytest.fixture
def hangup():
    """The handler of SIGHUP, restored afterwards."""
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


def test_closed_terminal_is_a_request_to_stop(hangup):
    """Fails if SIGHUP ends the process, or a second one, from the shell or the kernel, interrupts the checkpoint."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with stop_on_signals() as stop:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        assert stop.signal == signal.SIGHUP
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_nohup_keeps_its_effect(hangup):
    """Fails if a program that was started with nohup stops when its terminal is closed."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stop_on_signals() as stop:
        signal.raise_signal(signal.SIGHUP)
        assert not stop
