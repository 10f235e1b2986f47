"""Pre-training from a configuration.

`train` runs both stages of the method, and baselines that see the same images: rotation prediction, limited context
inpainting and supervised classification.
"""

import dataclasses
import os
import pathlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lts import data
from lts.config import NETWORKS, Config, ImageConfig, TrainingConfig, differences
from lts.config.options import MonitoringOptions
from lts.config.registries import CORRUPTIONS
from lts.config.stages import STAGES, Stage
from lts.export.saved_model import LoadedModel
from lts.models.classifier import ROTATIONS
from lts.models.tasks import needs_labels
from lts.networks.variables import variables_by_path
from lts.training import checkpoints, online_evaluation, run_dir, task
from lts.training.checkpoints import TrainingError
from lts.training.loop import steps_done
from lts.training.online_evaluation import EvaluationImages, OnlineEvaluation
from lts.training.optimizers import build_optimizer
from lts.training.run_record import FROZEN_NETWORKS, RunRecord
from lts.training.task import Result, Task
from lts.utils.text import warn

PICTURES = 8  # images in the picture strip
ALL_NETWORKS = ("encoder", "decoder", "repair", "discriminator")  # of both stages, by name in the model


def train(
    config: Config,
    stage: str,
    source: data.ImageDataset,
    workdir: str | pathlib.Path,
    *,
    autoencoder: str | pathlib.Path | None = None,
    init_from: str | pathlib.Path | None = None,
    features: LoadedModel | None = None,
    head: str = "fc",
    frozen: int = 0,
    probe_images: EvaluationImages | None = None,
    extend: bool = False,
    options: MonitoringOptions = MonitoringOptions(),  # noqa: B008 (frozen)
    strategy: tf.distribute.Strategy | None = None,
) -> Result:
    """Train one stage, or resume its last checkpoint.

    Args:
      config: the run's configuration.
      stage: "autoencoder" (stage 1), "gan" (stage 2), or a classifier with the backbone and schedule of stage 2:
        "rotation" (which way is up; no labels), "lci" (which transformation; no labels) or "supervised" (labels).
      source: training images.
      workdir: folder of the run; an existing run resumes. Several machines must all see it.
      autoencoder: "gan" only: folder of the autoencoder run.
      init_from: "autoencoder" and "gan" only: folder of another run of the stage, whose weights a new run begins with.
        Optimizer and step begin anew. Encoder and decoder are those of `autoencoder`, if it is given.
      features: classifiers only: an export whose backbone gives the initial weights; None: random weights.
      head: classifiers only: "fc", "linear" or "pooled", see `BackboneClassifier`.
      frozen: classifiers only: number of first convolutions that do not train.
      probe_images: of the online evaluation every `probe_steps`; None: the first 768 of `source`, without labels.
      extend: whether an existing run of fewer steps is trained for longer. Its learning rate then follows the schedule
        of the longer run.
      options: intervals of monitoring and checkpoints.
      strategy: from `build_strategy`; None builds the one for "auto".

    Returns:
      How the call ended. A finished run returns at once.

    Raises:
      ConfigError: the number of replicas does not divide the batch, or a name is not registered.
      TrainingError: `workdir` holds another configuration or is in use, `autoencoder`, `init_from` or `features`
        do not fit, "supervised" got images without labels, a loss is not finite, or a machine was lost. The last good
        checkpoint stays in place.
      ExportError: `features` hold another network than a backbone.
      DataError: an image cannot be read any more.

    Example:
      >>> config = preset("tiny", steps=2)
      >>> source = data.open_source("synthetic", "unlabelled[:64]")
      >>> train(config, "autoencoder", source, "runs/ae")
      >>> train(config, "gan", source, "runs/gan", autoencoder="runs/ae")
    """
    if autoencoder is not None:
        _check_autoencoder(config, autoencoder)
    if STAGES[stage].adversarial:
        _check_frozen_networks(workdir, autoencoder)
    if init_from is not None:
        _check_init(config, stage, init_from, workdir)
    begin = {"autoencoder": autoencoder, "init_from": init_from, "features": features, "head": head, "frozen": frozen}

    def evaluation(model: keras.Model) -> OnlineEvaluation:
        return online_evaluation.of_run(model, config, stage, source, probe_images, options.probe_steps)

    with run_dir.naming_imports(workdir, autoencoder):
        stage_task = make_task(config, stage, source, workdir, **begin)
        stage_task = dataclasses.replace(stage_task, extend=extend, evaluation=evaluation)
        return task.run(stage_task, workdir, options, strategy)


def make_task(
    config, stage, source, workdir, *, autoencoder=None, init_from=None, features=None, head="fc", frozen=0
) -> Task:
    """Return the task that `train` runs on its arguments."""
    kind = STAGES[stage]
    settings = getattr(config, kind.section)
    labelled = kind.labelled or (kind.adversarial and needs_labels(config))
    if labelled:
        source = _with_labels(config, kind, source)
    total_steps = _total_steps(settings, source)
    classes = len(source.class_names) if labelled else kind.classes

    details = _data_details(kind, source, labelled)
    if kind.is_classifier:
        details |= {"head": head, "frozen": frozen, "features": features.fingerprint if features else None}
    record = RunRecord.of_images(stage, config, source, details=details, **_origins(autoencoder, init_from))
    backbone = _backbone(config, features) if features else None
    # Where only some images have labels, a part of every batch is drawn from these.
    labelled_rows = 0
    if labelled and len(source.labelled) < source.num_examples:
        labelled_rows = max(1, round(config.loss.labels_batch_share * settings.batch_size))
    image = dataclasses.replace(config.image, image_size=kind.loaded_size(config.image.image_size))

    def batches(share: tf.distribute.InputContext, first_step: int, steps: int) -> tf.data.Dataset:
        return data.training_batches(
            source,
            image,
            batch_size=settings.batch_size,
            seed=settings.seed,
            first_step=first_step,
            steps=steps,
            share=share,
            labels=labelled,
            labelled_rows=labelled_rows,
        )

    def start(model: keras.Model, restored: bool) -> None:
        if init_from is not None and not restored:
            _initialize(model, stage, init_from)
        if autoencoder is not None:
            # A checkpoint holds the frozen networks, unless the run was imported without them and never trained.
            untrained = run_dir.read_run_config(workdir).untrained(steps_done(model), *FROZEN_NETWORKS)
            if untrained or not restored:
                step = run_dir.restore_networks(autoencoder, encoder=model.encoder, decoder=model.decoder)
                print(f"gan: loaded encoder and decoder of step {step} of {autoencoder}", flush=True)
        if backbone is not None and not restored:
            _copy_weights(backbone, model.network.backbone)
            print(f"finetune: loaded the backbone of {features.path}", flush=True)

    return Task(
        record=record,
        section=kind.section,
        steps=total_steps,
        build=lambda: build_model(config, stage, total_steps, classes, head, frozen),
        batches=batches,
        samples=_samples(image, source, labelled),
        start=start,
        check_data=source.check_files,  # names the image that broke after opening
        group_size=CORRUPTIONS[config.damage.corruption].group_size if kind.adversarial else 1,
    )


def _data_details(kind: Stage, source: data.ImageDataset, labelled: bool) -> dict[str, Any]:
    """Return what must not change in the images when the run resumes, next to their names and pixels."""
    details: dict[str, Any] = {}
    if kind.labelled:
        details["classes"] = len(source.class_names)
    elif labelled:
        details["classes"] = list(source.class_names)
        fingerprint = data.labels_digest(source.labels, source.names)
        details["labels"] = {"images": len(source.labelled), "fingerprint": fingerprint}
    if source.stored_size:
        details["stored_size"] = source.stored_size
    return details


def _with_labels(config: Config, kind: Stage, source: data.ImageDataset) -> data.ImageDataset:
    """Return the images with the labels that a training uses; -1: none."""
    if source.labels is None or (kind.labelled and source.labels.min() < 0):
        lacking = "the images have no labels" if source.labels is None else "some images have no label"
        raise TrainingError(f"{lacking}. Received: dataset={source.name}, split={source.split}")
    if source.num_classes < 2:
        classes = ", ".join(source.class_names)
        raise TrainingError(f"a classifier needs at least two classes. Received: {classes} in {source.name}.")
    if kind.labelled:
        return source
    labels = data.share_of_labels(source.labels, source.names, config.loss.labels_share)
    return dataclasses.replace(source, labels=labels)


def _total_steps(settings: TrainingConfig, source: data.ImageDataset) -> int:
    """Return the steps of the whole run."""
    total = settings.steps_on(source.num_examples)
    if total == 0:
        counts = f"{source.num_examples} images, batch_size={settings.batch_size}"
        raise TrainingError(f"an epoch has no full batch. Received: {counts}. Lower --batch_size or give --steps.")
    return total


def _samples(image: ImageConfig, source: data.ImageDataset, labelled: bool):
    """Return the first test views in [-1, 1], with labels if `labelled`."""
    views = next(iter(data.test_batches(source, image, batch_size=PICTURES, limit=PICTURES)))
    images = data.as_signed(views)
    return (images, tf.constant(source.labels[:PICTURES], tf.int32)) if labelled else images


def build_model(
    config: Config, stage: str, total_steps: int = 1, classes: int = ROTATIONS, head: str = "fc", frozen: int = 0
) -> keras.Model:
    """Return the compiled model of a stage.

    Its optimizers are built too: a checkpoint restores their slots before the first step.

    Args:
      config: the run's configuration.
      stage: a key of `STAGES`.
      total_steps: for the learning rate schedule.
      classes: number of classes of the images, where labels are needed; 0: that of `STAGES`.
      head: head of a classifier.
      frozen: first convolutions of a classifier that do not train.
    """
    kind = STAGES[stage]
    settings = getattr(config, kind.section)
    # Weights stay float32 under the mixed policy.
    dtype = "mixed_bfloat16" if settings.precision == "bfloat16" else "float32"
    optimizer = build_optimizer(settings, total_steps, settings.learning_rate, config.loss.weight_decay)
    options = {"classes": classes or kind.classes, "head": head, "frozen": frozen}
    arguments = {name: options[name] for name in kind.options}
    model = kind.model_class()(config, **arguments, dtype=dtype)
    if kind.adversarial:
        repair_steps = -(-total_steps // settings.repair_every)
        g_optimizer = build_optimizer(settings, repair_steps, settings.repair_learning_rate, config.loss.weight_decay)
        model.compile(optimizer, g_optimizer)
        return model
    model.compile(optimizer)
    model.build_optimizers()
    return model


def _origins(autoencoder: str | pathlib.Path | None, init_from: str | pathlib.Path | None) -> dict[str, Any]:
    """Return the entries of a record about other runs."""
    entries: dict[str, Any] = {"fingerprints": {}}
    if autoencoder is not None:
        entries["autoencoder"] = os.path.abspath(autoencoder)
        entries["fingerprints"]["autoencoder"] = checkpoints.weights_fingerprint(autoencoder, "encoder", "decoder")
    if init_from is not None:
        entries["init_from"] = os.path.abspath(init_from)
        entries["fingerprints"]["init_from"] = checkpoints.weights_fingerprint(init_from, *ALL_NETWORKS)
    return entries


def _check_init(config: Config, stage: str, init_from: str | pathlib.Path, workdir: str | pathlib.Path) -> None:
    """Check that a run's weights fit a new run."""
    if (pathlib.Path(workdir) / "config.json").exists() and run_dir.read_run_config(workdir).imported:
        raise TrainingError(f"the run has imported weights. Received: workdir={workdir}. Omit --init_from.")
    record = run_dir.read_run_config(init_from)
    if record.stage != stage:
        raise TrainingError(f"init_from must be a run of stage {stage!r}. Received: {init_from} of {record.stage!r}.")
    has_encoder_alone = STAGES[stage].layers == "encoder"
    networks = ["autoencoder"] if has_encoder_alone else list(NETWORKS)
    changed = differences(record.config, config, *networks)
    if changed:
        raise TrainingError(
            f"init_from has other networks ({'; '.join(changed)}). Received: {init_from}. Give the flags of that run."
        )
    untrained = record.untrained(checkpoints.newest_step(init_from), *(FROZEN_NETWORKS if has_encoder_alone else ("",)))
    if untrained:
        raise TrainingError(f"the run was imported from a checkpoint without {untrained[0]}. Received: {init_from}.")


def _initialize(model: keras.Model, stage: str, init_from: str | pathlib.Path) -> None:
    """Copy the weights and statistics of a run's networks."""
    networks = {name: getattr(model, name) for name in ALL_NETWORKS if getattr(model, name, None) is not None}
    # Heads of tasks that the other run does not have begin with random weights.
    heads = getattr(networks.get("discriminator"), "further_heads", {})
    optional = [f"discriminator/{name}_head/" for name in heads]
    step = run_dir.restore_networks(init_from, optional=optional, **networks)
    # Moving averages start at the weights, as in any new run.
    for optimizer in (model.optimizer, getattr(model, "g_optimizer", None)):
        if optimizer is not None:
            optimizer.reset_averages()
    print(f"{stage}: loaded the weights of step {step} of {init_from}", flush=True)


def _check_autoencoder(config: Config, autoencoder: str | pathlib.Path) -> None:
    """Check that an autoencoder run fits the configuration."""
    record = run_dir.read_run_config(autoencoder)
    if record.stage not in STAGES or STAGES[record.stage].layers != "encoder":
        raise TrainingError(
            f"autoencoder must be a run of stage 'autoencoder'. Received: {autoencoder} of {record.stage!r}"
        )
    changed = differences(record.config, config, "frozen_autoencoder")
    if changed:
        raise TrainingError(f"{autoencoder} was trained with another configuration ({'; '.join(changed)})")
    untrained = record.untrained(checkpoints.newest_step(autoencoder), *FROZEN_NETWORKS)
    if untrained:
        lacking = f"was imported from a checkpoint without {untrained[0]}"
        raise TrainingError(
            f"the autoencoder {lacking}. Received: {autoencoder}. Train it first with train_autoencoder."
        )
    if config.turns_images and not record.config.turns_images:
        warn(
            f"{autoencoder} was trained on upright images only. It decodes turned ones worse, which tells their turn. "
            "Train it with --rotation_weight or --joint_turns, too."
        )


def _check_frozen_networks(workdir: str | pathlib.Path, autoencoder: str | pathlib.Path | None) -> None:
    """Check that an imported run has an encoder and decoder."""
    # They come from the release checkpoint or, if it holds none, from `autoencoder`.
    if not (pathlib.Path(workdir) / "config.json").exists():
        return
    record = run_dir.read_run_config(workdir)
    step = checkpoints.newest_step(workdir)
    if record.imported is None or step != record.first_step:
        return  # after the first training step its checkpoint holds them
    untrained = record.untrained(step, *FROZEN_NETWORKS)
    if untrained and autoencoder is None:
        lacking = f"was imported from a checkpoint without {untrained[0]}"
        raise TrainingError(f"the run {lacking}. Received: workdir={workdir}. Give --autoencoder=RUN.")
    if not untrained and autoencoder is not None:
        imported, _ = checkpoints.read_newest(workdir)
        given, _ = checkpoints.read_newest(autoencoder)
        for name, value in imported.items():
            if name.startswith(FROZEN_NETWORKS) and not np.array_equal(value, given.get(name)):
                raise TrainingError(
                    "the run was imported with another encoder and decoder. "
                    f"Received: autoencoder={autoencoder}. Omit --autoencoder."
                )


def _backbone(config: Config, features: LoadedModel) -> keras.Model:
    """Return the backbone of an export that fits the configuration."""
    backbone = features.keras_model().backbone
    changed = differences(features.config, config, "backbone")
    if changed:
        raise TrainingError(f"{features.path} has another backbone than the configuration ({'; '.join(changed)})")
    return backbone


def _copy_weights(network: keras.Model, other: keras.Model) -> None:
    """Assign the weights and statistics of `network` to `other`."""
    values = variables_by_path(network)
    for path, variable in variables_by_path(other).items():
        variable.assign(values[path])
