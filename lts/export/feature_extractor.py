"""The backbone as an ordinary Keras model, for fine-tuning with `fit` (ours)."""

import keras
import tensorflow as tf

from lts.config import DiscriminatorConfig
from lts.networks.autoencoder import _tuples
from lts.networks.discriminator import AlexNet


@keras.saving.register_keras_serializable("lts")
class FeatureExtractor(keras.Model):
    """Images to the feature map of one layer: the backbone up to that layer, preprocessing inside.

    An [8, 96, 96, 3] batch becomes [8, 6, 6, 256] for conv_5 of the release. `trainable = False` freezes the batch
    norm statistics too, as Keras users expect.

    Args:
      config: of the backbone.
      layer: the last layer; those behind it are not built.
      **batch_norm: the bn_... arguments of `ConvBlock`.

    Example:
      >>> backbone = lts.load("runs/features").keras_model()
      >>> model = keras.Sequential([backbone, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)])
    """

    def __init__(self, config: DiscriminatorConfig, layer: str = "conv_5", name="features", dtype=None, **batch_norm):
        super().__init__(name=name, dtype=dtype)
        self.config, self.layer, self.batch_norm = config, layer, batch_norm
        self.backbone = AlexNet(config, last=layer, dtype=self.dtype_policy, **batch_norm)

    def build(self, input_shape):
        self.backbone.build(input_shape)

    def call(self, images, training=False):
        """uint8 or float images [B, H, W, 3] in [0, 255] to activations [B, h, w, channels]."""
        signed = tf.cast(images, self.compute_dtype) / 127.5 - 1
        return self.backbone(signed, training=training and self.trainable)[self.layer]

    def get_config(self):
        return {**super().get_config(), "config": vars(self.config), "layer": self.layer, **self.batch_norm}

    @classmethod
    def from_config(cls, config):
        return cls(DiscriminatorConfig(**_tuples(config.pop("config"))), **config)
