"""What the discriminator learns.

Each task adds one term to the discriminator's total. The first two are the method (paper section 3; release), the
others are (ours) and active where their weight is above 0.
"""

import abc
import dataclasses
from collections.abc import Mapping

import tensorflow as tf

from lts import losses
from lts.config import Config
from lts.config.checks import task_weights
from lts.config.registries import TASKS
from lts.models import replicas
from lts.models.turns import TURNS, all_turns, random_turns, turns_of_rows

METHOD = ("real_or_fake", "mask")  # tasks of the paper

Truth = Mapping[str, tf.Tensor]  # what is known of each image of a batch, by name; entries [B, ...]


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The discriminator's outputs on a batch, and the truth.

    Attributes:
      outputs: the discriminator's dict. Rows are B real images, then B repaired ones.
      keep_mask: of the repaired images [B, h, w, 1].
      truth: "labels" int [B], -1 where unknown, if a task needs them, and what the tasks' `prepare` added.
      turned: the discriminator's dict for photographs in all four turns [4B]; None: no task `turns_photographs`.
    """

    outputs: dict[str, tf.Tensor]
    keep_mask: tf.Tensor
    truth: Truth = dataclasses.field(default_factory=dict)
    turned: dict[str, tf.Tensor] | None = None


class DiscriminatorTask(abc.ABC):
    """One thing that the discriminator predicts.

    Args:
      config: of the run.
      classes: number of classes of the images; 0 if no task needs labels.

    Attributes:
      name: of the loss term, and of the entry in `TASKS`.
      accuracies: names of what `accuracy` returns.
      needs_labels: whether the truth must have "labels".
      units: logits of an additional head on fc_1, with the output `NAME_logits`; 0: the discriminator has the head.
      views: rows that `prepare` makes of every image.
      turns_photographs: whether the discriminator's batch holds the images themselves in all four turns, too.
      weight: of the loss term, `--NAME_weight` or from `--task_weights`.
      generator_weight: weight of the repair network's term; 0: there is none.
    """

    name: str
    accuracies: tuple[str, ...] = ()
    needs_labels: bool = False
    units: int = 0
    views: int = 1
    turns_photographs: bool = False
    generator_weight: float = 0.0

    def __init__(self, config: Config, classes: int = 0):
        self.config = config.loss
        self.seed = config.gan_training.seed
        self.classes = classes
        self.weight = config.loss.task_weight(self.name)

    @classmethod
    def is_active(cls, config: Config) -> bool:
        """Return whether a run has the task."""
        return config.loss.task_weight(cls.name) > 0

    def prepare(self, images, truth: Truth, step) -> tuple[tf.Tensor, Truth]:
        """Return the images that a step shows to the encoder, and what is known of them.

        Args:
          images: [B, H, W, 3] in [-1, 1].
          truth: entries [B, ...].
          step: int64 scalar, training steps done. Random numbers are functions of seed, step and position, see
            `replicas.per_replica_random`.

        Returns:
          Images [views * B, H, W, 3], the views of an image one after another, and entries [views * B, ...].
        """
        del step
        return images, truth

    @abc.abstractmethod
    def loss(self, predictions: Predictions):
        """Return the weighted loss, a scalar."""

    def generator_loss(self, predictions: Predictions):
        """Return the repair network's weighted term, where `generator_weight` is not 0."""
        raise NotImplementedError

    def accuracy(self, predictions: Predictions) -> dict[str, tf.Tensor]:
        """Return the accuracies by name."""
        del predictions
        return {}


class RealFake(DiscriminatorTask):
    """Real or repaired (paper section 3; release)."""

    name = "real_or_fake"
    accuracies = ("accuracy_real", "accuracy_repaired")

    @classmethod
    def is_active(cls, config: Config) -> bool:
        return not config.discriminator.joint_turns

    def loss(self, predictions: Predictions):
        real_logits, fake_logits = tf.split(predictions.outputs["logits"], 2)
        return losses.real_fake(real_logits, fake_logits)

    def accuracy(self, predictions: Predictions):
        return real_fake_accuracies(predictions)


class Mask(DiscriminatorTask):
    """Which cells were kept (paper section 3; release)."""

    name = "mask"
    accuracies = ("accuracy_mask",)

    @classmethod
    def is_active(cls, config: Config) -> bool:
        return True

    def loss(self, predictions: Predictions):
        keep_mask = predictions.keep_mask
        cell_labels = tf.concat([tf.ones_like(keep_mask), keep_mask], 0)[..., 0]  # real images are kept everywhere
        return losses.mask_prediction(predictions.outputs["mask_logits"], cell_labels, self.weight)

    def accuracy(self, predictions: Predictions):
        _, predicted_mask = tf.split(predictions.outputs["mask_logits"] > 0, 2)  # of repaired images
        return {"accuracy_mask": _share(predicted_mask == (predictions.keep_mask[..., 0] > 0.5))}


class Rotation(DiscriminatorTask):
    """By how many quarter turns an image was turned (ours).

    Images are turned before the encoder: a turn of the decoded image would show in the decoder's traces.
    Self-supervised GANs (Chen et al., 2019) have the same task. The generator's term makes repaired images keep their
    turn visible.

    With `rotation_images` of "photographs" the task has separate images, which nothing decodes: it is rotation
    prediction (Gidaris et al., 2018) with the same network, and the other tasks are those of the paper.
    """

    name = "rotation"
    accuracies = ("accuracy_rotation",)
    units = TURNS

    def __init__(self, config: Config, classes: int = 0):
        super().__init__(config, classes)
        self.generator_weight = self.config.rotation_generator_weight
        self.views = TURNS if self.config.rotation_turns == "all" else 1
        self.turns_photographs = self.config.rotation_images == "photographs"

    def prepare(self, images, truth: Truth, step):
        if self.turns_photographs:
            return images, truth
        if self.views == TURNS:
            repeated = {name: tf.repeat(entry, TURNS, axis=0) for name, entry in truth.items()}
            turned, turns = all_turns(images)
            return turned, repeated | {"turns": turns}
        seed = tf.stack([-1 - self.seed, tf.cast(step, tf.int32)])
        turned, turns = random_turns(images, replicas.per_replica_random(seed, [tf.shape(images)[0]]))
        return turned, {**truth, "turns": turns}

    def loss(self, predictions: Predictions):
        if self.config.rotation_images == "both":
            return self.weight * sum(self._halves(predictions)) / 2
        return self.weight * losses.classification(*self._turns_to_tell(predictions))

    def generator_loss(self, predictions: Predictions):
        _, fake_loss = self._halves(predictions)
        return self.generator_weight * fake_loss

    def accuracy(self, predictions: Predictions):
        logits, turns = self._turns_to_tell(predictions)
        return {"accuracy_rotation": _share(tf.argmax(logits, 1, output_type=tf.int32) == turns)}

    def _turns_to_tell(self, predictions: Predictions):
        """Return logits and turns of the photographs, or of the real images."""
        if self.turns_photographs:
            logits = predictions.turned["rotation_logits"]
            return logits, turns_of_rows(logits)
        logits, _ = tf.split(predictions.outputs["rotation_logits"], 2)
        return logits, predictions.truth["turns"]

    def _halves(self, predictions: Predictions):
        """Return the cross entropies of real and repaired images."""
        logits = tf.split(predictions.outputs["rotation_logits"], 2)
        return [losses.classification(half, predictions.truth["turns"]) for half in logits]


class JointTurns(Rotation):
    """Real or repaired and the turn at once (SSGAN-LA, Hou et al., 2021; ours).

    One head with a class for each pair replaces the tasks `real_or_fake` and `rotation`. The discriminator minimises
    the cross entropies of real and repaired images. The repair network minimises, for its images, the cross entropy of
    the class "real, in this turn" minus that of "repaired, in this turn". The authors' code, github liang-hou/ssgan-la,
    has the same two terms, without weights; its discriminator takes the sum of both halves, this one the mean, as
    `real_or_fake` does.
    """

    name = "joint_turns"
    accuracies = ("accuracy_real", "accuracy_repaired", "accuracy_rotation")
    units = 0

    def __init__(self, config: Config, classes: int = 0):
        super().__init__(config, classes)
        self.generator_weight = 0.0
        self.turns_photographs = False

    @classmethod
    def is_active(cls, config: Config) -> bool:
        return config.discriminator.joint_turns

    def loss(self, predictions: Predictions):
        real_logits, fake_logits = tf.split(predictions.outputs["joint_logits"], 2)
        turns = predictions.truth["turns"]
        real_loss = losses.classification(real_logits, _joint_class(losses.REAL, turns))
        fake_loss = losses.classification(fake_logits, _joint_class(losses.FAKE, turns))
        return (real_loss + fake_loss) / 2

    def adversarial_loss(self, predictions: Predictions):
        """Return the repair network's term."""
        _, fake_logits = tf.split(predictions.outputs["joint_logits"], 2)
        turns = predictions.truth["turns"]
        as_real = losses.classification(fake_logits, _joint_class(losses.REAL, turns))
        return as_real - losses.classification(fake_logits, _joint_class(losses.FAKE, turns))

    def accuracy(self, predictions: Predictions):
        real_logits, _ = tf.split(predictions.outputs["joint_logits"], 2)
        by_turn = tf.reduce_logsumexp(tf.reshape(real_logits, [-1, 2, TURNS]), 1)
        correct = tf.argmax(by_turn, 1, output_type=tf.int32) == predictions.truth["turns"]
        return {**real_fake_accuracies(predictions), "accuracy_rotation": _share(correct)}


class Labels(DiscriminatorTask):
    """The class of the images that have a label (ours).

    Semi-supervised learning as in S4L (Zhai et al., 2019): the self-supervised tasks see all images, the cross entropy
    of the classes those with a label. Repaired images are skipped: their content may be another one.
    """

    name = "labels"
    accuracies = ("accuracy_labels",)
    needs_labels = True

    def __init__(self, config: Config, classes: int = 0):
        super().__init__(config, classes)
        if classes < 2:
            raise ValueError(f"the task of labels needs at least two classes. Received: classes={classes}")
        self.units = classes

    def loss(self, predictions: Predictions):
        logits, _ = tf.split(predictions.outputs["labels_logits"], 2)
        labels = predictions.truth["labels"]
        return self.weight * losses.known_classification(logits, labels, _known(labels))

    def accuracy(self, predictions: Predictions):
        logits, _ = tf.split(predictions.outputs["labels_logits"], 2)
        labels = tf.cast(predictions.truth["labels"], tf.int32)
        correct = tf.cast(tf.argmax(logits, 1, output_type=tf.int32) == labels, tf.float32)  # never for -1
        return {"accuracy_labels": tf.math.divide_no_nan(tf.reduce_sum(correct), _known(labels))}


def active_tasks(config: Config, classes: int = 0) -> dict[str, DiscriminatorTask]:
    """Return the tasks of a run by name.

    Raises:
      UnknownNameError: `task_weights` names a task that is not registered.
    """
    for name in task_weights(config.loss.task_weights):
        TASKS[name]
    return {name: TASKS[name](config, classes) for name in TASKS if TASKS[name].is_active(config)}


def needs_labels(config: Config) -> bool:
    """Return whether a run has a task that needs labels."""
    return any(TASKS[name].needs_labels and TASKS[name].is_active(config) for name in TASKS)


def real_fake_accuracies(predictions: Predictions) -> dict[str, tf.Tensor]:
    """Return the shares of real and of repaired images that are told."""
    classes = tf.argmax(predictions.outputs["logits"], 1, output_type=tf.int32)
    real_classes, fake_classes = tf.split(classes, 2)
    return {
        "accuracy_real": _share(real_classes == losses.REAL),
        "accuracy_repaired": _share(fake_classes == losses.FAKE),
    }


def _joint_class(half: int, turns):
    """Return the classes of `joint_logits`, int [B]."""
    return half * TURNS + turns


def _share(correct):
    return tf.reduce_mean(tf.cast(correct, tf.float32))


def _known(labels):
    """Return the number of known labels: the mean over the replicas, see `losses.known_classification`."""
    return replicas.replica_mean(tf.reduce_sum(tf.cast(labels >= 0, tf.float32)))
