"""Turns end when their time is over, come one after the other, and leave compiling out."""

import pytest

from experiments import timing
from lts import data
from lts.config import preset


def test_a_turn_ends_with_the_chunk_in_which_its_time_is_over():
    """Steps of 0.1 s in chunks of 20: five chunks last 10 s, and the sixth begins before 10.5."""
    now = [100.0]

    def work(steps):
        now[0] += 0.1 * steps

    assert timing.turn(work, 10.5, lambda: now[0]) == pytest.approx([120, 12.0])
    assert timing.turn(work, 0.0, lambda: now[0]) == pytest.approx([20, 2.0])


def test_turns_are_interleaved():
    order = []
    works = {name: lambda steps, name=name: order.append((name, steps)) for name in "abc"}
    turns = timing.in_turns(works, 2, 0.0)
    assert order == [(name, timing.CHUNK) for name in "abcabc"]
    assert {name: len(found) for name, found in turns.items()} == {"a": 2, "b": 2, "c": 2}


def test_loops_go_on_where_they_were_and_leave_nothing(tmp_path, monkeypatch):
    """The whole loop of two trainings: every turn has steps behind it, and the first does not hold the compiling."""
    config = preset(
        "tiny", image_size="16", encoder_widths="4,8,8,8", conv_1_kernel="3", trunk_widths="4,8,8,8,8", fc_width="8"
    ).replace(batch_size=4)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    source = data.open_source("embedded", "train[:40]", progress=False)
    trainings = {stage: (config, stage, source) for stage in ("autoencoder", "supervised")}
    turns = timing.time_loops(trainings, 2, 0.05)
    assert list(turns) == ["autoencoder", "supervised"]
    for found in turns.values():
        assert len(found) == 2
        assert all(steps >= timing.CHUNK and steps % timing.CHUNK == 0 and seconds > 0 for steps, seconds in found)
        assert found[0][1] / found[0][0] < 20 * found[1][1] / found[1][0]  # compiling takes hundreds of steps' time
    assert not list(tmp_path.iterdir())
