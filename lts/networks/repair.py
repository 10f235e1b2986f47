"""The repair network R1..R5, spread over the frozen decoder (paper section 3; release)."""

import keras
import tensorflow as tf

from lts.config import AutoencoderConfig
from lts.networks.autoencoder import _tuples, batch_norm_options
from lts.networks.layers import ConvBlock, upsample_nearest


@keras.saving.register_keras_serializable("lts")
class RepairLayer(keras.layers.Layer):
    """x + (1 - keep) * r(x, keep): a residual that acts only where cells were dropped (paper section 3).

    r is a 3x3 convolution (batch norm, leaky ReLU) of [x, keep], the mask as
    last channel, and a 3x3 convolution with biases (release). Shapes stay:
    [8, 6, 6, 512] in, [8, 6, 6, 512] out.

    Args:
      depth: channels of x.
      **batch_norm: the bn_... arguments of `ConvBlock`.
    """

    def __init__(self, depth: int, name=None, dtype=None, **batch_norm):
        super().__init__(name=name, dtype=dtype)
        self.depth, self.batch_norm = depth, batch_norm
        options = {**batch_norm, "dtype": self.dtype_policy}
        self.conv_1 = ConvBlock(depth, 3, norm="scale", activation="leaky_relu", name="conv_1", **options)
        self.conv_2 = ConvBlock(depth, 3, name="conv_2", **options)

    def build(self, input_shape, keep_shape=None):
        self.conv_1.build((*input_shape[:-1], self.depth + 1))
        self.conv_2.build((*input_shape[:-1], self.depth))

    def call(self, x, keep, training=False):
        """Repaired [B, h, w, depth] of x [B, h, w, depth] and keep [B, h, w, 1] (1 = kept)."""
        residual = self.conv_1(tf.concat([x, keep], -1), training=training)
        return x + (1 - keep) * self.conv_2(residual, training=training)

    def get_config(self):
        return {**super().get_config(), "depth": self.depth, **self.batch_norm}


@keras.saving.register_keras_serializable("lts")
class RepairNetwork(keras.Model):
    """All repair layers: one before the decoder, one after each of its stages (paper section 3; release).

    Paints the dropped cells over while the frozen decoder turns features into
    pixels: [8, 6, 6, 512] damaged features and an [8, 6, 6, 1] mask become an
    [8, 96, 96, 3] image.

    Args:
      config: the autoencoder's, for the widths.
    """

    def __init__(self, config: AutoencoderConfig, name="repair", **kwargs):
        super().__init__(name=name, **kwargs)
        self.config = config
        depths = (config.encoder_filters[-1], *config.decoder_filters)
        self.repairs = [
            RepairLayer(depth, name=f"repair_{index}", dtype=self.dtype_policy, **batch_norm_options(config))
            for index, depth in enumerate(depths)
        ]

    def build(self, input_shape, keep_shape=None):
        for layer in self.repairs:
            layer.build((*input_shape[:-1], layer.depth))

    def call(self, damaged, keep, decoder, training=False):
        """Repaired images.

        Args:
          damaged: damaged features [B, h, w, c].
          keep: mask [B, h, w, 1], 1 = kept.
          decoder: the frozen `Decoder`; it runs with inference batch norm.
          training: batch norm mode of the repair layers.

        Returns:
          [B, H, W, 3] in (-1, 1); H = h * 2 ** decoder.num_stages.
        """
        keep = tf.cast(keep, damaged.dtype)
        x = self.repairs[0](damaged, keep, training=training)
        for index, layer in enumerate(self.repairs[1:]):
            keep = upsample_nearest(keep, 2)
            x = layer(decoder.stage(index, x), keep, training=training)
        return decoder.output_image(x)

    def get_config(self):
        return {**super().get_config(), "config": vars(self.config)}

    @classmethod
    def from_config(cls, config):
        return cls(AutoencoderConfig(**_tuples(config.pop("config"))), **config)
