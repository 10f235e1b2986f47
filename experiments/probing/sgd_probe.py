"""Linear probes whose heads are trained over augmented images: training, test, records.

What `linear_probe --protocol=imagenet`, `lci` and `stl10_release` run. A model's heads are a training run of
`lts.training` in OUTPUT/training/FINGERPRINT: it resumes bit by bit, and TensorBoard shows it. Images are decoded as
`lts.data` keeps them, in memory or in files; features are never kept.
"""

import dataclasses
import functools
import json
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from experiments.probing import crops, linear
from experiments.probing.features import ProbeError
from experiments.probing.protocols import SgdProtocol
from experiments.probing.sgd_heads import SgdProbe
from lts import data, training
from lts.config import Config, ImageConfig
from lts.export import saved_model
from lts.utils.progress import Progress
from lts.utils.signals import reraise_signal

FOLDER = "training"
STAGE = "linear_probe"
SAMPLES = 8  # images in the picture strip


def probe_model(
    model, layers: Sequence[str], *, train, test, protocol: SgdProtocol, output, batch_size: int
) -> Iterator[dict[str, dict[str, Any]]]:
    """Trains the heads of one model, or goes on with them, and tests them.

    Args:
      model: a loaded SavedModel; it is loaded once more, because its moving averages may move.
      layers: names of its layers.
      train, test: labelled sources.
      protocol: of `experiments.probing.protocols.SGD`.
      output: folder of the probe.
      batch_size: test images in one forward pass, all their views together; changes nothing but speed.

    Yields:
      Once: layer to "record" (see `probes.of_images`) and "seconds", those of this call shared out.

    Raises:
      ProbeError: too few images, or a folder that holds the heads of another run.
      KeyboardInterrupt: stopped by a signal; the checkpoint is written.
    """
    began = time.monotonic()
    steps = total_steps(train, protocol)
    probe = fit(model, layers, train, protocol, pathlib.Path(output) / FOLDER / model.fingerprint)
    correct = evaluate(probe, test, image_config(model, protocol), batch_size)
    seconds = (time.monotonic() - began) / len(layers)
    dimensions = {head.name: head.dimensions for head in probe.network.heads}
    yield {
        layer: {
            "record": linear.of_images(correct[layer], protocol, dimensions=dimensions[layer], steps=steps),
            "seconds": seconds,
        }
        for layer in layers
    }


def total_steps(train, protocol: SgdProtocol) -> int:
    """Steps of the whole run; raises `ProbeError` when an epoch holds none."""
    steps = train.num_examples // protocol.training_batch_size * protocol.epochs
    if steps == 0:
        raise ProbeError(
            f"{train.num_examples} training images are less than one batch of {protocol.training_batch_size}: "
            "lower --training_batch_size"
        )
    return steps


def image_config(model, protocol: SgdProtocol) -> ImageConfig:
    """Size and augmentation of the images: the model's own where the protocol says so, else crops without colour."""
    own = Config.from_dict(model.description["config"]).image
    size = protocol.image_size or model.image_size
    if protocol.augmentation == "pretraining":
        return dataclasses.replace(own, image_size=size)
    return ImageConfig(image_size=size, flip=True, brightness=0.0, saturation=(1.0, 1.0))


def fit(model, layers: Sequence[str], train, protocol: SgdProtocol, workdir: pathlib.Path) -> SgdProbe:
    """The trained probe of a model; arguments as `probe_model`'s, `workdir` is the training's folder.

    It is trained on one device, the first GPU where there is one: a SavedModel that is loaded under a strategy of
    several cannot be called outside of a step.
    """
    steps, image = total_steps(train, protocol), image_config(model, protocol)
    built: list[SgdProbe] = []

    def build() -> SgdProbe:
        backbone = saved_model.load(model.path)
        built.append(SgdProbe(backbone, layers, len(train.class_names), protocol, steps, image.image_size))
        return built[0]

    def batches(share: tf.distribute.InputContext, first_step: int, count: int) -> tf.data.Dataset:
        return data.training_batches(
            train,
            image,
            batch_size=protocol.training_batch_size,
            seed=protocol.seed,
            first_step=first_step,
            steps=count,
            share=share,
            labels=True,
            **({"crop": crops.random_crops(protocol.margin)} if protocol.margin else {}),
        )

    def start(probe: SgdProbe, restored: bool) -> None:
        if restored:
            probe.restore_statistics()

    views = next(iter(_test_batches(train, image, protocol, SAMPLES, SAMPLES)))[:, 0]
    task = training.Task(
        record=_record(model, layers, train, protocol, steps),
        section="gan_training",
        steps=steps,
        build=build,
        batches=batches,
        samples=tf.cast(views, tf.float32) / 127.5 - 1,
        start=start,
        check_data=train.check_files,
    )
    print(f"{model.path}: {steps} steps on {len(layers)} layers in {workdir}", flush=True)
    try:
        result = training.run(task, workdir, strategy=tf.distribute.get_strategy())
    except training.TrainingError as error:
        raise ProbeError(str(error).replace("--workdir", "--output")) from None
    reraise_signal(result.signal)
    return built[0]


def _record(model, layers: Sequence[str], train, protocol: SgdProtocol, steps: int) -> dict[str, Any]:
    """What WORKDIR/config.json says; another value of anything but the data is another run."""
    config = Config.from_dict(model.description["config"]).replace(
        "gan_training",
        batch_size=protocol.training_batch_size,
        steps=steps,
        epochs=protocol.epochs,
        learning_rate=protocol.learning_rate,
        seed=protocol.seed,
    )
    fields = json.loads(json.dumps(dataclasses.asdict(protocol)))  # tuples as they come back
    return {
        "stage": STAGE,
        "config": config,
        "dataset": train.name,
        "split": train.split,
        "data": {"images": train.num_examples, "fingerprint": train.fingerprint},
        "model": model.fingerprint,
        "layers": list(layers),
        "classes": len(train.class_names),
        **{f"protocol.{name}": value for name, value in fields.items()},
    }


def _test_batches(source, image: ImageConfig, protocol: SgdProtocol, batch_size: int, limit: int | None = None):
    """Batches of views, uint8 [<= batch_size, views, size, size, 3]."""
    options: Mapping[str, Any] = {"batch_size": batch_size, "limit": limit}
    if protocol.margin is not None:
        return data.test_batches(source, image, view=crops.fixed_crops(protocol.margin, protocol.views), **options)
    return data.test_batches(source, image, **options).map(functools.partial(tf.expand_dims, axis=1))


def evaluate(probe: SgdProbe, test, image: ImageConfig, batch_size: int) -> dict[str, np.ndarray]:
    """Which test images each layer's head gets right.

    Args:
      probe: trained.
      test: labelled source.
      image: of `image_config`.
      batch_size: views in one forward pass.

    Returns:
      Layer to bool [test images].
    """
    images = max(1, batch_size // probe.protocol.views)
    predicted: dict[str, list[np.ndarray]] = {layer: [] for layer in probe.layer_names}
    with Progress(f"{probe.backbone.path}: test images", test.num_examples) as progress:
        for views in _test_batches(test, image, probe.protocol, images):
            for layer, scores in probe.scores(views).items():
                predicted[layer].append(np.argmax(scores, axis=1))
            progress.advance(len(views))
    return {layer: np.concatenate(classes) == test.labels for layer, classes in predicted.items()}
