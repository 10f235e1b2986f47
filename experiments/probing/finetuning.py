"""The backbone of a SavedModel with a new head, trained on labels and tested once; or the same backbone from scratch."""

import copy
import dataclasses
import functools
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from experiments.probing import linear
from experiments.probing import run as probe_run
from experiments.probing.features import ProbeError
from experiments.probing.protocols import FinetuneProtocol
from lts import data, training
from lts.config import Config, ImageConfig, TrainingConfig
from lts.export.saved_model import LoadedModel
from lts.utils.progress import Progress
from lts.utils.signals import reraise_signal

TRAINING = "training"  # folder of the runs, below the output
TEST_BATCH = 100  # images; speed alone
LAYERS = 5  # convolutions of the backbone


def run(
    model: LoadedModel, baselines: Sequence[LoadedModel], train, test, protocol: FinetuneProtocol, output
) -> dict[str, Any]:
    """Fine-tunes the model and each baseline, all in the same way, and tests them.

    Args:
      model: a loaded SavedModel of a backbone.
      baselines: loaded SavedModels to put beside it.
      train, test: labelled sources with the same classes.
      protocol: says how.
      output: folder; runs lie in `training` below it, one for each model and seed, and go on where they were stopped.

    Returns:
      What `results.json` holds, see `probe_run.run`; the one "layer" is what was done to the model.

    Raises:
      ProbeError: labels that are missing or do not match, or too few training images.
      ExportError: a model without a backbone.
      TrainingError: as `lts.training.train` raises it.
    """
    probe_run.check_labels(train, test)
    _check_images(train, protocol)
    for candidate in (model, *baselines):
        candidate.keras_model()  # says now what is wrong with the last one
    layer = "fine-tuned" if protocol.pretrained else "from scratch"
    if not protocol.pretrained:
        model, *baselines = map(_without_weights, (model, *baselines))
    probe = functools.partial(_finetune, strategy=training.build_strategy())
    return probe_run.run(
        model, baselines, train, test, (), protocol, output, TEST_BATCH, probe_model=probe, columns=[layer]
    )


def workdir(output, model: LoadedModel, seed: int) -> pathlib.Path:
    """Folder of the training run of a model and a seed."""
    return pathlib.Path(output) / TRAINING / f"{model.fingerprint}_{seed}"


def config_of(model: LoadedModel, protocol: FinetuneProtocol, seed: int) -> Config:
    """The configuration of one run: networks and images as the model has them, losses and schedule by the protocol."""
    schedule = TrainingConfig(
        batch_size=protocol.batch_size,
        epochs=protocol.epochs,
        learning_rate=protocol.learning_rate,
        precision=protocol.precision or model.config.gan_training.precision,
        seed=seed,
        ema_decay=0.0,
    )
    loss = dataclasses.replace(model.config.loss, weight_decay=protocol.weight_decay)
    return dataclasses.replace(model.config, loss=loss, gan_training=schedule)


def _check_images(train, protocol: FinetuneProtocol) -> None:
    """Raises `ProbeError` at fewer training images than a batch."""
    if train.num_examples < protocol.batch_size:
        raise ProbeError(
            f"{train.num_examples} training images are less than one batch of {protocol.batch_size}: "
            "lower --batch_size or give more images"
        )


def _without_weights(model: LoadedModel) -> LoadedModel:
    """The model as results describe one of which the configuration alone is used."""
    other = copy.copy(model)
    kept = {key: model.description[key] for key in ("image_size", "test_crop", "config")}
    other.description = {"weights": "from scratch", **kept}
    return other


def _finetune(
    model: LoadedModel, columns: Sequence[str], *, train, test, protocol: FinetuneProtocol, output, strategy, **_
) -> Iterator[probe_run.Done]:
    """The one column's "record" and "seconds" of one model, over all seeds."""
    began = time.monotonic()
    correct = [
        _test(_train(train, protocol, workdir(output, model, seed), seed, strategy, model), test, model)
        for seed in protocol.seeds
    ]  # each bool [test images]
    if len(correct) == 1:
        record = linear.of_images(correct[0], protocol)
    else:
        record = linear.of_accuracies([float(each.mean()) for each in correct], protocol)
    yield {column: {"record": record, "seconds": time.monotonic() - began} for column in columns}


def _train(train, protocol: FinetuneProtocol, folder: pathlib.Path, seed: int, strategy, model) -> pathlib.Path:
    """Trains, or goes on, to the end; returns the folder. Ctrl-C and SIGTERM are raised again, after a checkpoint."""
    if (folder / "config.json").exists():
        before = training.read_run_config(folder)["data"]["fingerprint"]
        if before != train.fingerprint:
            raise ProbeError(f"{folder} was trained on other images than {train.name} has now: give another --output")
    print(f"{model.path}, seed {seed}: training in {folder}", flush=True)
    result = training.train(
        config_of(model, protocol, seed),
        "supervised",
        train,
        folder,
        features=model if protocol.pretrained else None,
        head=protocol.head,
        frozen=LAYERS - protocol.train_layers,
        strategy=strategy,
    )
    reraise_signal(result.signal)
    return folder


def _test(folder: pathlib.Path, test, model: LoadedModel) -> np.ndarray:
    """Whether the trained classifier is right, bool [test images] in their order."""
    classifier = training.load_classifier(folder)
    image = ImageConfig(image_size=model.image_size, test_crop=model.test_crop)
    predicted = []
    with Progress(f"{model.path}: test images", test.num_examples) as progress:
        for images in data.test_batches(test, image, batch_size=TEST_BATCH):
            predicted.append(tf.argmax(classifier(images), 1).numpy())
            progress.advance(len(images))
    return np.concatenate(predicted) == test.labels
