"""What the three VOC tasks share: a backbone with a new head, its training, and what a task has to say of itself."""

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
from lts import data, training
from lts.config import Config, TrainingConfig
from lts.export.saved_model import LoadedModel
from lts.training import run_dir
from lts.training.optimizers import build_optimizer
from lts.utils import provenance
from lts.utils.errors import UserError
from lts.utils.signals import reraise_signal

PICTURES = 6  # rows of TensorBoard's picture strip
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


class TransferError(UserError):
    """A task that cannot be run on these images."""


class Network(keras.Model):
    """AlexNet and head: what a checkpoint holds.

    Args:
      backbone: of an export, built.
      head: built here, on conv_5's map.
      frozen: number of first convolutions that do not learn.
    """

    def __init__(self, backbone: keras.Model, head: keras.Model, frozen: int, name="network", **kwargs):
        super().__init__(name=name, **kwargs)
        self.backbone, self.head = backbone, head
        head.build((None, None, None, backbone.convs[-1].filters))
        for conv in backbone.convs[:frozen]:
            conv.trainable = False


class TransferModel(training.TrainableModel):
    """The backbone of an export under a new head, with one loss: base of the three tasks' models.

    A subclass gives `compute_losses(batch, training=True)`, scalars by name with their sum "loss", names them in
    METRICS with "gradient_norm", and gives `pictures(batch)`: name to [B, H, W, 1 or 3] in [-1, 1].

    Args:
      loaded: the export; its weights are where training begins.
      head: a Keras model that `build((None, None, None, channels of conv_5))` makes whole, in float32, its layers
        named.
      protocol: what learns, and how.
      seed: of dropout.
      precision: of the backbone's activations, "float32" or "bfloat16"; the head is in float32 either way.
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
        self.protocol, self.seed = protocol, seed
        backbone = loaded.keras_model(dtype=POLICIES[precision]).backbone
        self.network = Network(backbone, head, protocol.frozen)
        self.built = True

    def features(self, images, training: bool = False):
        """conv_5's map, float32 [B, h, w, channels], of images [B, H, W, 3] in [-1, 1].

        In training, layers that learn normalise with the batch's statistics where the protocol says so; frozen ones
        never do.
        """
        training = training and self.protocol.batch_norm == "batch"
        return tf.cast(self.network.backbone(images, training=training)["conv_5"], tf.float32)

    def uniform(self, shape, stream: int):
        """Numbers in [0, 1), a function of (seed, step, replica, stream): every draw of a step has its own stream."""
        context = tf.distribute.get_replica_context()
        replica = context.replica_id_in_sync_group if context is not None else 0
        seeds = tf.stack([self.seed, tf.cast(self.optimizer.iterations.value, tf.int32)])
        for number in (stream, replica):
            seeds = tf.random.experimental.stateless_fold_in(seeds, number)
        return tf.random.stateless_uniform(shape, seeds)

    def dropout(self, keep: float) -> Callable[[Any, int], Any]:
        """A step's dropout, as heads call it: (values, stream) to values, of which a share `keep` is left, scaled."""

        def drop(values, stream: int):
            kept = tf.cast(self.uniform(tf.shape(values), stream) < keep, values.dtype)
            return values * kept / keep

        return drop

    def l2(self):
        """The protocol's weight decay: weight_decay * sum of w ** 2 / 2 over the kernels that learn."""
        kernels = [v for v in self.network.trainable_variables if v.name == "kernel"]
        return self.protocol.weight_decay * tf.add_n([tf.nn.l2_loss(v.value) for v in kernels])

    def filters(self):
        """Kernels [k, k, 3, n] of conv_1, for pictures; [k, k, 1, n] if it has 3 groups."""
        conv_1 = self.network.backbone.convs[0]
        blocks = getattr(conv_1, "blocks", [conv_1])
        return np.concatenate([keras.ops.convert_to_numpy(block.kernel) for block in blocks], -1)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a trained model reaches on the N test images.

    Attributes:
      value: the headline, in [0, 1].
      per_class: float [C], in [0, 1]; nan where a class cannot be measured.
      figures: further figures by name, JSON-ready.
      weighted: int [N], how often each image counts, to float [C], `per_class` of those: for the bootstrap. The mean
        over the classes that are not nan is the headline.
    """

    value: float
    per_class: np.ndarray
    figures: dict[str, Any]
    weighted: Callable[[np.ndarray], np.ndarray]


class VocTask(abc.ABC):
    """One task on one pair of data sets: what `fit` trains and tests.

    Args:
      train: images to learn from.
      test: images to report on, with the same classes.
      protocol: of the task.
    """

    name: str  # the stage in records and messages
    measure: str  # what the headline is called

    def __init__(self, train: Images, test: Images, protocol: VocProtocol):
        self.train, self.test, self.protocol = train, test, protocol

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of both sets."""
        return self.train.set.class_names

    @property
    def beside(self) -> dict[str, Any]:
        """What decides the result beside images and protocol, JSON-ready: with another value a run is another run."""
        return {}

    @abc.abstractmethod
    def model(self, loaded: LoadedModel, seed: int, precision: str) -> TransferModel:
        """The model of the task with the export's weights and a new head, not compiled."""

    @abc.abstractmethod
    def example(self, loaded: LoadedModel) -> Callable[[tf.Tensor, tf.Tensor], Any]:
        """A map, for `tf.data`, of (training image's number, int64 [2] seed of this visit) to one augmented example."""

    def combine(self, examples: tf.data.Dataset, size: int) -> tf.data.Dataset:
        """Batches of `size` examples; a task whose examples differ in size overrides this."""
        return examples.batch(size, drop_remainder=True)

    @abc.abstractmethod
    def evaluate(self, model: TransferModel, title: str) -> Evaluation:
        """Tests a model, in float32; `title` stands before the progress."""

    @abc.abstractmethod
    def draw(self, model: TransferModel, numbers: Sequence[int]) -> np.ndarray:
        """Test images of these numbers with truth beside prediction: uint8 [h, w, 3]."""

    def batches(self, loaded: LoadedModel, seed: int, share, first_step: int, steps: int) -> tf.data.Dataset:
        """A share of the training batches, each a function of (seed, position); `share` is an input context."""
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
        """A batch of the first training images, for pictures and histograms."""
        count, example = min(PICTURES, self.train.set.num_examples), self.example(loaded)
        examples = tf.data.Dataset.range(count).map(lambda number: example(number, tf.stack([number, number])))
        return next(iter(self.combine(examples, count)))


def config_of(loaded: LoadedModel, protocol: VocProtocol, seed: int) -> Config:
    """The configuration of a run: networks and images as the export has them, loss and schedule by the protocol."""
    schedule = TrainingConfig(
        batch_size=protocol.batch_size,
        steps=protocol.steps,
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
    if protocol.optimizer == "adam":
        return protocol.learning_rate
    # Without rate_steps the rate is constant: it "falls" to 1 times itself.
    interval = protocol.rate_steps or protocol.steps
    factor = protocol.rate_factor if protocol.rate_steps else 1.0
    return keras.optimizers.schedules.ExponentialDecay(protocol.learning_rate, interval, factor, staircase=True)


def make_task(task: VocTask, loaded: LoadedModel, seed: int) -> training.Task:
    """What `fit` runs."""
    config, protocol, images = config_of(loaded, task.protocol, seed), task.protocol, task.train.set
    record = {
        "stage": task.name,
        "dataset": images.name,
        "split": images.split,
        "config": config,
        "data": {"images": images.num_examples, "fingerprint": images.fingerprint},
        "train_fingerprint": images.fingerprint,  # beside: a run on other images is another run
        "classes": list(task.class_names),
        "protocol": protocol.of_training(),
        "features": loaded.fingerprint,
        **task.beside,
        "hardware": provenance.hardware(),
        "commit": provenance.commit(),
    }

    def build() -> TransferModel:
        model = task.model(loaded, seed, config.gan_training.precision)
        constants = config.gan_training if protocol.optimizer == "adam" else protocol
        model.compile(build_optimizer(constants, protocol.steps, learning_rate(protocol)))
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
    """Trains an export's backbone for a task, or goes on with it where it stopped.

    Args:
      task: what is trained, and on what.
      loaded: the export to begin with.
      seed: of head, order, augmentation and dropout.
      workdir: folder of this run; a run that is in it goes on, a finished one is read.
      options: intervals of monitoring and checkpoints.
      strategy: from `training.build_strategy`; None: as it builds for "auto".

    Returns:
      The trained model in float32, for inference.

    Raises:
      TrainingError: as `training.run` raises it.
      KeyboardInterrupt: Ctrl-C or SIGTERM, raised again after a checkpoint.
    """
    print(f"{loaded.path}, seed {seed}: training in {workdir}", flush=True)
    result = training.run(make_task(task, loaded, seed), pathlib.Path(workdir), options, strategy)
    reraise_signal(result.signal)
    model = task.model(loaded, seed, "float32")
    run_dir.restore_networks(workdir, network=model.network)
    return model
