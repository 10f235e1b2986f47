"""Pipeline of a run: done once, timed over all starts, never mixed with another run's."""

import signal

import pytest

from experiments.pretraining.pipeline import Pipeline
from lts.config import preset
from lts.utils.errors import UserError
from lts.utils.signals import reraise_signal


def test_stages_run_once_and_add_up_their_time(tmp_path, capsys):
    path, calls = tmp_path / "stages.json", []

    def stopped():
        calls.append("stopped")
        raise KeyboardInterrupt

    stages = Pipeline(path, preset("tiny"))
    stages.run("one", lambda: calls.append("one"))
    with pytest.raises(KeyboardInterrupt):
        stages.run("two", stopped)
    first = stages.seconds["two"]
    again = Pipeline(path, preset("tiny"))
    again.run("one", lambda: calls.append("one again"))
    again.run("two", lambda: calls.append("two"))
    assert calls == ["one", "stopped", "two"]
    assert list(again.seconds) == ["one", "two"]
    assert again.seconds["two"] > first
    assert "one: done before" in capsys.readouterr().out


def test_a_run_of_another_configuration_is_refused(tmp_path):
    Pipeline(tmp_path / "stages.json", preset("tiny")).run("one", lambda: None)
    with pytest.raises(UserError, match="learning_rate"):
        Pipeline(tmp_path / "stages.json", preset("tiny", learning_rate=0.5))


def test_other_data_are_refused(tmp_path):
    path = tmp_path / "stages.json"
    Pipeline(path, preset("tiny"), {"dataset": "folder:a", "split": "train"}).run("one", lambda: None)
    assert Pipeline(path, preset("tiny"), {"dataset": "folder:a", "split": "train"}).done("one")
    with pytest.raises(UserError, match="split: train -> all"):
        Pipeline(path, preset("tiny"), {"dataset": "folder:a", "split": "all"})


def test_a_caught_signal_comes_again():
    """SIGTERM must not end as Ctrl-C does; where nothing handles the signal the run stops all the same."""
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
