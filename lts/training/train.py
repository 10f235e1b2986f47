"""The one way to train: both stages, new or going on, on any number of devices."""

import contextlib
import dataclasses
import hashlib
import pathlib
import time

import keras
import tensorflow as tf

from lts import data, provenance
from lts.config import Config, ConfigError, StageConfig, differences
from lts.models.autoencoder import Autoencoder
from lts.models.gan import DamageRepairGAN
from lts.options import Options
from lts.training import imported
from lts.training import workdir as runs
from lts.training.loop import Loop, steps_done
from lts.training.monitor import Monitor, format_time
from lts.training.optimizers import build_optimizer
from lts.training.strategy import Machines, build_strategy
from lts.training.workdir import Checkpoints, TrainingError

PICTURES = 8  # images in the picture strip
SECTION = {"autoencoder": "stage_1", "gan": "stage_2"}  # of the configuration, by stage


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
    options: Options = Options(),  # noqa: B008 (frozen)
    strategy: tf.distribute.Strategy | None = None,
) -> Result:
    """Trains one stage, or goes on with it where it stopped.

    Args:
      config: the run's configuration.
      stage: "autoencoder" (stage 1) or "gan" (stage 2).
      source: the images.
      workdir: the run's folder; a run that is in it goes on. Several machines must all see it.
      autoencoder: stage 2 alone: workdir of stage 1.
      options: intervals of monitoring and checkpoints.
      strategy: from `build_strategy`; None: as it builds for "auto".

    Returns:
      How the call ended. A finished run returns at once.

    Raises:
      ConfigError: a batch that the replicas do not divide.
      TrainingError: a workdir of another configuration or in use, an autoencoder that does not fit, a loss that is
        not finite, a machine that was lost; the last good checkpoint is left in place.
      DataError: an image that cannot be read any more.
    """
    began = time.monotonic()
    strategy = strategy or build_strategy()
    settings = getattr(config, SECTION[stage])
    total = _total_steps(settings, source)
    _check_batch(settings.batch_size, strategy.num_replicas_in_sync)
    if autoencoder is not None:
        _check_autoencoder(config, autoencoder)
    if stage == "gan":
        imported.check_frozen(workdir, autoencoder)
    keras.utils.set_random_seed(settings.seed)
    machines, record = Machines(strategy), _record(config, stage, source, autoencoder)
    with machines.noticing_lost(), strategy.scope():
        model = build_model(config, stage, total)
    with machines.noticing_lost(), runs.locked(workdir) if machines.chief else contextlib.nullcontext():
        checkpoints = Checkpoints(workdir, checkpoint_items(model), options.keep_checkpoints)
        record = _restore(model, checkpoints, machines, workdir, record, options)
        step = steps_done(model)
        if step >= total:
            print(f"{stage}: finished before, {step} of {total} steps are done in {workdir}", flush=True)
            return Result(step, total, time.monotonic() - began)
        loop = make_loop(config, stage, source, model, total, machines, checkpoints, options)
        signal = _run(loop, step, total, source)
        if machines.chief:
            runs.write_record(workdir, record)  # the data of the last checkpoint
    step, seconds = steps_done(model), time.monotonic() - began
    state = f"{step} of {total} steps, {format_time(seconds)}, checkpoint in {checkpoints.folder}"
    print(f"{stage}: {'stopped' if signal else 'done'}: {state}", flush=True)
    return Result(step, total, seconds, signal)


def _run(loop: Loop, step: int, total: int, source: data.Source) -> int | None:
    """Runs the loop to its end; the signal that stopped it, or None."""
    try:
        return loop.run(step, total)
    except tf.errors.OpError:
        source.check_files()  # names the image that broke since it was opened
        raise
    finally:
        loop.close()


def _total_steps(settings: StageConfig, source: data.Source) -> int:
    """Steps of the whole run; raises `TrainingError` when an epoch holds none."""
    total = settings.steps or source.num_examples // settings.batch_size * settings.epochs
    if total == 0:
        raise TrainingError(
            f"{source.num_examples} images are less than one batch of {settings.batch_size}: "
            "lower --batch_size or give --steps"
        )
    return total


def _check_batch(batch_size: int, replicas: int) -> None:
    """Raises `ConfigError` unless the replicas divide the global batch."""
    if batch_size % replicas:
        fits = [size for size in (batch_size // replicas * replicas, -(-batch_size // replicas) * replicas) if size]
        sizes = " and ".join(map(str, fits))
        raise ConfigError(
            f"batch_size is that of all replicas together and must be a multiple of their number, {replicas}: "
            f"the next that fit are {sizes}. Received: batch_size={batch_size}"
        )


def _record(config: Config, stage: str, source: data.Source, autoencoder) -> dict:
    """What WORKDIR/config.json says of the run."""
    record = {"stage": stage, "dataset": source.name, "split": source.split, "config": config}
    record["data"] = {"images": source.num_examples, "fingerprint": source.fingerprint}
    record["hardware"], record["commit"] = provenance.hardware(), provenance.commit()
    if autoencoder is not None:
        record["autoencoder"] = str(autoencoder)
    return record


def _check_same(machines: Machines, what: str, text: str) -> None:
    """Raises `TrainingError` unless all machines come with the same text."""
    digest = int(hashlib.sha256(text.encode()).hexdigest()[:12], 16)
    if len(set(machines.gather([digest])[:, 0])) > 1:
        raise TrainingError(f"the machines of TF_CONFIG do not have the same {what}: give all the same flags")


def _restore(model, checkpoints: Checkpoints, machines: Machines, workdir, record: dict, options: Options) -> dict:
    """Claims the workdir and brings the model to where the run stands, the same on all machines; the run's record.

    A machine that did something else than the others would wait for them for ever.
    """
    restored = False
    if machines.chief:
        record = runs.claim(workdir, record)
        restored = checkpoints.restore()
    _check_same(machines, "configuration", f"{record['stage']} {record['config'].to_json()}")  # waits for the chief
    _check_same(machines, "data", str(record["data"]))
    _check_same(machines, "intervals", repr(options))
    if not machines.chief:
        restored = checkpoints.restore()
    unsettled = not restored or imported.untrained(workdir, steps_done(model), *imported.FROZEN)
    if unsettled and "autoencoder" in record:
        done = runs.restore_networks(record["autoencoder"], encoder=model.encoder, decoder=model.decoder)
        print(f"gan: encoder and decoder of step {done} of {record['autoencoder']}", flush=True)
        _check_same(machines, "autoencoder", str([v.numpy().tobytes() for v in model.encoder.variables]))
    _check_same(machines, "checkpoints (is --workdir on a file system that all see?)", str(steps_done(model)))
    return record


def make_loop(
    config: Config,
    stage: str,
    source: data.Source,
    model: keras.Model,
    total: int,
    machines: Machines,
    checkpoints: Checkpoints,
    options: Options,
) -> Loop:
    """The loop that trains a model from the step it has reached to `total`."""
    settings, step = getattr(config, SECTION[stage]), steps_done(model)
    workdir = checkpoints.folder.parent
    return Loop(
        model=model,
        machines=machines,
        batches=_batches(config, settings, source, machines.strategy, step, total),
        checkpoints=checkpoints,
        monitor=_monitor(config, stage, source, model, workdir, step, total) if machines.chief else None,
        samples=_samples(config, source),
        options=options,
    )


def _monitor(config: Config, stage: str, source: data.Source, model, workdir, step: int, total: int) -> Monitor:
    """The run's monitor; a new run's configuration and graph are written."""
    section, size = SECTION[stage], config.image.image_size
    monitor = Monitor(pathlib.Path(workdir), stage, step, total, getattr(config, section).batch_size)
    if step == imported.first_step(workdir):
        monitor.configuration(config, section, dataset=source.name, split=source.split)
        monitor.graph(tf.function(model.pictures).get_concrete_function(tf.TensorSpec([2, size, size, 3])).graph)
    return monitor


def _samples(config: Config, source: data.Source) -> tf.Tensor:
    """Test views [PICTURES, size, size, 3] in [-1, 1] of the first images."""
    images = next(iter(data.test_batches(source, config.image, batch_size=PICTURES, limit=PICTURES)))
    return tf.cast(images, tf.float32) / 127.5 - 1


def _batches(config: Config, settings: StageConfig, source: data.Source, strategy, step: int, total: int):
    """The steps' batches, each replica's share made on its own machine and nowhere else."""

    def share(context: tf.distribute.InputContext) -> tf.data.Dataset:
        return data.training_batches(
            source,
            config.image,
            batch_size=settings.batch_size,
            seed=settings.seed,
            first_step=step,
            steps=total - step,
            replicas=context.num_replicas_in_sync,
            machine=(context.input_pipeline_id, context.num_input_pipelines),
        )

    return strategy.distribute_datasets_from_function(share)


def build_model(config: Config, stage: str, total_steps: int = 1) -> keras.Model:
    """The stage's model with its optimizers, all variables made.

    Args:
      config: the run's configuration.
      stage: "autoencoder" or "gan".
      total_steps: for the learning rate's schedule.
    """
    size = config.image.image_size
    settings = getattr(config, SECTION[stage])
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
    """What a checkpoint of the model holds: its networks, optimizers and running means by name."""
    names = ("encoder", "decoder", "repair", "discriminator", "optimizer", "g_optimizer", "means")
    return {name: getattr(model, name) for name in names if getattr(model, name, None) is not None}


def _check_autoencoder(config: Config, autoencoder) -> None:
    """Raises `TrainingError` unless `autoencoder` is a stage 1 run with the same networks and image size."""
    record = runs.read_record(autoencoder)
    if record["stage"] != "autoencoder":
        raise TrainingError(f"{autoencoder} is a run of stage {record['stage']!r}, not of an autoencoder")
    decisive = ("image.image_size", "autoencoder.encoder_", "autoencoder.bn_epsilon")
    changed = [line for line in differences(record["config"], config) if line.startswith(decisive)]
    if changed:
        raise TrainingError(f"{autoencoder} was trained with another configuration ({'; '.join(changed)})")
    imported.check_whole(autoencoder)
