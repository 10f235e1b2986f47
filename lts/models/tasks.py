"""What the discriminator learns.

Each task adds one term to the discriminator's total. The first two are the method (paper section 3; release), the
others are (ours) and active where their weight is above 0.
"""

import abc
import dataclasses

import tensorflow as tf

from lts import losses
from lts.config import Config
from lts.models.turns import TURNS


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The discriminator's outputs on a batch, and the truth.

    Rows are B real images, then B repaired ones.

    Attributes:
      outputs: the discriminator's dict.
      keep_mask: of the repaired images [B, h, w, 1].
      turns: quarter turns of all images, int [2B]; None without the task `rotation`.
    """

    outputs: dict[str, tf.Tensor]
    keep_mask: tf.Tensor
    turns: tf.Tensor | None = None


class DiscriminatorTask(abc.ABC):
    """One thing that the discriminator predicts.

    Args:
      config: of the run.

    Attributes:
      name: of the loss term.
      accuracies: names of what `accuracy` returns.
      units: logits of an additional head on fc_1, with the output `NAME_logits`; 0: the discriminator has the head.
      generator_weight: weight of the repair network's term; 0: there is none.
    """

    name: str
    accuracies: tuple[str, ...]
    units: int = 0

    generator_weight: float = 0.0

    def __init__(self, config: Config):
        self.config = config.loss

    @classmethod
    def is_active(cls, config: Config) -> bool:
        """Return whether a run has the task."""
        return True

    @abc.abstractmethod
    def loss(self, predictions: Predictions):
        """Return the weighted loss, a scalar."""

    def generator_loss(self, predictions: Predictions):
        """Return the repair network's weighted term, where `generator_weight` is not 0."""
        raise NotImplementedError

    @abc.abstractmethod
    def accuracy(self, predictions: Predictions) -> dict[str, tf.Tensor]:
        """Return the accuracies by name."""


class RealFake(DiscriminatorTask):
    """Real or repaired (paper section 3; release)."""

    name = "real_or_fake"
    accuracies = ("accuracy_real", "accuracy_repaired")

    def loss(self, predictions: Predictions):
        real_logits, fake_logits = tf.split(predictions.outputs["logits"], 2)
        return losses.real_fake(real_logits, fake_logits)

    def accuracy(self, predictions: Predictions):
        classes = tf.argmax(predictions.outputs["logits"], 1, output_type=tf.int32)
        real_classes, fake_classes = tf.split(classes, 2)
        return {
            "accuracy_real": _share(real_classes == losses.REAL),
            "accuracy_repaired": _share(fake_classes == losses.FAKE),
        }


class Mask(DiscriminatorTask):
    """Which cells were kept (paper section 3; release)."""

    name = "mask"
    accuracies = ("accuracy_mask",)

    def loss(self, predictions: Predictions):
        keep_mask = predictions.keep_mask
        cell_labels = tf.concat([tf.ones_like(keep_mask), keep_mask], 0)[..., 0]  # real images are kept everywhere
        return losses.mask_prediction(predictions.outputs["mask_logits"], cell_labels, self.config.mask_weight)

    def accuracy(self, predictions: Predictions):
        _, predicted_mask = tf.split(predictions.outputs["mask_logits"] > 0, 2)  # of repaired images
        return {"accuracy_mask": _share(predicted_mask == (predictions.keep_mask[..., 0] > 0.5))}


class Rotation(DiscriminatorTask):
    """By how many quarter turns an image was turned (ours).

    Images are turned before the encoder: a turn of the decoded image would show in the decoder's traces.
    Self-supervised GANs (Chen et al., 2019) have the same task. The generator's term makes repaired images keep their
    turn visible.
    """

    name = "rotation"
    accuracies = ("accuracy_rotation",)
    units = TURNS

    def __init__(self, config: Config):
        super().__init__(config)
        self.generator_weight = self.config.rotation_generator_weight

    @classmethod
    def is_active(cls, config: Config) -> bool:
        return config.loss.rotation_weight > 0

    def loss(self, predictions: Predictions):
        real_loss, fake_loss = self._halves(predictions)
        loss = real_loss if self.config.rotation_images == "real" else (real_loss + fake_loss) / 2
        return self.config.rotation_weight * loss

    def generator_loss(self, predictions: Predictions):
        _, fake_loss = self._halves(predictions)
        return self.generator_weight * fake_loss

    def accuracy(self, predictions: Predictions):
        logits, _ = tf.split(predictions.outputs["rotation_logits"], 2)
        turns, _ = tf.split(predictions.turns, 2)
        return {"accuracy_rotation": _share(tf.argmax(logits, 1, output_type=tf.int32) == turns)}  # of real images

    def _halves(self, predictions: Predictions):
        """Return the cross entropies of real and repaired images."""
        logits = tf.split(predictions.outputs["rotation_logits"], 2)
        turns = tf.split(predictions.turns, 2)
        return [losses.classification(*half) for half in zip(logits, turns, strict=True)]


TASKS = {task.name: task for task in (RealFake, Mask, Rotation)}


def active_tasks(config: Config) -> dict[str, DiscriminatorTask]:
    """Return the tasks of a run by name."""
    return {name: task(config) for name, task in TASKS.items() if task.is_active(config)}


def _share(correct):
    return tf.reduce_mean(tf.cast(correct, tf.float32))
