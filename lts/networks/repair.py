"""Repair network R1..R5 (paper section 3; release)."""

import keras
import tensorflow as tf

from lts.config import AutoencoderConfig
from lts.networks.autoencoder import batch_norm_config
from lts.networks.config_mixin import ConfigMixin
from lts.networks.layers import RELEASE_BATCH_NORM, BatchNormConfig, ConvBlock, upsample_nearest


@keras.saving.register_keras_serializable("lts")
class RepairLayer(ConfigMixin, keras.layers.Layer):
    """Residual repair block R_i of the generator.

    Implements x + (1 - keep_mask) * r([x, keep_mask]) (paper section 3). The residual r is a 3x3 convolution with batch
    norm and leaky ReLU, then a 3x3 convolution with biases (release). Kept cells pass through unchanged.

    Shapes: features [8, 6, 6, 512] and mask [8, 6, 6, 1] give [8, 6, 6, 512].

    Args:
      filters: number of channels of x.
      bn_config: settings of the batch norm.
    """

    def __init__(self, filters: int, bn_config: BatchNormConfig = RELEASE_BATCH_NORM, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.bn_config = bn_config
        options = {"bn_config": bn_config, "dtype": self.dtype_policy}
        self.conv_1 = ConvBlock(filters, 3, norm="scale", activation="leaky_relu", name="conv_1", **options)
        self.conv_2 = ConvBlock(filters, 3, name="conv_2", **options)

    def build(self, input_shape):
        self.conv_1.build((*input_shape[:-1], self.filters + 1))
        self.conv_2.build((*input_shape[:-1], self.filters))

    def call(self, x, keep_mask, training=False):
        """Repair the dropped cells of a feature map.

        Args:
          x: [B, h, w, filters].
          keep_mask: [B, h, w, 1], 1 = kept.
          training: batch norm mode.
        """
        # The mask is the LAST input channel, as in the release's checkpoints.
        hidden = self.conv_1(x, training=training, constant=keep_mask)
        residual = self.conv_2(hidden, training=training)
        return x + (1 - keep_mask) * residual


@keras.saving.register_keras_serializable("lts")
class RepairNetwork(ConfigMixin, keras.Model):
    """All repair layers: the generator's trainable part.

    One repair layer before the decoder and one after each of its upsampling blocks (paper section 3; release). They
    repair the dropped cells while the frozen decoder turns features into pixels.

    Shapes: damaged features [8, 6, 6, 512] and mask [8, 6, 6, 1] give images [8, 96, 96, 3].

    Args:
      config: of the autoencoder: filters and batch norm settings.
    """

    def __init__(self, config: AutoencoderConfig, name="repair", **kwargs):
        super().__init__(name=name, **kwargs)
        self.config = config
        self.repairs = []
        options = {"bn_config": batch_norm_config(config), "dtype": self.dtype_policy}
        for index, filters in enumerate((config.encoder_filters[-1], *config.decoder_filters)):
            self.repairs.append(RepairLayer(filters, name=f"repair_{index}", **options))

    def build(self, input_shape):
        for layer in self.repairs:
            layer.build((*input_shape[:-1], layer.filters))

    def call(self, damaged, keep_mask, decoder, training=False):
        """Decode damaged features and repair them on the way.

        Args:
          damaged: damaged features [B, h, w, c], the paper's phi hat.
          keep_mask: [B, h, w, 1], 1 = kept.
          decoder: the frozen `Decoder`; it runs with inference batch norm.
          training: batch norm mode of the repair layers.

        Returns:
          Repaired images [B, H, W, 3] in (-1, 1).
        """
        keep_mask = tf.cast(keep_mask, damaged.dtype)
        first, *others = self.repairs
        x = first(damaged, keep_mask, training=training)  # R_1, before the decoder
        for index, layer in enumerate(others):
            x = decoder.upsample(index, x)
            keep_mask = upsample_nearest(keep_mask, 2)  # at the size of x
            x = layer(x, keep_mask, training=training)  # R_2, R_3, ...
        return decoder.output_image(x)
