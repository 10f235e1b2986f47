"""The one training loop: both stages, with resume, monitoring and a clean stop."""

import dataclasses
import pathlib
import re
import time

import keras
import tensorflow as tf

from lts import data
from lts.config import Config, StageConfig, differences
from lts.models.autoencoder import Autoencoder
from lts.models.gan import DamageRepairGAN
from lts.training import workdir as runs
from lts.training.monitor import Monitor, format_time
from lts.training.optimizers import build_optimizer
from lts.training.stopping import stop_on_signals
from lts.training.workdir import Checkpoints, TrainingError

SECONDS_A_CALL = 1.0  # steps run inside TensorFlow for about this long before Python looks up
PICTURES = 8  # images in the picture strip


@dataclasses.dataclass(frozen=True)
class Result:
    """How a call of `train` ended.

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


def train(
    config: Config,
    stage: str,
    source: data.Source,
    workdir: str | pathlib.Path,
    *,
    autoencoder: str | pathlib.Path | None = None,
    log_steps: int = 50,
    picture_steps: int = 500,
    checkpoint_minutes: float = 10.0,
    strategy: tf.distribute.Strategy | None = None,
) -> Result:
    """Trains one stage, or goes on with it where it stopped.

    Args:
      config: the run's configuration.
      stage: "autoencoder" (stage 1) or "gan" (stage 2).
      source: the images.
      workdir: the run's folder; a run that is in it goes on.
      autoencoder: stage 2 alone: workdir of stage 1.
      log_steps: steps between two lines of scalars.
      picture_steps: steps between two picture strips.
      checkpoint_minutes: minutes between two checkpoints; one is written at the end in any case.
      strategy: how to distribute; None: MirroredStrategy over the GPUs, or nothing where there is none.

    Returns:
      How the call ended. A finished run returns at once.

    Raises:
      TrainingError: a workdir of another configuration, an autoencoder that does not fit, a loss that is not
        finite; the last good checkpoint is left in place.
    """
    began = time.monotonic()
    workdir = pathlib.Path(workdir)
    settings = config.stage_1 if stage == "autoencoder" else config.stage_2
    total = _total_steps(settings, source)
    _claim(config, stage, source, workdir, autoencoder)
    keras.utils.set_random_seed(settings.seed)
    strategy = strategy or _default_strategy()
    with strategy.scope():
        model = build_model(config, stage, total)
    checkpoints = Checkpoints(workdir, checkpoint_items(model))
    if not checkpoints.restore() and stage == "gan":
        done = runs.restore_networks(autoencoder, encoder=model.encoder, decoder=model.decoder)
        print(f"gan: encoder and decoder of step {done} of {autoencoder}", flush=True)
    step = steps_done(model)
    if step >= total:
        print(f"{stage}: finished before, {step} of {total} steps are done in {workdir}", flush=True)
        return Result(step, total, time.monotonic() - began)
    monitor = Monitor(workdir, stage, step, total, settings.batch_size)
    monitor.text("configuration", f"```\n{config.to_json()}\n```")
    batches = data.training_batches(
        source, config.image, batch_size=settings.batch_size, seed=settings.seed, first_step=step, steps=total - step
    )
    samples = next(iter(data.test_batches(source, config.image, batch_size=PICTURES, limit=PICTURES)))
    samples = tf.cast(samples, tf.float32) / 127.5 - 1  # [PICTURES, size, size, 3] in [-1, 1]
    loop = _Loop(model, strategy, batches, checkpoints, monitor, samples, log_steps, picture_steps, checkpoint_minutes)
    try:
        signal = loop.run(step, total)
    finally:
        monitor.close()
    step, seconds = steps_done(model), time.monotonic() - began
    state = f"{step} of {total} steps, {format_time(seconds)}, checkpoint in {checkpoints.folder}"
    print(f"{stage}: {'stopped' if signal else 'done'}: {state}", flush=True)
    return Result(step, total, seconds, signal)


def _total_steps(settings: StageConfig, source: data.Source) -> int:
    """Steps of the whole run; raises `TrainingError` when an epoch holds none."""
    total = settings.steps or source.num_examples // settings.batch_size * settings.epochs
    if total == 0:
        raise TrainingError(
            f"{source.num_examples} images are less than one batch of {settings.batch_size}: "
            "lower --batch_size or give --steps"
        )
    return total


def _claim(config: Config, stage: str, source: data.Source, workdir: pathlib.Path, autoencoder) -> None:
    """Makes the workdir this run's; raises `TrainingError` when it is another's, or the autoencoder does not fit."""
    record = {"stage": stage, "dataset": source.name, "split": source.split, "config": config}
    record["data"] = {"images": source.num_examples, "fingerprint": source.fingerprint}
    if autoencoder is not None:
        record["autoencoder"] = str(autoencoder)
        _check_autoencoder(config, autoencoder)
    runs.claim(workdir, record)


def _default_strategy() -> tf.distribute.Strategy:
    if tf.config.list_physical_devices("GPU"):
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def build_model(config: Config, stage: str, total_steps: int = 1) -> keras.Model:
    """The stage's model with its optimizers, all variables made.

    Args:
      config: the run's configuration.
      stage: "autoencoder" or "gan".
      total_steps: for the learning rate's schedule.
    """
    size = config.image.image_size
    settings = config.stage_1 if stage == "autoencoder" else config.stage_2
    dtype = "mixed_bfloat16" if settings.precision == "bfloat16" else "float32"
    model = (Autoencoder if stage == "autoencoder" else DamageRepairGAN)(config, dtype=dtype)
    model.build((None, size, size, 3))
    optimizer = build_optimizer(settings, total_steps, settings.learning_rate)
    if stage == "autoencoder":
        model.compile(optimizer)
        optimizer.build(model.trainable_variables)
        return model
    g_optimizer = build_optimizer(settings, total_steps, settings.repair_learning_rate)
    model.compile(optimizer, g_optimizer)
    optimizer.build(model.discriminator.trainable_variables)
    g_optimizer.build(model.repair.trainable_variables if model.repair else [])
    return model


def checkpoint_items(model: keras.Model) -> dict:
    """What a checkpoint of the model holds: its networks and optimizers by name."""
    names = ("encoder", "decoder", "repair", "discriminator", "optimizer", "g_optimizer")
    return {name: getattr(model, name) for name in names if getattr(model, name, None) is not None}


def steps_done(model: keras.Model) -> int:
    """Training steps the model has behind it."""
    return int(keras.ops.convert_to_numpy(model.optimizer.iterations))


def _check_autoencoder(config: Config, autoencoder) -> None:
    """Raises `TrainingError` unless `autoencoder` is a stage 1 run with the same networks and image size."""
    record = runs.read_record(autoencoder)
    if record["stage"] != "autoencoder":
        raise TrainingError(f"{autoencoder} is a run of stage {record['stage']!r}, not of an autoencoder")
    decisive = ("image.image_size", "autoencoder.encoder_", "autoencoder.bn_epsilon")
    changed = [line for line in differences(record["config"], config) if line.startswith(decisive)]
    if changed:
        raise TrainingError(f"{autoencoder} was trained with another configuration ({'; '.join(changed)})")


@dataclasses.dataclass
class _Loop:
    """Runs steps in TensorFlow and, between them, what is due."""

    model: keras.Model
    strategy: tf.distribute.Strategy
    batches: tf.data.Dataset
    checkpoints: Checkpoints
    monitor: Monitor
    samples: tf.Tensor
    log_steps: int
    picture_steps: int
    checkpoint_minutes: float

    def run(self, step: int, total: int) -> int | None:
        """Trains from `step` to `total`; returns the signal that stopped it, or None."""
        iterator = iter(self.strategy.experimental_distribute_dataset(self.batches))
        run_steps, pictures = self._compiled(), tf.function(self.model.pictures)
        call, saved = 1, time.monotonic()
        with stop_on_signals() as stop:
            while step < total and not stop:
                due = min(self.log_steps - step % self.log_steps, self.picture_steps - step % self.picture_steps)
                count = min(call, due, total - step)
                began = time.monotonic()
                self._guarded(run_steps, iterator, count)
                first, step = call == 1, step + count
                if first:
                    self.monitor.restart_clock(step)  # the first call compiled
                    call = 2
                else:
                    call = max(2, round(SECONDS_A_CALL * count / (time.monotonic() - began)))
                self.monitor.advance(count)
                if step % self.log_steps == 0 or step == total:
                    self.monitor.log(step, self._scalars())
                if step % self.picture_steps == 0 or step == total:
                    self.monitor.pictures(step, pictures(self.samples))
                if time.monotonic() - saved > 60 * self.checkpoint_minutes and step < total:
                    self.checkpoints.save(step)
                    saved = time.monotonic()
            self.checkpoints.save(step)
            return stop.signal

    def _compiled(self):
        @tf.function
        def run_steps(iterator, count):
            for _ in tf.range(count):
                self.strategy.run(self.model.train_step, (next(iterator),))

        return run_steps

    def _guarded(self, run_steps, iterator, count: int) -> None:
        """Runs steps; a loss that is not finite becomes a `TrainingError` that names term and step."""
        try:
            run_steps(iterator, tf.constant(count))
        except tf.errors.InvalidArgumentError as error:
            term = re.search(r"loss term '\w+' is not finite", str(error))
            if term is None:
                raise
            newest = self.checkpoints.manager.latest_checkpoint or "none yet"
            step = steps_done(self.model) + 1
            raise TrainingError(f"{term[0]} at step {step}; the last good checkpoint: {newest}") from None

    def _scalars(self) -> dict:
        """Means since the last call, and the learning rates."""
        values = {}
        for name, mean in self.model.means.means.items():
            values[name] = float(keras.ops.convert_to_numpy(mean.result()))
            mean.reset_state()
        values["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        if getattr(self.model, "g_optimizer", None) is not None:
            values["repair_learning_rate"] = float(keras.ops.convert_to_numpy(self.model.g_optimizer.learning_rate))
        return values
