"""Pre-training from a configuration: both stages of the method, and two others that see the same images."""

import pathlib

import keras
import tensorflow as tf

from lts import data
from lts.config import Config, TrainingConfig, differences
from lts.config.options import MonitoringOptions
from lts.export.saved_model import LoadedModel
from lts.models.autoencoder import Autoencoder
from lts.models.classifier import ROTATIONS, RotationPredictor, SupervisedClassifier
from lts.models.gan import DamageRepairGAN
from lts.networks.variables import variables_by_path
from lts.training import imported, run_dir, task
from lts.training.loop import steps_done
from lts.training.optimizers import build_optimizer
from lts.training.run_dir import TrainingError
from lts.training.task import Result, Task
from lts.utils import provenance

PICTURES = 8  # images in the picture strip
SECTION = {  # of the configuration, by stage
    "autoencoder": "autoencoder_training",
    "gan": "gan_training",
    "rotation": "gan_training",
    "supervised": "gan_training",
}
CLASSIFIERS = ("rotation", "supervised")


def train(
    config: Config,
    stage: str,
    source: data.ImageDataset,
    workdir: str | pathlib.Path,
    *,
    autoencoder: str | pathlib.Path | None = None,
    features: LoadedModel | None = None,
    head: str = "fc",
    frozen: int = 0,
    options: MonitoringOptions = MonitoringOptions(),  # noqa: B008 (frozen)
    strategy: tf.distribute.Strategy | None = None,
) -> Result:
    """Trains one stage, or goes on with it where it stopped.

    Args:
      config: the run's configuration.
      stage: "autoencoder" (stage 1) or "gan" (stage 2); or, with the schedule of stage 2, the same backbone as a
        classifier: "rotation" (which way is up; no labels) or "supervised" (labels).
      source: the images.
      workdir: the run's folder; a run that is in it goes on. Several machines must all see it.
      autoencoder: stage 2 alone: workdir of stage 1.
      features: classifiers alone: an export of the same backbone, with whose weights it begins; None: at random.
      head: classifiers alone: "fc", "linear" or "pooled", see `BackboneClassifier`.
      frozen: classifiers alone: number of first convolutions that do not train.
      options: intervals of monitoring and checkpoints.
      strategy: from `build_strategy`; None: as it builds for "auto".

    Returns:
      How the call ended. A finished run returns at once.

    Raises:
      ConfigError: a batch that the replicas do not divide.
      TrainingError: a workdir of another configuration or in use, an autoencoder or features that do not fit, images
        without labels for "supervised", a loss that is not finite, a machine that was lost; the last good checkpoint is
        left in place.
      ExportError: features of another network than a backbone.
      DataError: an image that cannot be read any more.
    """
    if autoencoder is not None:
        _check_autoencoder(config, autoencoder)
    if stage == "gan":
        imported.check_frozen(workdir, autoencoder)
    beginning = {"autoencoder": autoencoder, "features": features, "head": head, "frozen": frozen}
    return task.run(make_task(config, stage, source, workdir, **beginning), workdir, options, strategy)


def make_task(
    config: Config,
    stage: str,
    source: data.ImageDataset,
    workdir,
    autoencoder=None,
    features: LoadedModel | None = None,
    head: str = "fc",
    frozen: int = 0,
) -> Task:
    """What `train` runs; arguments as there."""
    settings = getattr(config, SECTION[stage])
    total, labelled = _total_steps(settings, source), stage == "supervised"
    if labelled and source.labels is None:
        raise TrainingError(f"the images have no labels to learn from: {source.name} ({source.split})")
    classes = len(source.class_names) if labelled else ROTATIONS
    record = _record(config, stage, source, autoencoder)
    if labelled:
        record["classes"] = classes
    if stage in CLASSIFIERS:
        record |= {"head": head, "frozen": frozen, "features": features and features.fingerprint}
    backbone = _backbone(config, features) if features else None

    def batches(share: tf.distribute.InputContext, first_step: int, steps: int) -> tf.data.Dataset:
        return data.training_batches(
            source,
            config.image,
            batch_size=settings.batch_size,
            seed=settings.seed,
            first_step=first_step,
            steps=steps,
            share=share,
            labels=labelled,
        )

    def start(model: keras.Model, restored: bool) -> None:
        unsettled = not restored or imported.untrained(workdir, steps_done(model), *imported.FROZEN)
        if unsettled and autoencoder is not None:
            done = run_dir.restore_networks(autoencoder, encoder=model.encoder, decoder=model.decoder)
            print(f"gan: encoder and decoder of step {done} of {autoencoder}", flush=True)
        if backbone is not None and not restored:
            _copy(backbone, model.network.backbone)
            print(f"{stage}: begins with the weights of {features.path}", flush=True)

    return Task(
        record=record,
        section=SECTION[stage],
        steps=total,
        build=lambda: build_model(config, stage, total, classes, head, frozen),
        batches=batches,
        samples=_samples(config, source, labelled),
        start=start,
        check_data=source.check_files,  # names the image that broke since it was opened
    )


def _total_steps(settings: TrainingConfig, source: data.ImageDataset) -> int:
    """Steps of the whole run; raises `TrainingError` when an epoch holds none."""
    total = settings.steps or source.num_examples // settings.batch_size * settings.epochs
    if total == 0:
        raise TrainingError(
            f"{source.num_examples} images are less than one batch of {settings.batch_size}: "
            "lower --batch_size or give --steps"
        )
    return total


def _record(config: Config, stage: str, source: data.ImageDataset, autoencoder) -> dict:
    """What WORKDIR/config.json says of the run."""
    record = {"stage": stage, "dataset": source.name, "split": source.split, "config": config}
    record["data"] = {"images": source.num_examples, "fingerprint": source.fingerprint}
    record["hardware"], record["commit"] = provenance.hardware(), provenance.commit()
    if autoencoder is not None:
        record["autoencoder"] = str(autoencoder)
    return record


def _samples(config: Config, source: data.ImageDataset, labelled: bool):
    """Test views [PICTURES, size, size, 3] in [-1, 1] of the first images, with their labels if `labelled`."""
    views = next(iter(data.test_batches(source, config.image, batch_size=PICTURES, limit=PICTURES)))
    images = tf.cast(views, tf.float32) / 127.5 - 1
    return (images, tf.constant(source.labels[:PICTURES], tf.int32)) if labelled else images


def build_model(
    config: Config, stage: str, total_steps: int = 1, classes: int = ROTATIONS, head: str = "fc", frozen: int = 0
) -> keras.Model:
    """The stage's model with its optimizers, all variables made.

    Args:
      config: the run's configuration.
      stage: one of `SECTION`.
      total_steps: for the learning rate's schedule.
      classes: that "supervised" tells apart.
      head: of classifiers.
      frozen: of classifiers: number of first convolutions that do not train.
    """
    size = config.image.image_size
    settings = getattr(config, SECTION[stage])
    dtype = "mixed_bfloat16" if settings.precision == "bfloat16" else "float32"
    optimizer = build_optimizer(settings, total_steps, settings.learning_rate)
    if stage == "gan":
        model = DamageRepairGAN(config, dtype=dtype)
        model.build((None, size, size, 3))
        g_optimizer = build_optimizer(settings, total_steps, settings.repair_learning_rate)
        model.compile(optimizer, g_optimizer)
        optimizer.build(model.discriminator.trainable_variables)
        g_optimizer.build(model.repair.trainable_variables if model.repair else [])
        return model
    if stage == "autoencoder":
        model = Autoencoder(config, dtype=dtype)
    elif stage == "rotation":
        model = RotationPredictor(config, head, frozen, dtype=dtype)
    else:
        model = SupervisedClassifier(config, classes, head, frozen, dtype=dtype)
    model.build((None, size, size, 3))
    model.compile(optimizer)
    optimizer.build(model.trainable_variables)
    return model


def _check_autoencoder(config: Config, autoencoder) -> None:
    """Raises `TrainingError` unless `autoencoder` is a stage 1 run with the same networks and image size."""
    record = run_dir.read_run_config(autoencoder)
    if record["stage"] != "autoencoder":
        raise TrainingError(f"{autoencoder} is a run of stage {record['stage']!r}, not of an autoencoder")
    changed = differences(record["config"], config, "frozen_autoencoder")
    if changed:
        raise TrainingError(f"{autoencoder} was trained with another configuration ({'; '.join(changed)})")
    imported.check_whole(autoencoder)


def _backbone(config: Config, features: LoadedModel) -> keras.Model:
    """The backbone of an export; raises `TrainingError` unless it is the configuration's."""
    backbone = features.keras_model().backbone
    changed = differences(features.config, config, "backbone")
    if changed:
        raise TrainingError(f"{features.path} has another backbone than the configuration ({'; '.join(changed)})")
    return backbone


def _copy(network: keras.Model, other: keras.Model) -> None:
    """The weights and statistics of a network into another of the same kind."""
    values = variables_by_path(network)
    for path, variable in variables_by_path(other).items():
        variable.assign(values[path])
