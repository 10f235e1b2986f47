"""Killed at any moment and started again, a run ends as if nothing had happened: bit by bit."""

import random
import time

import pytest

from tests.training import runs

MODULE = {"autoencoder": "lts.bin.train_autoencoder", "gan": "lts.bin.train_gan"}
OFTEN = "--checkpoint_minutes=0"  # a checkpoint after every call of about a second


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return runs.make_photos(tmp_path_factory.mktemp("photos"))


def flags(photos, stage: str, steps: int, autoencoder=None) -> tuple:
    """Of every run here, without the workdir."""
    own = (f"--autoencoder={autoencoder}",) if stage == "gan" else runs.BASE
    every = (*own, f"--dataset=folder:{photos}", f"--steps={steps}", "--batch_size=4", "--average_decay=0.9")
    return (*every, f"--log_steps={steps // 10}", f"--picture_steps={steps // 4}", f"--histogram_steps={steps // 3}")


def finish(stage: str, workdir, *given: str) -> None:
    """Runs to the end."""
    done = runs.run(MODULE[stage], *given, f"--workdir={workdir}", timeout=900)
    assert done.returncode == 0, done.stderr


def kill(stage: str, workdir, *given: str, when) -> bool:
    """Starts a run and kills it when `when(seconds since its data are open)` says so; False if it ended before."""
    process = runs.start(MODULE[stage], *given, OFTEN, f"--workdir={workdir}")
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


def writing(workdir):
    """Whether a checkpoint is being written at this moment."""
    return lambda _: any((workdir / "checkpoints").glob(".step_*"))


@pytest.mark.parametrize("stage", ["autoencoder", "gan"])
def test_killed_while_training_and_while_saving(photos, tmp_path, stage):
    """Stage 2 holds two optimizers, masks, dropout and frozen networks; nothing of it may depend on the start."""
    autoencoder = tmp_path / "ae"
    if stage == "gan":
        finish("autoencoder", autoencoder, *flags(photos, "autoencoder", 10))
    given = flags(photos, stage, 1500 if stage == "autoencoder" else 500, autoencoder)
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    finish(stage, whole, *given)
    saved = stopped / "checkpoints" / "latest"
    assert kill(stage, stopped, *given, when=lambda _: saved.exists() and saved.read_text() > "step_00000002")
    assert kill(stage, stopped, *given, when=writing(stopped))
    step = int(runs.newest(stopped)["optimizer/iteration"])
    assert 0 < step < 1500
    assert step % (150 if stage == "autoencoder" else 50), "a checkpoint in the middle of a line of metrics is wanted"
    finish(stage, stopped, *given)
    runs.assert_same(stopped, whole)


@pytest.mark.slow
def test_killed_at_ten_random_moments(photos, tmp_path):
    """Every second kill falls into the writing of a checkpoint."""
    given = flags(photos, "autoencoder", 20000)
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    finish("autoencoder", whole, *given)
    moments, kills = random.Random(0), 0
    for turn in range(10):
        wait = moments.uniform(0, 8)
        when = writing(stopped) if turn % 2 else lambda seconds, wait=wait: seconds > wait
        kills += kill("autoencoder", stopped, *given, when=when)
    assert kills == 10, "the run was over before it was killed ten times: give it more steps"
    finish("autoencoder", stopped, *given)
    runs.assert_same(stopped, whole)


@pytest.mark.slow
def test_killed_on_two_replicas(photos, tmp_path):
    """Mirrored variables, and statistics that are merged when they are saved."""
    given = (*flags(photos, "autoencoder", 600), "--replicas=2")
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    finish("autoencoder", whole, *given)
    assert kill("autoencoder", stopped, *given, when=writing(stopped))
    finish("autoencoder", stopped, *given)
    runs.assert_close(stopped, whole)
