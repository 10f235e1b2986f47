"""Turns of training loops."""

import pytest

from experiments.pretraining import timing
from lts import data
from lts.config import preset
from lts.training.loop import steps_done


def test_a_turn_ends_after_its_time():
    """Fails if a chunk begins after the time: 0.1 s per step, five chunks end at 10 s, the sixth begins before 10.5."""
    now = [100.0]

    def work(steps):
        now[0] += 0.1 * steps

    assert timing.run_turn(work, 10.5, lambda: now[0]) == pytest.approx([120, 12.0])
    assert timing.run_turn(work, 0.0, lambda: now[0]) == pytest.approx([20, 2.0])


def test_turns_are_interleaved():
    """Fails if one work has all its turns in a row."""
    order = []
    works = {name: lambda steps, name=name: order.append((name, steps)) for name in "abc"}
    turns = timing.run_in_turns(works, 2, 0.0)
    assert order == [(name, timing.CHUNK) for name in "abcabc"]
    assert {name: len(own_turns) for name, own_turns in turns.items()} == {"a": 2, "b": 2, "c": 2}


def test_time_loops(tmp_path, monkeypatch):
    """Fails if a turn includes compiling, starts the loop anew, or leaves files."""
    config = preset(
        "tiny",
        image_size="16",
        encoder_filters="4,8,8,8",
        conv_1_kernel="3",
        backbone_filters="4,8,8,8,8",
        fc_units="8",
    ).replace(batch_size=4)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    order = []
    real_advance = timing.advance
    real_turns = timing.run_in_turns

    def advance(loop, steps):
        real_advance(loop, steps)
        order.append(steps_done(loop.model))

    def in_turns(*arguments):
        order.append("turns")
        return real_turns(*arguments)

    monkeypatch.setattr(timing, "advance", advance)
    monkeypatch.setattr(timing, "run_in_turns", in_turns)
    source = data.open_source("synthetic", "train[:40]", progress=False)
    (turns,) = timing.time_loops({"supervised": (config, "supervised", source)}, 2, 0.0).values()
    assert order == [20, "turns", 40, 60]
    assert [steps for steps, _ in turns] == [20, 20]
    assert all(seconds > 0 for _, seconds in turns)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
