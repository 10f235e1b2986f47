"""The discriminator's backbone as an ordinary classifier, of turned images or of labels: the method's rivals (ours)."""

import keras
import tensorflow as tf

from lts import losses
from lts.config import Config
from lts.models import base
from lts.networks.autoencoder import batch_norm_options
from lts.networks.discriminator import BackboneClassifier

TURNS = 4  # by 0, 90, 180 and 270 degrees


@keras.saving.register_keras_serializable("lts")
class Classifier(base.TrainableModel):
    """Softmax cross entropy + L2 on the backbone with a head, by default the discriminator's fc_1 and fc_2 (ours).

    With `turns` the task is rotation prediction: every image of a batch is shown
    in all four turns, and the class is the turn (Gidaris et al., 2018). An
    [8, 64, 64, 3] batch is then 32 images to the network.

    Args:
      config: the run's configuration.
      classes: to tell apart.
      turns: learn the turn of images instead of labels.
      head: of the network, see `BackboneClassifier`.
      frozen: number of first convolutions that do not train.

    Example:
      >>> model = Classifier(preset("small"), classes=10)
      >>> model.compile(optimizer=build_optimizer(config.gan_training, steps, 1e-3))
      >>> model.fit(batches)  # images [B, H, W, 3] in [-1, 1] and int labels [B]; images alone with `turns`
    """

    METRICS = ("loss", "classification", "accuracy", "l2", "gradient_norm")

    def __init__(
        self,
        config: Config,
        classes: int = TURNS,
        turns: bool = False,
        head: str = "fc",
        frozen: int = 0,
        name="classifier",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        self.config, self.classes, self.turns, self.head, self.frozen = config, classes, turns, head, frozen
        options = {"dtype": self.dtype_policy, **batch_norm_options(config.autoencoder)}
        self.network = BackboneClassifier(
            config.discriminator, config.discriminator_grid, classes, head, frozen, **options
        )

    def build(self, input_shape):
        self.network.build(input_shape)

    def call(self, images, training=False):
        """Logits [B, classes], float32, of images [B, H, W, 3] in [-1, 1]."""
        return self.network(images, training=training)["logits"]

    def examples(self, batch):
        """(images [N, H, W, 3], classes [N]) of a batch: itself, or its images in all turns with N = 4 B."""
        if not self.turns:
            return batch
        turned = [tf.image.rot90(batch, turn) for turn in range(TURNS)]
        return tf.concat(turned, 0), tf.repeat(tf.range(TURNS), tf.shape(batch)[0])

    def compute_losses(self, batch, training=True) -> dict:
        """Scalars: `classification`, `l2`, their sum `loss`, and the share of right answers, `accuracy`."""
        images, labels = self.examples(batch)
        dropout = self.draw(tf.shape(images)[0]) if training else None
        logits = self.network(images, training=training, dropout=dropout)["logits"]
        terms = {
            "classification": losses.classification(logits, labels),
            "l2": losses.l2(base.kernels(self.network), self.config.loss.weight_decay),
        }
        right = tf.argmax(logits, 1, output_type=tf.int32) == tf.cast(labels, tf.int32)
        return {"loss": tf.add_n(list(terms.values())), **terms, "accuracy": tf.reduce_mean(tf.cast(right, tf.float32))}

    def draw(self, count):
        """Dropout [count, 1, 1, fc_units], 1 = kept, a function of (seed, step, position in the global batch).

        None for a head without fc_1.
        """
        if self.head != "fc":
            return None
        settings, disc = self.config.gan_training, self.config.discriminator
        seed = tf.stack([settings.seed, tf.cast(self.optimizer.iterations.value, tf.int32)])
        numbers = base.per_replica_random(
            lambda shape: tf.random.stateless_uniform(shape, seed), [count, 1, 1, disc.fc_units]
        )
        return tf.cast(numbers < disc.dropout_keep, tf.float32)

    def pictures(self, batch) -> dict:
        """Rows of the picture strip: name to [B, H, W, 3] in [-1, 1]."""
        if not self.turns:
            return {"image": batch[0]}
        return {f"turned by {90 * turn}": tf.image.rot90(batch, turn) for turn in range(TURNS)}

    def filters(self):
        """Kernels [k, k, 3, n] of conv_1; [k, k, 1, n] if it has 3 groups."""
        return self.network.first_kernels()

    def histograms(self, batch) -> dict:
        """Name to tensor: weights, their gradients on a batch, and activations in training mode."""
        images, _ = self.examples(batch)
        with base.preserve_moving_statistics(self):
            activations = self.network(images, training=True)
        return {**super().histograms(batch), **{f"activations/{name}": value for name, value in activations.items()}}

    def get_config(self):
        return {
            **super().get_config(),
            "config": self.config.to_dict(),
            **{name: getattr(self, name) for name in ("classes", "turns", "head", "frozen")},
        }

    @classmethod
    def from_config(cls, config):
        return cls(Config.from_dict(config.pop("config")), **config)
