"""From a run, or from random weights, to an exported SavedModel."""

import itertools
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from lts import __version__, data
from lts.config import Config
from lts.export import saved_model
from lts.models.classifier import ROTATIONS
from lts.networks.autoencoder import Encoder, batch_norm_config
from lts.networks.discriminator import BackboneClassifier, Discriminator
from lts.training import imported, run_dir
from lts.training.run_dir import TrainingError
from lts.training.train import CLASSIFIERS, SECTION
from lts.utils import provenance

STATISTICS_STEPS, STATISTICS_BATCH = 200, 64  # batches of photographs that batch norm statistics are measured on


def export_run(
    workdir: str | os.PathLike,
    output: str | os.PathLike,
    weights: str = "raw",
    formats: Sequence[str] = (),
    source: data.ImageDataset | None = None,
    recalibrate: bool | None = None,
) -> int:
    """Exports the features that a run has trained: of stage 2 the discriminator.

    Args:
      workdir: of the run; its newest whole checkpoint is taken. Of stage 1 the encoder is exported, of "rotation" and
        "supervised" the backbone.
      output: folder of the SavedModel.
      weights: "raw", or "averaged": the moving average that the run kept of every weight (`ema_decay`). Batch norm
        statistics are those of the run either way.
      formats: beside the SavedModel, see `lts.export.formats`.
      source: photographs for `recalibrate_batch_norm` of stage 2; None: those that the run was trained on.
      recalibrate: overrides `recalibrate_batch_norm` of the run.

    Returns:
      The step of the checkpoint.

    Raises:
      TrainingError: no run, no checkpoint, no averages in it, an imported run without trained features, or
        `recalibrate` for another stage than "gan", or without photographs.
      DataError: the photographs cannot be opened.
    """
    record = run_dir.read_run_config(workdir)
    config, stage = record["config"], record["stage"]
    if recalibrate is not None:
        config = config.replace(recalibrate_batch_norm=recalibrate)
        if stage != "gan" and recalibrate:
            raise TrainingError(f"{workdir} is of stage {stage!r}: its statistics are those of photographs already")
    settings = getattr(config, SECTION[stage])
    if weights == "averaged" and not settings.ema_decay:
        raise TrainingError(f"{workdir} kept no average of its weights (ema_decay is 0): give --weights=raw")
    network, name = _network(record)
    step = run_dir.restore_networks(workdir, averaged=weights == "averaged", **{name: network})
    imported.check_features(workdir, step, weights)
    facts = {"stage": stage, "step": step, "seed": settings.seed, "spot": stage == "gan"}
    facts |= {"network": "encoder" if stage == "autoencoder" else "backbone"}
    facts |= {key: record[key] for key in ("dataset", "split") if key in record}  # not there: imported, never trained
    facts |= {"fine_tuned_from": record["features"]} if record.get("features") else {}
    facts |= {"averaged": weights == "averaged", "seconds": _seconds(workdir, record)}
    facts |= {key: record.get(key) for key in ("hardware", "commit")}
    if "imported" in record:
        untrained = imported.untrained(workdir, step, "discriminator/")
        facts |= {"imported": record["imported"] | {"untrained": untrained}, "spot": not untrained}
    backbone = None
    if stage == "gan" and config.discriminator.recalibrate_batch_norm:
        if source is None and "dataset" not in record:
            raise TrainingError(f"{workdir} was imported without photographs to measure statistics on: give --dataset")
        source = source or data.open_source(record["dataset"], record["split"], skip_broken_images=True)  # as it was
        backbone = _recalibrated_backbone(record, workdir, weights == "averaged", source)
        facts |= {"statistics": f"{source.name}, split {source.split}"}
    saved_model.export(network, output, _description(config, "trained", facts), formats, backbone)
    return step


def export_random(
    config: Config, source: data.ImageDataset, seed: int, output: str | os.PathLike, formats: Sequence[str] = ()
) -> None:
    """Exports an untrained discriminator, the baseline of every evaluation.

    Its batch norm statistics are estimated on augmented training images, so
    that its features are scaled as a trained network's are.

    Args:
      config: says what the discriminator is.
      source: images for the statistics.
      seed: of the weights.
      output: folder of the SavedModel.
      formats: beside the SavedModel, see `lts.export.formats`.
    """
    keras.utils.set_random_seed(seed)
    discriminator, _ = _network({"stage": "gan", "config": config})
    _measure_statistics(discriminator, config, source, seed)
    facts = {"dataset": source.name, "split": source.split, "step": 0, "seed": seed}
    facts |= {"hardware": provenance.hardware(), "commit": provenance.commit()}
    saved_model.export(discriminator, output, _description(config, "random", facts), formats)


def load_classifier(workdir: str | os.PathLike) -> Callable[[tf.Tensor], tf.Tensor]:
    """The classifier of a run of "supervised" or "rotation" as its newest whole checkpoint has it, for inference.

    Args:
      workdir: of the run.

    Returns:
      A map of uint8 images [B, H, W, 3] to logits [B, classes], float32 whatever the precision of training.

    Raises:
      TrainingError: no such run, or no checkpoint.
    """
    record = run_dir.read_run_config(workdir)
    if record["stage"] not in CLASSIFIERS:
        raise TrainingError(f"{workdir} is a run of stage {record['stage']!r}, not of a classifier")
    network, name = _network(record)
    run_dir.restore_networks(workdir, **{name: network})
    return tf.function(lambda images: network(tf.cast(images, tf.float32) / 127.5 - 1)["logits"])


def _recalibrated_backbone(
    record: Mapping[str, Any], workdir: str | os.PathLike, averaged: bool, source: data.ImageDataset
) -> keras.Model:
    """The backbone of a run of stage 2 with statistics of photographs: one more, for `spot` keeps those of training."""
    discriminator, _ = _network(record)
    run_dir.restore_networks(workdir, averaged=averaged, discriminator=discriminator)
    _measure_statistics(discriminator, record["config"], source, record["config"].gan_training.seed)
    return discriminator.backbone


def _measure_statistics(discriminator: Discriminator, config: Config, source: data.ImageDataset, seed: int) -> None:
    """Batch norm statistics of augmented photographs in the place of those that the discriminator has.

    In training it sees reconstructions and repaired images alone, whose statistics are others, the more so the deeper
    the layer (Li et al., "Revisiting batch normalization for practical domain adaptation", 2016; ours).
    """
    step = tf.function(lambda images: discriminator(images, training=True)["logits"])
    for images in data.training_batches(
        source, config.image, batch_size=STATISTICS_BATCH, seed=seed, steps=STATISTICS_STEPS
    ):
        step(images)


def _network(record: Mapping[str, Any]) -> tuple[keras.Model, str]:
    """The network whose layers are a run's features, built, and its name in the run's model."""
    config, stage = record["config"], record["stage"]
    bn_config = batch_norm_config(config.autoencoder)
    if stage == "autoencoder":
        network, name = Encoder(config.autoencoder), "encoder"
    elif stage == "gan":
        network, name = Discriminator(config.discriminator, config.mask_grid, bn_config), "discriminator"
    else:
        classes, head = record.get("classes", ROTATIONS), record.get("head", "fc")
        network = BackboneClassifier(
            config.discriminator, config.discriminator_grid, classes, head, bn_config=bn_config
        )
        name = "network"
    network.build((None, config.image.image_size, config.image.image_size, 3))
    return network, name


def _seconds(workdir: str | os.PathLike, record: dict) -> dict[str, float]:
    """Seconds of training by stage, from the images/s that the runs noted; stage 1 if its folder is still there."""
    seconds = {}
    own = "stage 1" if record["stage"] == "autoencoder" else "stage 2"
    for stage, folder in (("stage 1", record.get("autoencoder")), (own, workdir)):
        path = pathlib.Path(folder or "") / "metrics.jsonl"
        if folder and path.exists():
            whole = [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
            lines = [json.loads(line) for line in whole]
            batch = getattr(record["config"], stage.replace(" ", "_")).batch_size
            steps = itertools.pairwise([imported.first_step(folder), *(line["step"] for line in lines)])
            spent = zip(steps, lines, strict=True)
            seconds[stage] = round(
                sum((end - begin) * batch / line["images_per_second"] for (begin, end), line in spent)
            )
    return seconds


def _description(config: Config, weights: str, facts: dict) -> dict:
    return {
        "weights": weights,
        **facts,
        "image_size": config.image.image_size,
        "test_crop": config.image.test_crop,
        "lts_version": __version__,
        "config": config.to_dict(),
    }
