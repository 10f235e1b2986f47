"""What every run does, whatever it trains: takes its folder, restores, trains, saves."""

import contextlib
import dataclasses
import hashlib
import pathlib
import time
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from lts.config import ConfigError, TrainingConfig
from lts.config.options import MonitoringOptions
from lts.training import imported, run_dir
from lts.training.loop import Loop, steps_done
from lts.training.monitor import Monitor, format_time
from lts.training.run_dir import Checkpoints, TrainingError
from lts.training.strategy import Machines, build_strategy


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run of training ended.

    Attributes:
      step: steps done in all.
      total_steps: steps of the whole run.
      seconds: of this call, compiling included.
      signal: number of the signal that stopped it, or None.
    """

    step: int
    total_steps: int
    seconds: float
    signal: int | None = None


@dataclasses.dataclass(frozen=True)
class Task:
    """What a run trains, and on what.

    Attributes:
      record: of WORKDIR/config.json: "stage" is its name, "config" a `Config`, "dataset" and "split" name the images,
        "data" is what may change between starts; with another value of anything else the run is another one.
      section: of the configuration that holds batch size, seed and schedule, "autoencoder_training" or "gan_training".
      steps: of the whole run.
      build: makes the model under the strategy, its optimizers built: a `keras.Model` with `train_step`, `means`
        (`RunningMeans`), `pictures`, `histograms` and `filters` as those of `lts.models` have them.
      batches: (input context, first step, steps) to the batches of `train_step`, the context's share of each.
      samples: a batch of `train_step` for pictures and histograms.
      start: called with the model and whether a checkpoint was restored.
      check_data: called when TensorFlow failed: raises what is wrong with the data, if it is that.
    """

    record: dict[str, Any]
    section: str
    steps: int
    build: Callable[[], keras.Model]
    batches: Callable[[tf.distribute.InputContext, int, int], tf.data.Dataset]
    samples: Any
    start: Callable[[keras.Model, bool], None] = lambda model, restored: None
    check_data: Callable[[], None] = lambda: None

    @property
    def stage(self) -> str:
        """The run's name in messages."""
        return self.record["stage"]

    @property
    def settings(self) -> TrainingConfig:
        """Batch size, seed and schedule."""
        return getattr(self.record["config"], self.section)


def run(
    task: Task,
    workdir: str | pathlib.Path,
    options: MonitoringOptions = MonitoringOptions(),  # noqa: B008 (frozen)
    strategy: tf.distribute.Strategy | None = None,
) -> Result:
    """Trains, or goes on where it stopped.

    Args:
      task: what is trained.
      workdir: the run's folder; a run that is in it goes on. Several machines must all see it.
      options: intervals of monitoring and checkpoints.
      strategy: from `build_strategy`; None: as it builds for "auto".

    Returns:
      How the call ended. A finished run returns at once.

    Raises:
      ConfigError: a batch that the replicas do not divide.
      TrainingError: a workdir of another configuration or in use, a loss that is not finite, a machine that was lost;
        the last good checkpoint is left in place.
    """
    began = time.monotonic()
    strategy = strategy or build_strategy()
    _check_batch(task.settings.batch_size, strategy.num_replicas_in_sync)
    keras.utils.set_random_seed(task.settings.seed)
    machines, total = Machines(strategy), task.steps
    with machines.noticing_lost(), strategy.scope():
        model = task.build()
    with machines.noticing_lost(), run_dir.locked(workdir) if machines.chief else contextlib.nullcontext():
        checkpoints = Checkpoints(workdir, checkpoint_items(model), options.keep_checkpoints)
        task = _restore(task, model, checkpoints, machines, workdir, options)
        step = steps_done(model)
        if step >= total:
            print(f"{task.stage}: finished before, {step} of {total} steps are done in {workdir}", flush=True)
            return Result(step, total, time.monotonic() - began)
        signal = _train(make_loop(task, model, machines, checkpoints, options), step, task)
        if machines.chief:
            run_dir.write_run_config(workdir, task.record)  # the data of the last checkpoint
    step, seconds = steps_done(model), time.monotonic() - began
    state = f"{step} of {total} steps, {format_time(seconds)}, checkpoint in {checkpoints.folder}"
    print(f"{task.stage}: {'stopped' if signal else 'done'}: {state}", flush=True)
    return Result(step, total, seconds, signal)


def _train(loop: Loop, step: int, task: Task) -> int | None:
    """Runs the loop to its end; the signal that stopped it, or None."""
    try:
        return loop.run(step, task.steps)
    except tf.errors.OpError:
        task.check_data()
        raise
    finally:
        loop.close()


def _check_batch(batch_size: int, replicas: int) -> None:
    """Raises `ConfigError` unless the replicas divide the global batch."""
    if batch_size % replicas:
        fits = [size for size in (batch_size // replicas * replicas, -(-batch_size // replicas) * replicas) if size]
        sizes = " and ".join(map(str, fits))
        raise ConfigError(
            f"batch_size is that of all replicas together and must be a multiple of their number, {replicas}: "
            f"the next that fit are {sizes}. Received: batch_size={batch_size}"
        )


def _check_same(machines: Machines, what: str, text: str) -> None:
    """Raises `TrainingError` unless all machines come with the same text."""
    digest = int(hashlib.sha256(text.encode()).hexdigest()[:12], 16)
    if len(set(machines.gather([digest])[:, 0])) > 1:
        raise TrainingError(f"the machines of TF_CONFIG do not have the same {what}: give all the same flags")


def _restore(
    task: Task, model, checkpoints: Checkpoints, machines: Machines, workdir, options: MonitoringOptions
) -> Task:
    """Claims the workdir and brings the model to where the run stands, the same on all machines.

    A machine that did something else than the others would wait for them for ever.

    Returns:
      The task, its record with what the workdir's says beside.
    """
    restored = False
    if machines.chief:
        task = dataclasses.replace(task, record=run_dir.open_run(workdir, task.record))
        restored = checkpoints.restore()
    record = task.record
    _check_same(machines, "configuration", f"{record['stage']} {record['config'].to_json()}")  # waits for the chief
    _check_same(machines, "data", str(record["data"]))
    _check_same(machines, "intervals", repr(options))
    if not machines.chief:
        restored = checkpoints.restore()
    task.start(model, restored)
    _check_same(machines, "checkpoints (is --workdir on a file system that all see?)", str(steps_done(model)))
    if machines.count > 1:
        _check_same(machines, "frozen weights", str([v.numpy().tobytes() for v in model.non_trainable_variables]))
    return task


def make_loop(
    task: Task, model: keras.Model, machines: Machines, checkpoints: Checkpoints, options: MonitoringOptions
) -> Loop:
    """The loop that trains a model from the step it has reached."""
    step, strategy = steps_done(model), machines.strategy
    batches = strategy.distribute_datasets_from_function(lambda share: task.batches(share, step, task.steps - step))
    return Loop(
        model=model,
        machines=machines,
        batches=batches,
        checkpoints=checkpoints,
        monitor=_monitor(task, model, checkpoints.folder.parent, step) if machines.chief else None,
        samples=task.samples,
        options=options,
    )


def _monitor(task: Task, model: keras.Model, workdir: pathlib.Path, step: int) -> Monitor:
    """The run's monitor; a new run's configuration and graph are written."""
    monitor = Monitor(workdir, task.stage, step, task.steps, task.settings.batch_size)
    if step == imported.first_step(workdir):
        columns = {name: task.record[name] for name in ("dataset", "split")}
        monitor.configuration(task.record["config"], task.section, **columns)
        monitor.graph(tf.function(model.pictures).get_concrete_function(task.samples).graph)
    return monitor


def checkpoint_items(model: keras.Model) -> dict[str, Any]:
    """What a checkpoint of the model holds: its networks, optimizers and running means by name."""
    names = ("encoder", "decoder", "repair", "discriminator", "network", "optimizer", "g_optimizer", "means")
    return {name: getattr(model, name) for name in names if getattr(model, name, None) is not None}
