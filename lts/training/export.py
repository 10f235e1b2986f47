"""Export of a run or of random weights.

This module knows runs and checkpoints. `lts.export.saved_model` writes what it is given.
"""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lts import __version__, data
from lts.config import Config
from lts.config.stages import STAGES
from lts.data.pipeline import test_view
from lts.export import saved_model
from lts.export.choices import CALIBRATED, EXPORT, check_license
from lts.networks.autoencoder import Encoder, batch_norm_config
from lts.networks.backbones.base import Backbone
from lts.networks.discriminator import BackboneClassifier, Discriminator
from lts.training import run_dir
from lts.training.checkpoints import TrainingError
from lts.training.run_record import RunRecord
from lts.utils import provenance
from lts.utils.json_files import NUMBER, JsonError, read_json_lines
from lts.utils.outputs import dataset_folder
from lts.utils.text import warn

STATISTICS_STEPS = 200  # batches of photographs for batch norm statistics
STATISTICS_BATCH = 64  # images per batch
CALIBRATION_IMAGES = 256  # on which the ranges of 8-bit integers are measured
SPOTTED_PHOTOGRAPHS = 512  # most photographs on which false alarms are counted


def export_run(
    workdir: str | os.PathLike,
    output: str | os.PathLike,
    weights: str = "raw",
    formats: Sequence[str] = (),
    source: data.ImageDataset | None = None,
    recalibrate: bool | None = None,
    data_dir: str | None = None,
    license: str | None = None,
) -> int:
    """Export the features that a run has trained.

    A "gan" run exports its discriminator, an "autoencoder" run its encoder, other runs their backbone.

    Args:
      workdir: folder of the run. Its newest readable checkpoint is exported.
      output: folder of the SavedModel.
      weights: "raw", or "averaged" for the moving averages of the weights (`ema_decay`). Batch norm statistics are
        the run's either way.
      formats: further formats, see `lts.export.formats`.
      source: photographs for `recalibrate_batch_norm` and `tflite_int8`; None opens the training images of the run.
      recalibrate: overrides `recalibrate_batch_norm` of the run.
      data_dir: folder of tfds' data sets, if the training images were moved; None: that of the training.
      license: of the model, as the Hugging Face hub names licences; None: not stated.

    Returns:
      The step of the checkpoint. A run that has not reached its last step prints a warning.

    Raises:
      TrainingError: no run, no checkpoint, no averages in it, an imported run without trained features, or
        `recalibrate` for another stage than "gan" or without photographs.
      DataError: the photographs cannot be opened.
      LicenseError: the hub has no such names.
    """
    check_license(license)
    record = run_dir.read_run_config(workdir)
    if record.stage not in STAGES:
        raise TrainingError(f"a run of stage {record.stage!r} cannot be exported. Received: workdir={workdir}.")
    stage = STAGES[record.stage]
    config = record.config
    photographs = record.images_at if source is None else source.name
    EXPORT.check(output, [workdir, record.autoencoder, data_dir, dataset_folder(photographs)])
    if recalibrate is not None:
        config = config.replace(recalibrate_batch_norm=recalibrate)
        if recalibrate and not stage.adversarial:
            raise TrainingError(
                f"statistics of stage {record.stage!r} are those of photographs already. Received: {workdir}"
            )
    averaged = weights == "averaged"
    if averaged and not getattr(config, stage.section).ema_decay:
        raise TrainingError(f"the run kept no averages (ema_decay=0). Received: workdir={workdir}. Give --weights=raw.")
    network, name = _network(record)
    step = run_dir.restore_networks(workdir, averaged=averaged, **{name: network})
    _check_features(record, workdir, step, averaged)
    if step < record.total_steps and not record.never_trained:
        warn(f"the run is at step {step:,} of {record.total_steps:,}. Received: workdir={workdir}.")

    recalibrated = None
    statistics = None
    if stage.adversarial and config.discriminator.recalibrate_batch_norm:
        source = source or _training_images(record, workdir, data_dir)
        recalibrated = _recalibrated(record, workdir, averaged, source)
        statistics = f"{source.name}, split {source.split}"
    description = _describe_run(record, config, workdir, step, averaged, statistics)
    if license is not None:
        description["license"] = license
    calibration = None
    if CALIBRATED in formats:
        source = source or _training_images(record, workdir, data_dir)
        calibration = _calibration_images(config, source)
    # Photographs are opened for the statistics only: decoding a large data set takes minutes.
    if description["spot"] and source is not None:
        description["false_alarms"] = _count_false_alarms(network, config, source)
    saved_model.export(network, output, description, formats, recalibrated, calibration)
    return step


def export_random(
    config: Config,
    source: data.ImageDataset,
    seed: int,
    output: str | os.PathLike,
    formats: Sequence[str] = (),
    license: str | None = None,
) -> None:
    """Export an untrained discriminator, the baseline of every evaluation.

    Args:
      config: configuration of the discriminator.
      source: images for the statistics.
      seed: seed of the weights.
      output: folder of the SavedModel.
      formats: further formats, see `lts.export.formats`.
      license: of the model, as the Hugging Face hub names licences; None: not stated.
    """
    check_license(license)
    EXPORT.check(output, [dataset_folder(source.name)])
    discriminator = random_network(config, source, seed)
    description = _describe(
        config,
        weights="random",
        dataset=source.name,
        split=source.split,
        step=0,
        seed=seed,
        license=license,
        hardware=provenance.hardware(),
        commit=provenance.commit(),
    )
    calibration = _calibration_images(config, source) if CALIBRATED in formats else None
    saved_model.export(discriminator, output, description, formats, calibration=calibration)


def random_network(config: Config, source: data.ImageDataset, seed: int) -> Discriminator:
    """Return an untrained discriminator.

    Its batch norm statistics are estimated on augmented training images, so that its features have the scale of a
    trained network's.

    Args:
      config: configuration of the discriminator.
      source: images for the statistics.
      seed: seed of the weights.
    """
    keras.utils.set_random_seed(seed)
    discriminator, _ = _network(RunRecord("gan", config))
    _measure_statistics(discriminator, config, source, seed)
    return discriminator


def load_classifier(workdir: str | os.PathLike) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return a "supervised" or "rotation" run's classifier, for inference.

    Args:
      workdir: folder of the run. Its newest readable checkpoint is loaded.

    Returns:
      A map of uint8 images [B, H, W, 3] to logits [B, classes], float32 whatever the precision of training.

    Raises:
      TrainingError: no such run, or no checkpoint.
    """
    record = run_dir.read_run_config(workdir)
    if record.stage not in STAGES or not STAGES[record.stage].is_classifier:
        raise TrainingError(f"workdir is a run of stage {record.stage!r}, not of a classifier. Received: {workdir}.")
    network, name = _network(record)
    run_dir.restore_networks(workdir, **{name: network})
    return tf.function(lambda images: network(data.as_signed(images))["logits"])


def _network(record: RunRecord) -> tuple[keras.Model, str]:
    """Return the network to export and its name in the model."""
    config = record.config
    bn_config = batch_norm_config(config.autoencoder)
    name = STAGES[record.stage].network
    if name == "encoder":
        network = Encoder(config.autoencoder)
    elif name == "discriminator":
        # Of the further heads, users need that of the classes.
        heads = {"labels": len(record.details["classes"])} if "labels" in record.details else {}
        network = Discriminator(config.discriminator, config.mask_grid, bn_config, heads)
    else:
        classes = record.details.get("classes", STAGES[record.stage].classes)
        head = record.details.get("head", "fc")
        network = BackboneClassifier(config.discriminator, config.mask_grid, classes, head, bn_config=bn_config)
    network.build((None, config.image.image_size, config.image.image_size, 3))
    return network, name


def _check_features(record: RunRecord, workdir: str | os.PathLike, step: int, averaged: bool) -> None:
    """Check that an imported run has trained features and averages."""
    untrained = record.untrained(step, "discriminator/conv_")
    if untrained:
        lacking = f"was imported from a checkpoint without {untrained[0]}, and not trained since"
        raise TrainingError(f"the run {lacking}. Received: workdir={workdir}. Train it first.")
    if averaged and record.imported and step == record.first_step and not record.imported.averages:
        lacking = "was imported from a checkpoint without all averages"
        raise TrainingError(f"the run {lacking}. Received: workdir={workdir}. Give --weights=raw.")


def _training_images(record: RunRecord, workdir: str | os.PathLike, data_dir: str | None) -> data.ImageDataset:
    """Open the images that a run was trained on."""
    if record.dataset is None:
        lacking = "was imported without photographs to measure statistics on"
        raise TrainingError(f"the run {lacking}. Received: workdir={workdir}. Give --dataset.")
    options = {"data_dir": data_dir or record.place, "skip_broken_images": True}
    options["stored_size"] = record.details.get("stored_size", 0)
    try:
        source = data.open_source(record.images_at, record.split, **options)
    except data.DataError as error:
        raise TrainingError(
            f"{error} If the training images were moved, give --dataset, --split and --data_dir."
        ) from None
    return dataclasses.replace(source, name=record.dataset)


def _recalibrated(
    record: RunRecord, workdir: str | os.PathLike, averaged: bool, source: data.ImageDataset
) -> keras.Model:
    """Return a copy of the discriminator with statistics of photographs."""
    # A copy, because the signature `spot` keeps the statistics of training.
    discriminator, name = _network(record)
    run_dir.restore_networks(workdir, averaged=averaged, **{name: discriminator})
    _measure_statistics(discriminator, record.config, source, record.config.gan_training.seed)
    return discriminator


def _measure_statistics(discriminator: Discriminator, config: Config, source: data.ImageDataset, seed: int) -> None:
    """Replace batch norm statistics by those of photographs."""
    # In training the discriminator sees only reconstructions and repaired images. Their statistics differ from those
    # of photographs, and more so in deeper layers (Li et al., "Revisiting batch normalization for practical domain
    # adaptation", 2016; this project). With preset `small` the ridge probe gained 1.5 points on conv_4, 2.1 on conv_5.
    batches = data.training_batches(
        source, config.image, batch_size=STATISTICS_BATCH, seed=seed, steps=STATISTICS_STEPS
    )
    with _fast_statistics(discriminator.backbone, config.autoencoder.bn_decay):
        step = tf.function(lambda images: discriminator(images, training=True)["logits"])
        for images in batches:
            step(images)


@contextlib.contextmanager
def _fast_statistics(backbone: Backbone, momentum: float) -> Iterator[None]:
    """Let the statistics of a user's batch norms move as fast as the project's."""
    # Keras' models have a momentum of 0.99 or 0.999: after 200 batches 13 % or 82 % of the old statistics would remain.
    slow = []
    for group in backbone.groups:
        slow += [norm for norm in group if getattr(norm, "momentum", 0) > momentum]
    before = [norm.momentum for norm in slow]
    for norm in slow:
        norm.momentum = momentum
    yield
    for norm, value in zip(slow, before, strict=True):
        norm.momentum = value


def _count_false_alarms(discriminator: Discriminator, config: Config, source: data.ImageDataset) -> dict[str, Any]:
    """Return how many photographs the signature `spot` calls repaired."""
    # The discriminator is trained on reconstructions alone. Photographs can look repaired to it.
    batches = data.test_batches(source, config.image, batch_size=STATISTICS_BATCH, limit=SPOTTED_PHOTOGRAPHS)
    spot = tf.function(lambda images: tf.nn.softmax(discriminator(data.as_signed(images))["logits"])[:, 0])
    probabilities = tf.concat([spot(images) for images in batches], 0)
    called_repaired = tf.reduce_mean(tf.cast(probabilities >= 0.5, tf.float32))
    return {
        "called_repaired": float(called_repaired),
        "photographs": len(probabilities),
        "dataset": source.name,
        "split": source.split,
    }


def _calibration_images(config: Config, source: data.ImageDataset) -> np.ndarray:
    """Return test views for the ranges of `tflite_int8`, spread over the images of training."""
    positions = np.linspace(0, source.num_examples - 1, min(CALIBRATION_IMAGES, source.num_examples)).astype(np.int64)
    return np.stack([test_view(source.read(position), config.image).numpy() for position in positions])


def _describe_run(
    record: RunRecord, config: Config, workdir: str | os.PathLike, step: int, averaged: bool, statistics: str | None
) -> dict[str, Any]:
    """Return the description of an exported run."""
    untrained = record.untrained(step, "discriminator/")
    imported = None
    if record.imported:
        imported = record.to_dict()["imported"] | {"untrained": untrained}
    return _describe(
        config,
        weights="trained",
        stage=record.stage,
        step=step,
        total_steps=record.total_steps if step < record.total_steps and not record.never_trained else None,
        seed=getattr(config, record.section).seed,
        spot=STAGES[record.stage].adversarial and not untrained,  # heads with random weights find nothing
        network=STAGES[record.stage].layers,
        dataset=record.dataset,  # None: imported and never trained here
        split=record.split,
        fine_tuned_from=record.details.get("features"),
        classes=record.details["classes"] if "labels" in record.details else None,
        labelled_images=record.details["labels"]["images"] if "labels" in record.details else None,
        labels_digest=record.details["labels"].get("fingerprint") if "labels" in record.details else None,
        averaged=averaged,
        seconds=_training_seconds(record, workdir),
        hardware=record.hardware,
        commit=record.commit,
        imported=imported,
        statistics=statistics,
    )


def _describe(config: Config, **entries: Any) -> dict[str, Any]:
    """Return an export's config.json, without entries that are None."""
    present = {name: value for name, value in entries.items() if value is not None}
    return present | {
        "image_size": config.image.image_size,
        "test_crop": config.image.test_crop,
        "lts_version": __version__,
        "config": config.to_dict(),
    }


def _training_seconds(record: RunRecord, workdir: str | os.PathLike) -> dict[str, int]:
    """Return the known seconds of training, by stage."""
    # Compiling and checkpoints are not counted. Stage 1 counts if its folder still exists.
    runs = {"stage 1": record.autoencoder}
    runs["stage 1" if STAGES[record.stage].layers == "encoder" else "stage 2"] = workdir
    seconds = {}
    for stage, folder in runs.items():
        if folder is not None and (pathlib.Path(folder) / "metrics.jsonl").exists():
            seconds[stage] = _seconds_in_metrics(folder)
    return seconds


def _seconds_in_metrics(workdir: str | os.PathLike) -> int:
    """Return the sum of images / (images/s) in metrics.jsonl."""
    path = pathlib.Path(workdir) / "metrics.jsonl"
    record = run_dir.read_run_config(workdir)
    batch_size = getattr(record.config, record.section).batch_size
    seconds = 0.0
    previous_step = record.first_step
    for values in read_json_lines(path, {"step": int, "images_per_second": NUMBER}):
        if values["images_per_second"] <= 0:
            raise JsonError(f"{path}, step {values['step']}: images_per_second must be above 0. Restore or remove it.")
        images = (values["step"] - previous_step) * batch_size
        seconds += images / values["images_per_second"]
        previous_step = values["step"]
    return round(seconds)
