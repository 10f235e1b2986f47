"""Stage 1: the autoencoder as a keras.Model with its own train_step (paper section 3.1; release)."""

import keras
import tensorflow as tf

from lts import losses
from lts.config import Config
from lts.models import base
from lts.networks.autoencoder import Decoder, Encoder


@keras.saving.register_keras_serializable("lts")
class Autoencoder(base.TrainableModel):
    """{E, D} and its loss: 30 * mean squared error + L2 (release).

    Args:
      config: the run's configuration.

    Example:
      >>> model = Autoencoder(preset("tiny"))
      >>> model.compile(optimizer=build_optimizer(config.autoencoder_training, steps, 3e-3))
      >>> model.fit(images)  # batches [B, H, W, 3] in [-1, 1]
    """

    METRICS = ("loss", "reconstruction", "l2", "gradient_norm")

    def __init__(self, config: Config, name="autoencoder", **kwargs):
        super().__init__(name=name, **kwargs)
        self.config = config
        self.encoder = Encoder(config.autoencoder, dtype=self.dtype_policy)
        self.decoder = Decoder(config.autoencoder, dtype=self.dtype_policy)

    def build(self, input_shape):
        self.encoder.build(input_shape)
        grid = self.config.mask_grid
        self.decoder.build((None, grid, grid, self.config.autoencoder.encoder_filters[-1]))

    def call(self, images, training=False):
        """Reconstructions [B, H, W, 3] in (-1, 1) of images [B, H, W, 3] in [-1, 1]."""
        return self.decoder(self.encoder(images, training=training), training=training)

    def decayed_weights(self) -> list:
        """All kernels and the last layer's biases (release)."""
        return [*base.kernels(self.encoder), *base.kernels(self.decoder), self.decoder.to_image.bias]

    def compute_losses(self, images, training=True) -> dict:
        """Scalar losses of a batch: `reconstruction`, `l2` and their sum `loss`."""
        terms = {
            "reconstruction": losses.reconstruction(
                self(images, training=training), images, self.config.loss.reconstruction_weight
            ),
            "l2": losses.l2(self.decayed_weights(), self.config.loss.weight_decay),
        }
        return {"loss": tf.add_n(list(terms.values())), **terms}

    def pictures(self, images) -> dict:
        """Rows of the picture strip: name to [B, H, W, 3] in [-1, 1]."""
        return {"image": images, "reconstruction": self.decoder(self.encoder(images))}

    def filters(self):
        """Kernels [3, 3, 3, n] of the encoder's first layer."""
        return keras.ops.convert_to_numpy(self.encoder.blocks[0].kernel)

    def histograms(self, images) -> dict:
        """Name to tensor: all weights, their gradients on images [B, H, W, 3], and the encoder's features."""
        return {**super().histograms(images), "activations/features": self.encoder(images)}

    def get_config(self):
        return {**super().get_config(), "config": self.config.to_dict()}

    @classmethod
    def from_config(cls, config):
        return cls(Config.from_dict(config.pop("config")), **config)
