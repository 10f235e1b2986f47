"""Feature layers as an ordinary Keras model."""

import keras
import tensorflow as tf

from lts.config import DiscriminatorConfig
from lts.networks.autoencoder import _tuples
from lts.networks.discriminator import AlexNet


@keras.saving.register_keras_serializable("lts")
class FeatureExtractor(keras.Model):
    """AlexNet up to one layer, preprocessing inside.

    This project; for fine-tuning with `fit`. `trainable = False` freezes the batch norm statistics too, as in Keras.

    Shapes: images `[8, 96, 96, 3]` give `[8, 6, 6, 256]` for conv_5 of preset `release`.

    Args:
      config: of the backbone.
      layer: the last layer; later layers are not built.
      name: of the model.
      dtype: Keras dtype or dtype policy.
      **batch_norm: the bn_... arguments of `ConvBlock`.

    Example:
      >>> backbone = lts.load("runs/features").keras_model("conv_3")
      >>> model = keras.Sequential([backbone, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)])
    """

    def __init__(self, config: DiscriminatorConfig, layer: str = "conv_5", name="features", dtype=None, **batch_norm):
        super().__init__(name=name, dtype=dtype)
        self.config = config
        self.layer = layer
        self.batch_norm = batch_norm
        self.backbone = AlexNet(config, last=layer, dtype=self.dtype_policy, **batch_norm)

    def build(self, input_shape):
        self.backbone.build(input_shape)

    def call(self, images, training=False):
        """Return the activations [B, h, w, channels] of images [B, H, W, 3] in [0, 255]."""
        signed = tf.cast(images, self.compute_dtype) / 127.5 - 1
        # NB: a frozen Keras model keeps its batch norm statistics even in training mode.
        return self.backbone(signed, training=training and self.trainable)[self.layer]

    def get_config(self):
        return {**super().get_config(), "config": vars(self.config), "layer": self.layer, **self.batch_norm}

    @classmethod
    def from_config(cls, config):
        return cls(DiscriminatorConfig(**_tuples(config.pop("config"))), **config)
