"""Signals that a training caught."""

import signal

import pytest

from lts.utils.signals import reraise_signal


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
