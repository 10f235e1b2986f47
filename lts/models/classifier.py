"""Baselines of the method: the same backbone as a classifier.

Both are trained with the schedule of stage 2 (this project).
"""

import keras
import tensorflow as tf

from lts import losses
from lts.config import Config
from lts.models import base, replicas
from lts.models.turns import TURNS, all_turns
from lts.networks.autoencoder import batch_norm_config
from lts.networks.backbones import check_grid
from lts.networks.config_mixin import ConfigMixin
from lts.networks.discriminator import BackboneClassifier

ROTATIONS = TURNS  # classes of rotation prediction


class ClassifierModel(ConfigMixin, base.TrainableModel):
    """Backbone and head with softmax cross entropy.

    A subclass implements `examples(batch)`, which gives images and labels, and `pictures(batch)`.
    """

    METRICS = ("loss", "classification", "accuracy", "l2", "gradient_norm")

    def __init__(self, config: Config, classes: int, head: str = "fc", frozen: int = 0, name="classifier", **kwargs):
        super().__init__(name=name, **kwargs)
        self.config = config
        self.classes = classes
        self.head = head
        self.frozen = frozen
        bn_config = batch_norm_config(config.autoencoder)
        grid = config.mask_grid
        dtype = self.dtype_policy
        self.network = BackboneClassifier(config.discriminator, grid, classes, head, frozen, bn_config, dtype=dtype)
        check_grid(config, self.network.backbone)
        self.build((None, config.image.image_size, config.image.image_size, 3))

    def build(self, input_shape):
        if self.built:
            return
        self.network.build(input_shape)

    def call(self, images, training=False):
        """Return the logits [B, classes] of images in [-1, 1]."""
        return self.network(images, training=training)["logits"]

    def compute_losses(self, batch, training=True) -> dict:
        """Return the scalars `classification`, `l2`, their sum `loss`, `accuracy`."""
        images, labels = self.examples(batch)
        return self.classification_losses(self.logits(images, training), labels)

    def logits(self, images, training):
        """Return the logits of images, in training with the step's dropout."""
        dropout = self.draw(tf.shape(images)[0]) if training else None
        return self.network(images, training=training, dropout=dropout)["logits"]

    def classification_losses(self, logits, labels) -> dict:
        """Return the scalars of `compute_losses`."""
        classification_loss = losses.classification(logits, labels)
        factor = base.loss_weight_decay(self, self.config.loss.weight_decay)
        weight_decay = losses.l2(base.kernels(self.network), factor)  # frozen kernels too
        correct = tf.argmax(logits, 1, output_type=tf.int32) == tf.cast(labels, tf.int32)
        return {
            "loss": classification_loss + weight_decay,
            "classification": classification_loss,
            "l2": weight_decay,
            "accuracy": tf.reduce_mean(tf.cast(correct, tf.float32)),
        }

    def draw(self, batch_size):
        """Return a step's dropout mask; None without fc_1.

        The mask [batch_size, 1, 1, fc_units], 1 = kept, is a function of seed, step and position in the global batch.
        """
        if self.head != "fc":
            return None
        config = self.config.discriminator
        # No state: a resumed run draws the same masks.
        seed = tf.stack([self.config.gan_training.seed, tf.cast(self.optimizer.iterations, tf.int32)])
        uniform = replicas.per_replica_random(seed, [batch_size, 1, 1, config.fc_units])
        return tf.cast(uniform < config.dropout_keep, tf.float32)

    def filters(self):
        """Return the kernels of conv_1 for pictures."""
        return self.network.backbone.first_kernels()

    def histograms(self, batch) -> dict:
        """Return weights, gradients and activations on a batch."""
        tensors = super().histograms(batch)
        images, _ = self.examples(batch)
        with base.preserve_moving_statistics(self):
            activations = self.network(images, training=True)
        for name, value in activations.items():
            tensors[f"activations/{name}"] = value
        return tensors


@keras.saving.register_keras_serializable("lts")
class RotationPredictor(ClassifierModel):
    """Rotation prediction (Gidaris et al., 2018).

    Every image is shown in four rotations, and the class is the rotation. The model needs no labels.

    Shapes: a batch [8, 64, 64, 3] gives 32 images and logits [32, 4].

    Args:
      config: of the run.
      head, frozen: see `SupervisedClassifier`.
    """

    def __init__(self, config: Config, head: str = "fc", frozen: int = 0, **kwargs):
        super().__init__(config, ROTATIONS, head, frozen, **kwargs)

    def unpack(self, data):
        """Return the images of a batch."""
        return base.unpack_images(data, self.config.image.image_size)

    def examples(self, images):
        """Return 4B rotated images and their rotations, int [4B]."""
        return all_turns(images)

    def pictures(self, images) -> dict:
        """Return the rows of the picture strip by name."""
        return {f"turned by {90 * rotation}": tf.image.rot90(images, rotation) for rotation in range(ROTATIONS)}


@keras.saving.register_keras_serializable("lts")
class SupervisedClassifier(ClassifierModel):
    """Supervised classification: the upper bound of the comparison, and fine-tuning.

    Args:
      config: of the run.
      classes: number of classes.
      head: "fc", "linear" or "pooled", see `BackboneClassifier`.
      frozen: number of first convolutions that do not train.

    Example:
      >>> import numpy as np
      >>> from lts.config import preset
      >>> model = SupervisedClassifier(preset("tiny"), classes=10)
      >>> model.compile("adam")
      >>> images = np.zeros([8, 48, 48, 3], np.float32)  # in [-1, 1]
      >>> history = model.fit(images, np.zeros([8], np.int32), verbose=0)
    """

    def unpack(self, data):
        """Return the images and labels of a batch."""
        images = base.unpack_images(data, self.config.image.image_size)
        return images, base.unpack_labels(data)

    def examples(self, batch):
        """Return the batch itself."""
        return batch

    def pictures(self, batch) -> dict:
        """Return the rows of the picture strip by name."""
        images, _ = batch
        return {"image": images}
