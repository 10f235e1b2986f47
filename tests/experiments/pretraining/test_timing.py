"""Turns end when their time is over, come one after the other, and leave compiling out."""

import pytest

from experiments.pretraining import timing
from lts import data
from lts.config import preset
from lts.training.loop import steps_done


def test_a_turn_ends_with_the_chunk_in_which_its_time_is_over():
    """Steps of 0.1 s in chunks of 20: five chunks last 10 s, and the sixth begins before 10.5."""
    now = [100.0]

    def work(steps):
        now[0] += 0.1 * steps

    assert timing.run_turn(work, 10.5, lambda: now[0]) == pytest.approx([120, 12.0])
    assert timing.run_turn(work, 0.0, lambda: now[0]) == pytest.approx([20, 2.0])


def test_turns_are_interleaved():
    order = []
    works = {name: lambda steps, name=name: order.append((name, steps)) for name in "abc"}
    turns = timing.run_in_turns(works, 2, 0.0)
    assert order == [(name, timing.CHUNK) for name in "abcabc"]
    assert {name: len(found) for name, found in turns.items()} == {"a": 2, "b": 2, "c": 2}


def test_a_loop_is_compiled_before_its_turns_and_leaves_nothing(tmp_path, monkeypatch):
    """The whole loop of a training, which goes on from turn to turn."""
    config = preset(
        "tiny",
        image_size="16",
        encoder_filters="4,8,8,8",
        conv_1_kernel="3",
        backbone_filters="4,8,8,8,8",
        fc_units="8",
    ).replace(batch_size=4)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    order, whole_advance, whole_turns = [], timing.advance, timing.run_in_turns

    def advance(loop, steps):
        whole_advance(loop, steps)
        order.append(steps_done(loop.model))

    def in_turns(*arguments):
        order.append("turns")
        return whole_turns(*arguments)

    monkeypatch.setattr(timing, "advance", advance)
    monkeypatch.setattr(timing, "run_in_turns", in_turns)
    source = data.open_source("synthetic", "train[:40]", progress=False)
    (turns,) = timing.time_loops({"supervised": (config, "supervised", source)}, 2, 0.0).values()
    assert order == [20, "turns", 40, 60]
    assert [steps for steps, _ in turns] == [20, 20]
    assert all(seconds > 0 for _, seconds in turns)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
