"""Killed at any moment and started again, a run ends as if nothing had happened: bit by bit."""

import random
import time

import pytest

from tests.fixtures import runs

MODULE = {"autoencoder": "lts.bin.train_autoencoder", "gan": "lts.bin.train_gan"}
LOG_STEPS = 20


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return runs.make_photos(tmp_path_factory.mktemp("photos"))


def flags(photos, stage: str, steps: int, autoencoder=None) -> tuple:
    """Of every run here, without the workdir."""
    own = (f"--autoencoder={autoencoder}",) if stage == "gan" else runs.BASE
    every = (*own, f"--dataset=folder:{photos}", f"--steps={steps}", "--batch_size=4", "--ema_decay=0.9")
    return (*every, f"--log_steps={LOG_STEPS}", f"--picture_steps={steps // 4}", f"--histogram_steps={steps // 3}")


def finish(stage: str, workdir, *given: str) -> None:
    """Runs to the end."""
    done = runs.run(MODULE[stage], *given, f"--workdir={workdir}", timeout=900)
    assert done.returncode == 0, done.stderr


def kill(stage: str, workdir, *given: str, when, minutes: float = 0.02) -> bool:
    """Starts a run and kills it when `when(seconds since its data are open)` says so; False if it ended before.

    It saves after more than `minutes`: 1.2 seconds, between which lines of metrics come, or after every call.
    """
    process = runs.start(MODULE[stage], *given, f"--checkpoint_minutes={minutes}", f"--workdir={workdir}")
    for line in process.stdout:
        if "opened in" in line:
            break
    began = time.monotonic()
    while process.poll() is None and not when(time.monotonic() - began):
        time.sleep(0.0002)
    killed = process.poll() is None
    process.kill()
    _, err = process.communicate()
    assert "Traceback" not in err, err
    return killed


def saved_step(workdir) -> int:
    """Step of the newest checkpoint; 0 if there is none."""
    return max((int(path.name[5:]) for path in (workdir / "checkpoints").glob("step_*")), default=0)


def writing(workdir):
    """Whether a checkpoint is being written at this moment."""

    def now(_) -> bool:
        rooms = (workdir / "checkpoints").glob(".step_*")
        return any(int(room.name[6:14]) > saved_step(workdir) for room in rooms)

    return now


def midway(workdir):
    """Whether the newest checkpoint lies between two lines of metrics, whose means it must hold."""
    return lambda _: saved_step(workdir) % LOG_STEPS > 0


def ahead(workdir):
    """Whether lines of metrics lie beyond the newest checkpoint: they must go and come again."""

    def now(_) -> bool:
        step, path = saved_step(workdir), workdir / "metrics.jsonl"
        return step > 0 and path.exists() and len(path.read_text().splitlines()) * LOG_STEPS > step + 2 * LOG_STEPS

    return now


@pytest.mark.parametrize("stage", ["autoencoder", "gan"])
def test_killed_while_training_and_while_saving(photos, tmp_path, stage):
    """Stage 2 holds two optimizers, masks, dropout and frozen networks; nothing of it may depend on the start."""
    autoencoder = tmp_path / "ae"
    if stage == "gan":
        finish("autoencoder", autoencoder, *flags(photos, "autoencoder", 10))
    given = flags(photos, stage, 4000 if stage == "autoencoder" else 1000, autoencoder)
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    finish(stage, whole, *given)
    assert kill(stage, stopped, *given, when=ahead(stopped))
    lines = len(runs.metrics(stopped))
    assert lines * LOG_STEPS > saved_step(stopped) > 0
    assert kill(stage, stopped, *given, when=writing(stopped))
    assert any((stopped / "checkpoints").glob(".step_*")), "the kill came after the writing"
    assert kill(stage, stopped, *given, when=midway(stopped), minutes=0)
    assert saved_step(stopped) % LOG_STEPS
    finish(stage, stopped, *given)
    assert not any((stopped / "checkpoints").glob(".step_*"))
    runs.assert_same(stopped, whole)


@pytest.mark.slow
def test_killed_at_ten_random_moments(photos, tmp_path):
    """Every third kill falls into the writing of a checkpoint, every third on one between two lines of metrics."""
    given = flags(photos, "autoencoder", 8000)
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    finish("autoencoder", whole, *given)
    moments, kills = random.Random(0), 0
    for turn in range(10):
        wait = moments.uniform(0, 8)
        when = (writing(stopped), midway(stopped), lambda seconds, wait=wait: seconds > wait)[turn % 3]
        kills += kill("autoencoder", stopped, *given, when=when, minutes=0 if turn % 3 == 1 else 0.02)
    assert kills == 10, "the run was over before it was killed ten times: give it more steps"
    finish("autoencoder", stopped, *given)
    runs.assert_same(stopped, whole)


@pytest.mark.slow
@pytest.mark.parametrize("batch_norm", ["global", "per_replica"])
def test_killed_on_two_replicas(photos, tmp_path, batch_norm):
    """Mirrored variables, and statistics that are merged when they are saved."""
    given = (*flags(photos, "autoencoder", 600), "--replicas=2", f"--batch_norm={batch_norm}")
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    finish("autoencoder", whole, *given)
    assert kill("autoencoder", stopped, *given, when=writing(stopped))
    finish("autoencoder", stopped, *given)
    runs.assert_close(stopped, whole)
