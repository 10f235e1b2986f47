"""One training run, whatever it trains.

The stages of `lts.training.train` and the heads and tasks of `experiments` all use `run`, so that they resume and
stop in the same way.
"""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from lts.config import SECTIONS, ConfigError, TrainingConfig, describe
from lts.config.options import MonitoringOptions
from lts.training import run_dir
from lts.training.checkpoints import Checkpoints, TrainingError
from lts.training.loop import Loop, steps_done
from lts.training.monitor import Monitor, format_time
from lts.training.online_evaluation import OnlineEvaluation
from lts.training.run_record import RunRecord
from lts.training.strategy import Machines, build_strategy
from lts.utils import sources
from lts.utils.streams import begin_log, end_log, print_result


@dataclasses.dataclass(frozen=True)
class Result:
    """How a call of `run` ended."""

    step: int  # training steps done in all
    total_steps: int  # of the whole run
    seconds: float  # of this call, tracing included
    signal: int | None = None  # number of the signal that stopped it


@dataclasses.dataclass(frozen=True)
class Task:
    """What a run trains, and on which data.

    Attributes:
      record: content of WORKDIR/config.json. A run with another configuration, data set or detail is another run.
      section: section of the configuration with batch size, seed and schedule: "autoencoder_training" or
        "gan_training".
      steps: training steps of the whole run.
      build: returns the model with its optimizers built; called under the strategy. The model is a `keras.Model` with
        `train_step`, `means` (`RunningMeans`), `pictures`, `histograms` and `filters`, as in `lts.models`.
      batches: (input context, first step, number of steps) to this context's share of the batches for `train_step`.
      samples: a batch for pictures and histograms.
      evaluation: returns the online evaluation of the model, called on the chief; None: there is none.
      start: called once with the model and whether a checkpoint was restored.
      check_data: called when TensorFlow fails; raises if the data are the reason.
      extend: whether an existing run of fewer steps is trained for longer.
      group_size: consecutive images of the global batch that must be on one replica.
    """

    record: RunRecord
    section: str
    steps: int
    build: Callable[[], keras.Model]
    batches: Callable[[tf.distribute.InputContext, int, int], tf.data.Dataset]
    samples: Any
    evaluation: Callable[[keras.Model], OnlineEvaluation] | None = None
    start: Callable[[keras.Model, bool], None] = lambda model, restored: None
    check_data: Callable[[], None] = lambda: None
    extend: bool = False
    group_size: int = 1

    @property
    def title(self) -> str:
        """Name of the run in messages."""
        # A classifier that begins with the weights of an export is fine-tuned.
        return "finetune" if self.record.details.get("features") else self.record.stage

    @property
    def settings(self) -> TrainingConfig:
        """Batch size, seed and schedule."""
        return getattr(self.record.config, self.section)


def run(
    task: Task,
    workdir: str | pathlib.Path,
    options: MonitoringOptions = MonitoringOptions(),  # noqa: B008 (frozen)
    strategy: tf.distribute.Strategy | None = None,
) -> Result:
    """Train a task, or resume its last checkpoint.

    Args:
      task: what is trained.
      workdir: folder of the run; an existing run resumes. Several machines must all see it.
      options: intervals of monitoring and checkpoints.
      strategy: from `build_strategy`; None builds the one for "auto".

    Returns:
      How the call ended. A finished run returns at once.

    Raises:
      ConfigError, TrainingError: as `lts.training.train` raises them.
    """
    began = time.monotonic()
    strategy = strategy or build_strategy()
    _check_batch(task.settings.batch_size, strategy.num_replicas_in_sync, task.group_size)
    keras.utils.set_random_seed(task.settings.seed)
    machines = Machines(strategy)
    with machines.noticing_lost(), strategy.scope():
        model = task.build()
    sources.keep()  # some functions are traced at the end only

    # One process locks the folder: the only one, or the chief of several machines.
    lock = run_dir.locked(workdir) if machines.chief else contextlib.nullcontext()
    with machines.noticing_lost(), lock:
        checkpoints = Checkpoints(workdir, checkpoint_items(model), options.keep_checkpoints)
        task = _restore(task, model, checkpoints, machines, workdir, options)
        if machines.chief:
            begin_log(workdir)
        step = steps_done(model)
        if step >= task.steps:
            print_result(f"{task.title}: finished before, {step} of {task.steps} steps are in {workdir}")
            end_log()
            return Result(step, task.steps, time.monotonic() - began)
        if machines.chief:
            settings = describe(task.record.config, *SECTIONS, task.section)
            print(f"{task.title}: {settings}; all settings: {os.path.join(workdir, 'config.json')}", flush=True)
        if step:
            print(f"{task.title}: resuming at step {step:,} of {task.steps:,}", flush=True)
        signal = _train(make_loop(task, model, machines, checkpoints, options), step, task)
        if machines.chief:
            run_dir.write_run_config(workdir, task.record)  # with the data of the last checkpoint

    step = steps_done(model)
    seconds = time.monotonic() - began
    state = "stopped" if signal else "finished"
    advice = "; run the same command again to resume" if signal else ""
    print_result(
        f"{task.title}: {state}: {step} of {task.steps} steps in {format_time(seconds)}, "
        f"checkpoint in {checkpoints.folder}{advice}"
    )
    end_log()  # an error before this line belongs to the log
    return Result(step, task.steps, seconds, signal)


def _train(loop: Loop, step: int, task: Task) -> int | None:
    """Return the signal that stopped the loop, or None."""
    try:
        return loop.run(step, task.steps)
    except tf.errors.OpError:
        # An image that broke during training is reported by its name.
        task.check_data()
        raise
    finally:
        loop.close()


def _check_batch(batch_size: int, replicas: int, group_size: int) -> None:
    """Raise `ConfigError` unless every replica gets the same number of whole groups."""
    unit = replicas * group_size
    if batch_size % unit == 0:
        return
    smaller = batch_size // unit * unit
    larger = smaller + unit
    sizes = f"{smaller} or {larger}" if smaller else f"{larger}"
    groups = f" times the {group_size} images that the corruption keeps together" if group_size > 1 else ""
    raise ConfigError(
        f"batch_size counts the images of all replicas and must be a multiple of their number, {replicas}{groups}. "
        f"Received: batch_size={batch_size}. Use {sizes}."
    )


def _check_same(machines: Machines, name: str, text: str) -> None:
    """Raise `TrainingError` unless all machines have the same text."""
    digest = int(hashlib.sha256(text.encode()).hexdigest()[:12], 16)
    if len(set(machines.gather([digest])[:, 0])) > 1:
        raise TrainingError(f"the machines of TF_CONFIG do not have the same {name}. Give the same flags to all.")


def _restore(
    task: Task, model, checkpoints: Checkpoints, machines: Machines, workdir, options: MonitoringOptions
) -> Task:
    """Restore on all machines; return the completed task."""
    # NB: machines with different settings wait for each other forever. Everything that could differ is compared.
    restored = False
    if machines.chief:
        task = dataclasses.replace(task, record=run_dir.open_run(workdir, task.record, task.extend))
        restored = checkpoints.restore()
    record = task.record
    # The first comparison also makes the other machines wait until the chief has opened the folder.
    _check_same(machines, "configuration", f"{record.stage} {record.config.to_json()}")
    _check_same(machines, "data", str(record.data))
    _check_same(machines, "intervals", repr(options))
    if not machines.chief:
        restored = checkpoints.restore()
    task.start(model, restored)
    _check_same(machines, "checkpoints (is --workdir on a file system that all see?)", str(steps_done(model)))
    if machines.count > 1:
        frozen = [variable.numpy().tobytes() for variable in model.non_trainable_variables]
        _check_same(machines, "frozen weights", str(frozen))
    return task


def make_loop(
    task: Task, model: keras.Model, machines: Machines, checkpoints: Checkpoints, options: MonitoringOptions
) -> Loop:
    """Return the loop that trains a restored model."""
    step = steps_done(model)
    strategy = machines.strategy
    batches = strategy.distribute_datasets_from_function(lambda share: task.batches(share, step, task.steps - step))
    is_evaluated = machines.chief and options.probe_steps and task.evaluation
    return Loop(
        model=model,
        machines=machines,
        batches=batches,
        checkpoints=checkpoints,
        monitor=_monitor(task, model, checkpoints.folder.parent, step) if machines.chief else None,
        samples=task.samples,
        evaluation=task.evaluation(model) if is_evaluated else None,
        options=options,
    )


def _monitor(task: Task, model: keras.Model, workdir: pathlib.Path, step: int) -> Monitor:
    """Return the run's monitor."""
    monitor = Monitor(workdir, task.title, step, task.steps, task.settings.batch_size)
    if step == task.record.first_step:  # a new run
        monitor.configuration(task.record, task.section)
        monitor.graph(tf.function(model.pictures).get_concrete_function(task.samples).graph)
    return monitor


def checkpoint_items(model: keras.Model) -> dict[str, Any]:
    """Return what a checkpoint holds, by name."""
    # The running means are included: without them the first line of metrics after a resume would differ.
    names = ("encoder", "decoder", "repair", "discriminator", "network", "critic", "means")
    names += ("optimizer", "g_optimizer", "inpainter_optimizer", "critic_optimizer")
    return {name: getattr(model, name) for name in names if getattr(model, name, None) is not None}
