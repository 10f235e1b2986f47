"""Fine-tuning of an exported backbone on VOC.

The three tasks share a backbone with a new head, its training by `lts.training.run`, and the interface `VocTask`. A
training batch is a function of (seed, position), so a resumed run is bit-identical to an uninterrupted one.
"""

import abc
import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from experiments.voc.data.images import Images
from experiments.voc.protocols import VocProtocol
from lts import data, losses, training
from lts.config import Config, TrainingConfig
from lts.export.saved_model import LoadedModel
from lts.models import base
from lts.training import run_dir
from lts.training.optimizers import build_optimizer
from lts.utils.errors import UserError
from lts.utils.signals import reraise_signal

PICTURES = 6  # rows of TensorBoard's picture strip
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


class TransferError(UserError):
    """Images that a task cannot use."""


class Network(keras.Model):
    """Backbone and head, the variables of a checkpoint.

    Args:
      backbone: the built backbone of an export.
      head: a model on the last map of the backbone; it is built here.
      frozen: number of first layers that do not train.
    """

    def __init__(self, backbone: keras.Model, head: keras.Model, frozen: int, name="network", **kwargs):
        super().__init__(name=name, **kwargs)
        self.backbone = backbone
        self.head = head
        head.build((None, None, None, backbone.geometry()[-1].channels))
        backbone.freeze(frozen)


class TransferModel(training.TrainableModel):
    """Backbone of an export under a new head, with one loss.

    Base class of the three tasks' models. A subclass implements `compute_losses(batch, training=True)`, which returns
    named scalars and their sum "loss", lists these names and "gradient_norm" in METRICS, and implements
    `pictures(batch)`, which returns named images [B, H, W, 1 or 3] in [-1, 1].

    Args:
      loaded: export with the initial weights.
      head: Keras model with named layers, float32; `build((None, None, None, channels))` builds all of it.
      protocol: schedule, optimizer and frozen layers.
      seed: seed of dropout.
      precision: activations of the backbone, "float32" or "bfloat16". The head is always float32.
      name: Keras name.
      **kwargs: as for `keras.Model`.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        head: keras.Model,
        protocol: VocProtocol,
        seed: int,
        precision: str = "float32",
        name="transfer",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        self.protocol = protocol
        self.seed = seed
        backbone = loaded.keras_model(dtype=POLICIES[precision]).backbone
        self.network = Network(backbone, head, protocol.frozen)
        self.built = True

    def features(self, images, training: bool = False):
        """Return the last map of the backbone.

        Batch norm keeps the statistics of the export unless the protocol says "batch": batches are small, and the whole
        images of a test differ from training crops. Frozen layers always keep them.

        Args:
          images: [B, H, W, 3] in [-1, 1].
          training: whether this is a training step.

        Returns:
          float32 [B, h, w, channels].
        """
        batch_statistics = training and self.protocol.batch_norm == "batch"
        backbone = self.network.backbone
        endpoints = backbone(images, training=batch_statistics)
        return tf.cast(endpoints[backbone.layer_names[-1]], tf.float32)

    def uniform(self, shape, stream: int):
        """Draw uniform numbers in [0, 1).

        They are a function of (seed, step, replica, stream). Every draw of a step has its own stream.
        """
        context = tf.distribute.get_replica_context()
        replica = context.replica_id_in_sync_group if context is not None else 0
        step = tf.cast(self.optimizer.iterations.value, tf.int32)
        seeds = tf.stack([self.seed, step])
        for number in (stream, replica):
            seeds = tf.random.experimental.stateless_fold_in(seeds, number)
        return tf.random.stateless_uniform(shape, seeds)

    def dropout(self, keep_probability: float) -> Callable[[Any, int], Any]:
        """Return the dropout of this step, a map of (values, stream) to scaled values."""

        def drop(values, stream: int):
            keep_mask = tf.cast(self.uniform(tf.shape(values), stream) < keep_probability, values.dtype)
            return values * keep_mask / keep_probability

        return drop

    def l2(self):
        """Return weight_decay * sum of w ** 2 / 2 over the trainable kernels; 0 where the optimizer decays them."""
        kernels = [variable for variable in self.network.trainable_variables if variable.name == "kernel"]
        return losses.l2(kernels, base.loss_weight_decay(self, self.protocol.weight_decay))

    def filters(self):
        """Return the kernels of conv_1 for pictures."""
        return self.network.backbone.first_kernels()


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Test result of a trained model on N images.

    Attributes:
      value: the headline in [0, 1], the mean of `per_class` over the classes that are not nan.
      per_class: float [C] in [0, 1]; nan where a class cannot be measured.
      figures: further figures by name, JSON-ready.
      weighted: function for the bootstrap that maps int [N], the count of each image, to `per_class` of the resample.
    """

    value: float
    per_class: np.ndarray
    figures: dict[str, Any]
    weighted: Callable[[np.ndarray], np.ndarray]


class VocTask(abc.ABC):
    """One task on a training and a test set.

    Args:
      train: training images.
      test: test images with the same classes.
      protocol: protocol of the task.
    """

    name: str  # name of the task in records and messages
    measure: str  # name of the headline

    def __init__(self, train: Images, test: Images, protocol: VocProtocol):
        self.train = train
        self.test = test
        self.protocol = protocol

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names of both sets."""
        return self.train.set.class_names

    @property
    def run_settings(self) -> dict[str, Any]:
        """Further settings that decide the result, JSON-ready.

        A run with another value is another run, as for images and protocol.
        """
        return {}

    @abc.abstractmethod
    def model(self, loaded: LoadedModel, seed: int, precision: str) -> TransferModel:
        """Return the uncompiled model with the weights of the export and a new head."""

    @abc.abstractmethod
    def example(self, loaded: LoadedModel) -> Callable[[tf.Tensor, tf.Tensor], Any]:
        """Return a `tf.data` map of (index of a training image, int64 [2] seed) to one augmented example."""

    def combine(self, examples: tf.data.Dataset, size: int) -> tf.data.Dataset:
        """Batch examples; a task whose examples differ in size overrides this."""
        return examples.batch(size, drop_remainder=True)

    @abc.abstractmethod
    def evaluate(self, model: TransferModel, title: str) -> Evaluation:
        """Test a float32 model; `title` precedes the progress bar."""

    @abc.abstractmethod
    def draw(self, model: TransferModel, numbers: Sequence[int]) -> np.ndarray:
        """Draw test images with truth and prediction, uint8 [h, w, 3]."""

    def batches(self, loaded: LoadedModel, seed: int, share, first_step: int, steps: int) -> tf.data.Dataset:
        """Return the training batches of one input context (`share`)."""
        size = self.protocol.batch_size
        examples = data.shuffled_examples(
            self.train.set.num_examples,
            self.example(loaded),
            batch_size=size,
            seed=seed,
            steps=steps,
            first_step=first_step,
            share=share,
        )
        return data.in_order(self.combine(examples, size // share.num_replicas_in_sync))

    def samples(self, loaded: LoadedModel) -> Any:
        """Return a batch of the first training images, for pictures and histograms."""
        count = min(PICTURES, self.train.set.num_examples)
        example = self.example(loaded)
        examples = tf.data.Dataset.range(count).map(lambda index: example(index, tf.stack([index, index])))
        return next(iter(self.combine(examples, count)))


def config_of(loaded: LoadedModel, protocol: VocProtocol, seed: int) -> Config:
    """Return the configuration of a run.

    Networks and images are the export's, loss and schedule the protocol's.
    """
    schedule = TrainingConfig(
        batch_size=protocol.batch_size,
        steps=protocol.steps,
        optimizer=protocol.optimizer,
        momentum=protocol.momentum,
        bias_gradient_factor=protocol.bias_gradient_factor,
        learning_rate=protocol.learning_rate,
        global_clipnorm=protocol.global_clipnorm,
        precision=protocol.precision or loaded.config.gan_training.precision,
        seed=seed,
        ema_decay=0.0,
    )
    loss = dataclasses.replace(loaded.config.loss, weight_decay=protocol.weight_decay)
    return dataclasses.replace(loaded.config, loss=loss, gan_training=schedule)


def learning_rate(protocol: VocProtocol):
    """Return the rate as `build_optimizer` takes it: a schedule, or the first rate of a linear decay."""
    if protocol.optimizer != "sgd":
        return protocol.learning_rate
    # Without rate_steps the rate is constant: it "falls" to 1 times itself.
    interval = protocol.rate_steps or protocol.steps
    factor = protocol.rate_factor if protocol.rate_steps else 1.0
    return keras.optimizers.schedules.ExponentialDecay(protocol.learning_rate, interval, factor, staircase=True)


def make_task(task: VocTask, loaded: LoadedModel, seed: int) -> training.Task:
    """Return the training that `fit` runs."""
    config = config_of(loaded, task.protocol, seed)
    protocol = task.protocol
    images = task.train.set
    # The record holds what decides the weights. Another rule, more seeds or more resamples reuse existing runs.
    details = {
        # NB: `RunRecord.data` may change between starts of a run, this may not.
        "train_fingerprint": images.fingerprint,
        "classes": list(task.class_names),
        "protocol": protocol.of_training(),
        "features": loaded.fingerprint,
    }
    details.update(task.run_settings)
    record = training.RunRecord.of_images(task.name, config, images, details=details)

    def build() -> TransferModel:
        model = task.model(loaded, seed, config.gan_training.precision)
        rate = learning_rate(protocol)
        model.compile(build_optimizer(config.gan_training, protocol.steps, rate, protocol.weight_decay))
        model.optimizer.build(model.trainable_variables)
        return model

    return training.Task(
        record=record,
        section="gan_training",
        steps=protocol.steps,
        build=build,
        batches=lambda share, first_step, steps: task.batches(loaded, seed, share, first_step, steps),
        samples=task.samples(loaded),
        check_data=task.train.check_files,
    )


def fit(
    task: VocTask,
    loaded: LoadedModel,
    seed: int,
    workdir,
    options: training.MonitoringOptions = training.MonitoringOptions(),  # noqa: B008 (frozen)
    strategy: tf.distribute.Strategy | None = None,
) -> TransferModel:
    """Train the backbone of an export for a task, or resume.

    Args:
      task: task with its images.
      loaded: export with the initial weights.
      seed: seed of head, order, augmentation and dropout.
      workdir: folder of this run; an existing run resumes, a finished one is read.
      options: intervals of monitoring and checkpoints.
      strategy: result of `training.build_strategy`; None: that of "auto".

    Returns:
      The trained model in float32, for inference.

    Raises:
      TrainingError: as for `training.run`.
      KeyboardInterrupt: stopped by a signal, after a checkpoint was written.
    """
    print(f"{loaded.path}, seed {seed}: training in {workdir}", flush=True)
    result = training.run(make_task(task, loaded, seed), pathlib.Path(workdir), options, strategy)
    reraise_signal(result.signal)
    model = task.model(loaded, seed, "float32")
    run_dir.restore_networks(workdir, network=model.network)
    return model
