"""The record of a run's finished stages."""

import pytest

from experiments.pretraining.pipeline import Pipeline
from lts.config import preset
from lts.utils.errors import UserError


def test_stages_run_once(tmp_path, capsys):
    """Fails if a finished stage runs again, or if the time of a stopped one is lost."""
    path = tmp_path / "stages.json"
    calls = []

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
    """Fails if stages of two configurations mix."""
    Pipeline(tmp_path / "stages.json", preset("tiny")).run("one", lambda: None)
    with pytest.raises(UserError, match="learning_rate"):
        Pipeline(tmp_path / "stages.json", preset("tiny", learning_rate=0.5))


@pytest.mark.parametrize(
    "content",
    ["[]", "{", '{"config": {}, "seconds": [], "done": []}', '{"config": {"a": 1}, "seconds": {}, "done": []}'],
)
def test_a_damaged_record_is_one_clear_line(tmp_path, content):
    """Fails if the file is not named."""
    path = tmp_path / "stages.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"stages\.json"):
        Pipeline(path, preset("tiny"))


def test_other_data_are_refused(tmp_path):
    """Fails if stages on two data sets mix."""
    path = tmp_path / "stages.json"
    Pipeline(path, preset("tiny"), {"dataset": "folder:a", "split": "train"}).run("one", lambda: None)
    assert Pipeline(path, preset("tiny"), {"dataset": "folder:a", "split": "train"}).done("one")
    with pytest.raises(UserError, match="split: train -> all"):
        Pipeline(path, preset("tiny"), {"dataset": "folder:a", "split": "all"})
