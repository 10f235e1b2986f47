"""Runs that are killed and started again are bit-identical to uninterrupted ones."""

import random
import time

import pytest

from lts import data, training
from lts.config import preset
from tests.fixtures import runs
from tests.fixtures.spotting import write_run

MODULE = {"autoencoder": "lts.bin.train_autoencoder", "gan": "lts.bin.train_gan"}
LOG_STEPS = 20


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of twelve pictures."""
    return runs.make_photos(tmp_path_factory.mktemp("photos"))


def flags(photos, stage: str, steps: int, autoencoder=None) -> tuple:
    """Return the flags of every run here, without the workdir."""
    networks = (f"--autoencoder={autoencoder}",) if stage == "gan" else runs.BASE
    training = (*networks, f"--dataset=folder:{photos}", f"--steps={steps}", "--batch_size=4", "--ema_decay=0.9")
    return (*training, f"--log_steps={LOG_STEPS}", f"--picture_steps={steps // 4}", f"--histogram_steps={steps // 3}")


def finish(stage: str, workdir, *given: str, **environment: str) -> None:
    """Run a binary to its end."""
    done = runs.run(MODULE[stage], *given, f"--workdir={workdir}", timeout=900, **environment)
    assert done.returncode == 0, done.stderr


def kill(stage: str, workdir, *given: str, when, minutes: float = 0.02) -> bool:
    """Start a run and kill it when `when(seconds since its data are open)` is true.

    Args:
      stage: kind of training.
      workdir: folder of the run.
      *given: further flags.
      when: see above.
      minutes: between checkpoints. The default, 1.2 seconds, leaves lines of metrics after them; 0 saves after every
        call of TensorFlow.

    Returns:
      False if the run ended before.
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
    """Return the step of the newest checkpoint, or 0."""
    return max((int(path.name[5:]) for path in (workdir / "checkpoints").glob("step_*")), default=0)


def writing(workdir):
    """Return a condition: a checkpoint is being written at this moment."""

    def now(_) -> bool:
        partial = (workdir / "checkpoints").glob(".step_*")
        return any(int(folder.name[6:14]) > saved_step(workdir) for folder in partial)

    return now


def midway(workdir):
    """Return a condition: the newest checkpoint lies between two lines of metrics, whose means it must hold."""
    return lambda _: saved_step(workdir) % LOG_STEPS > 0


def ahead(workdir):
    """Return a condition: lines of metrics follow the newest checkpoint. They must be removed and written again."""

    def now(_) -> bool:
        step = saved_step(workdir)
        path = workdir / "metrics.jsonl"
        return step > 0 and path.exists() and len(path.read_text().splitlines()) * LOG_STEPS > step + 2 * LOG_STEPS

    return now


@pytest.mark.parametrize("stage", [pytest.param("autoencoder", marks=pytest.mark.slow), "gan"])
def test_killed_while_training_and_while_saving(photos, tmp_path, stage):
    """Fails if an optimizer, masks, dropout, frozen networks or metrics depend on when a run was killed."""
    autoencoder = write_run(tmp_path / "ae", "autoencoder")
    given = flags(photos, stage, {"autoencoder": 4000, "gan": 1000}[stage], autoencoder)
    stopped = tmp_path / "stopped"
    uninterrupted = tmp_path / "uninterrupted"
    finish(stage, uninterrupted, *given)
    assert kill(stage, stopped, *given, when=ahead(stopped))
    lines = len(runs.metrics(stopped))
    assert lines * LOG_STEPS > saved_step(stopped) > 0
    assert kill(stage, stopped, *given, when=writing(stopped))
    assert any((stopped / "checkpoints").glob(".step_*")), "the kill came after the writing"
    assert kill(stage, stopped, *given, when=midway(stopped), minutes=0)
    assert saved_step(stopped) % LOG_STEPS
    finish(stage, stopped, *given)
    assert not any((stopped / "checkpoints").glob(".step_*"))
    runs.assert_same(stopped, uninterrupted)


@pytest.mark.slow
def test_killed_at_ten_random_moments(photos, tmp_path):
    """Fails if a moment is left at which a kill changes the result.

    Every third kill hits the writing of a checkpoint, every third a checkpoint between two lines of metrics.
    """
    given = flags(photos, "autoencoder", 8000)
    stopped = tmp_path / "stopped"
    uninterrupted = tmp_path / "uninterrupted"
    finish("autoencoder", uninterrupted, *given)
    moments = random.Random(0)
    kills = 0
    for turn in range(10):
        wait = moments.uniform(0, 8)
        when = (writing(stopped), midway(stopped), lambda seconds, wait=wait: seconds > wait)[turn % 3]
        kills += kill("autoencoder", stopped, *given, when=when, minutes=0 if turn % 3 == 1 else 0.02)
    assert kills == 10, "the run was over before it was killed ten times: give it more steps"
    finish("autoencoder", stopped, *given)
    runs.assert_same(stopped, uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("batch_norm", ["global", "per_replica"])
def test_killed_on_two_replicas(photos, tmp_path, batch_norm):
    """Fails if mirrored variables, or statistics that are merged on saving, do not come back."""
    given = (*flags(photos, "autoencoder", 600), "--replicas=2", f"--batch_norm={batch_norm}")
    stopped = tmp_path / "stopped"
    uninterrupted = tmp_path / "uninterrupted"
    finish("autoencoder", uninterrupted, *given)
    assert kill("autoencoder", stopped, *given, when=writing(stopped))
    finish("autoencoder", stopped, *given)
    controls = [tmp_path / "up", tmp_path / "down"]
    for control, (changed, environment) in zip(controls, runs.other_rounding(given), strict=True):
        finish("autoencoder", control, *changed, **environment)
    assert runs.are_close(stopped, uninterrupted, controls) == {"weights": True, "metrics": True}


@pytest.mark.parametrize(
    ("corruption", "optimizer"),
    [
        ("channel_drop", "sgd"),
        pytest.param("block_drop", "adamw", marks=pytest.mark.slow),
        pytest.param("cell_shuffle", "adam", marks=pytest.mark.slow),
        pytest.param("cell_swap", "adamw", marks=pytest.mark.slow),
        pytest.param("cell_drop", "adam", marks=pytest.mark.slow),
    ],
)
def test_other_corruptions_and_optimizers(corruption, optimizer, tmp_path, monkeypatch):
    """Fails if random numbers of a corruption or variables of an optimizer depend on the start of a run."""
    choices = {"corruption": corruption, "optimizer": optimizer, "ema_decay": 0.9}
    if corruption == "cell_drop":
        # The run stops after a step without an update of the repair network.
        choices |= {"repair_every": 3, "shows": 2, "rotation_weight": 1.0}
    config = preset("tiny", **{**runs.FIELDS, **choices, "steps": 4, "batch_size": 4})
    source = data.open_source("synthetic", "unlabelled[:16]", progress=False)
    autoencoder = write_run(tmp_path / "autoencoder", "autoencoder")
    options = training.MonitoringOptions(log_steps=1, picture_steps=100, histogram_steps=0)

    def train(name: str) -> training.Result:
        return training.train(config, "gan", source, tmp_path / name, autoencoder=autoencoder, options=options)

    train("uninterrupted")
    with runs.stop_training_at(2, monkeypatch):
        assert train("stopped").step == 2
    assert train("stopped").step == 4
    names = runs.assert_same_weights(tmp_path / "stopped", tmp_path / "uninterrupted")
    assert any("average" in name for name in names)
