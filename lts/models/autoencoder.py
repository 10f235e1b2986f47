"""Stage 1: the autoencoder (paper section 3.1; release)."""

import keras
import tensorflow as tf

from lts import losses
from lts.config import Config
from lts.models import base, replicas
from lts.models.turns import random_turns
from lts.networks.autoencoder import Decoder, Encoder
from lts.networks.config_mixin import ConfigMixin


@keras.saving.register_keras_serializable("lts")
class Autoencoder(ConfigMixin, base.TrainableModel):
    """Autoencoder {E, D} of stage 1.

    The loss is 30 * mean squared error + weight decay (release).

    Args:
      config: of the run.

    Example:
      >>> import numpy as np
      >>> from lts.config import preset
      >>> model = Autoencoder(preset("tiny"))
      >>> model.compile("adam")
      >>> history = model.fit(np.zeros([8, 48, 48, 3], np.float32), verbose=0)  # images in [-1, 1]
    """

    METRICS = ("loss", "reconstruction", "l2", "gradient_norm")

    def __init__(self, config: Config, name="autoencoder", **kwargs):
        super().__init__(name=name, **kwargs)
        self.config = config
        self.encoder = Encoder(config.autoencoder, dtype=self.dtype_policy)
        self.decoder = Decoder(config.autoencoder, dtype=self.dtype_policy)
        self.build((None, config.image.image_size, config.image.image_size, 3))

    def build(self, input_shape):
        if self.built:
            return
        self.encoder.build(input_shape)
        grid = self.config.mask_grid
        self.decoder.build((None, grid, grid, self.config.autoencoder.encoder_filters[-1]))  # features of E

    def call(self, images, training=False):
        """Return the reconstructions of images, [B, H, W, 3]."""
        features = self.encoder(images, training=training)  # phi
        return self.decoder(features, training=training)

    def unpack(self, data):
        """Return the images of a batch."""
        return base.unpack_images(data, self.config.image.image_size)

    def decayed_weights(self) -> list:
        """Return all kernels and the last biases (BUILD_NOTES trap 13)."""
        return [*base.kernels(self.encoder), *base.kernels(self.decoder), self.decoder.to_image.bias]

    def compute_losses(self, images, training=True) -> dict:
        """Return the scalars `reconstruction`, `l2` and their sum `loss`."""
        config = self.config.loss
        if training and self.config.turns_images:
            images = self._turned(images)
        decoded = self(images, training=training)
        reconstruction_loss = losses.reconstruction(decoded, images, config.reconstruction_weight)
        weight_decay = losses.l2(self.decayed_weights(), base.loss_weight_decay(self, config.weight_decay))
        total = reconstruction_loss + weight_decay
        return {"loss": total, "reconstruction": reconstruction_loss, "l2": weight_decay}

    def _turned(self, images):
        """Return images in random quarter turns, for a stage 2 that tells turns (ours).

        Otherwise turned images would be decoded worse than others there, and the quality would tell the turn.
        """
        # No state: a resumed run draws the same turns.
        step = tf.cast(self.optimizer.iterations, tf.int32)
        seed = tf.stack([-1 - self.config.autoencoder_training.seed, step])
        turned, _ = random_turns(images, replicas.per_replica_random(seed, [tf.shape(images)[0]]))
        return turned

    def pictures(self, images) -> dict:
        """Return the rows of the picture strip by name."""
        return {"image": images, "reconstruction": self.decoder(self.encoder(images))}

    def filters(self):
        """Return the first kernels [3, 3, 3, filters] for pictures."""
        return keras.ops.convert_to_numpy(self.encoder.blocks[0].kernel)

    def histograms(self, images) -> dict:
        """Return weights, gradients and features on a batch."""
        return {**super().histograms(images), "activations/features": self.encoder(images)}
