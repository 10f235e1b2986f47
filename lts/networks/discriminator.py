"""Discriminator C and its AlexNet backbone (paper section 3; release)."""

import keras
import numpy as np
import tensorflow as tf

from lts.config import HEADS, DiscriminatorConfig
from lts.networks.config_mixin import ConfigMixin
from lts.networks.geometry import KERNELS, LAYERS, POOLED, backbone_geometry
from lts.networks.layers import (
    RELEASE_BATCH_NORM,
    BatchNormConfig,
    ConvBlock,
    GroupedConvBlock,
    local_response_norm,
    max_pool,
)

MEAN_RGB = (123.68, 116.78, 103.94)  # of images in [0, 255] (release)
GLOROT = {"kernel_initializer": "glorot_uniform", "bias_value": 0.1}  # all layers of the discriminator (release)
# A dictionary, because each layer needs its own initializer: an instance of Keras' holds its seed and repeats itself.
SMALL_NORMAL = {"class_name": "TruncatedNormal", "config": {"stddev": 0.005}}
TRANSFER = {"kernel_initializer": SMALL_NORMAL}  # the linear head of transfer learning (release)


@keras.saving.register_keras_serializable("lts")
class AlexNet(ConfigMixin, keras.Model):
    """AlexNet's convolutions: the features to export.

    conv_1 to conv_5 without the last pool (release). With `backbone_norm="lrn"` (release) conv_1 to conv_4 have biases,
    local response norm follows the first two pools, and conv_5 has batch norm without gamma. With "batch_norm" (this
    project) every convolution has batch norm with gamma, and there is no local response norm.

    Shapes: images [8, 96, 96, 3] give in the release

        conv_1 [8, 24, 24, 96]    conv_3 [8, 6, 6, 384]    conv_5 [8, 6, 6, 256]
        conv_2 [8, 12, 12, 256]   conv_4 [8, 6, 6, 384]

    Args:
      config: filters, groups, first convolution, padding and normalisation.
      last: the last layer to build.
      bn_config: settings of the batch norms.
    """

    def __init__(
        self,
        config: DiscriminatorConfig,
        last: str = "conv_5",
        bn_config: BatchNormConfig = RELEASE_BATCH_NORM,
        name="trunk",  # part of the variable paths in checkpoints
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        self.config = config
        self.last = last
        self.bn_config = bn_config
        self.layer_names = LAYERS[: LAYERS.index(last) + 1]
        self.convs = [self._make_conv(name) for name in self.layer_names]

    def _make_conv(self, name: str):
        """Return the convolution block of a layer."""
        config = self.config
        index = LAYERS.index(name)
        options = {
            "activation": "relu",
            "bn_config": self.bn_config,
            "name": name,
            "dtype": self.dtype_policy,
            **GLOROT,
        }
        if config.backbone_norm == "batch_norm":
            options["norm"] = "scale"
        elif name == "conv_5":
            options["norm"] = "shift"
        if name == "conv_1":
            options["stride"] = config.conv_1_stride
            options["padding"] = config.disc_padding

        filters = config.backbone_filters[index]
        kernel_size = KERNELS[index] or config.conv_1_kernel
        groups = config.backbone_groups[index]
        if groups == 1:
            return ConvBlock(filters, kernel_size, **options)
        return GroupedConvBlock(filters, kernel_size, groups, **options)

    def build(self, input_shape):
        for conv in self.convs:
            conv.build(input_shape)
            input_shape = (*input_shape[:-1], conv.filters)

    def call(self, images, training=False, last=None):
        """Return the activations of conv_1 to `last`.

        Args:
          images: [B, H, W, 3] in [-1, 1].
          training: batch norm mode; a layer with `trainable = False` stays in inference mode.
          last: the layer to stop at; None: the last one that was built.

        Returns:
          Dict from layer name to [B, h, w, channels], after the activation.

        Raises:
          ValueError: images that are too small for `last`; an `InvalidArgumentError` if their size is known only when
            the graph runs.
        """
        images = self._check_size(images, last or self.last)
        # [-1, 1] to [0, 255] minus the mean colour (release).
        x = images * 127.5 - tf.constant([mean - 127.5 for mean in MEAN_RGB], images.dtype)
        endpoints = {}
        for name, conv in zip(self.layer_names, self.convs, strict=True):
            x = conv(x, training=training and conv.trainable)
            endpoints[name] = x
            if name == last:
                break
            if name in POOLED:
                x = max_pool(x, self.config.disc_padding)
                # NB: after the pool, not before it (release; BUILD_NOTES trap 9).
                if self.config.backbone_norm == "lrn":
                    x = local_response_norm(x)
        return endpoints

    def _check_size(self, images, last: str):
        """Return images that give `last` at least one cell, and raise for others."""
        if self.config.disc_padding == "SAME":
            return images
        # NB: TensorFlow does not raise. For [1, 6, 6, 3] and a 7x7 "VALID" convolution it returns [1, 0, 0, filters]
        # without oneDNN, and in a graph with oneDNN the images themselves.
        smallest = {layer.name: layer.smallest for layer in backbone_geometry(self.config)}[last]
        problem = f"images must have at least {smallest} pixels a side for {last}. Received: images.shape="
        sides = images.shape[1:3]
        if any(side is not None and side < smallest for side in sides):
            raise ValueError(f"{problem}{tuple(images.shape)}. Enlarge them, or take an earlier layer.")
        if None not in sides:
            return images
        shape = tf.shape(images)
        large_enough = tf.reduce_min(shape[1:3]) >= smallest
        with tf.control_dependencies([tf.debugging.Assert(large_enough, [problem, shape])]):
            return tf.identity(images)

    def first_kernels(self) -> np.ndarray:
        """Return the kernels of conv_1 for pictures.

        They are [k, k, 3, filters], and [k, k, 1, filters] if conv_1 has 3 groups.
        """
        conv_1 = self.convs[0]
        blocks = getattr(conv_1, "blocks", [conv_1])
        return np.concatenate([keras.ops.convert_to_numpy(block.kernel) for block in blocks], -1)


@keras.saving.register_keras_serializable("lts")
class BackboneClassifier(ConfigMixin, keras.Model):
    """The backbone with a classification head.

    Heads: "fc" is fc_1 over the whole map (batch norm without gamma, ReLU), dropout and fc_2, as in AlexNet (release:
    discriminator). "linear" is fc_2 alone over the whole map (release: transfer). "pooled" is fc_2 alone of the mean
    over the map (this project).

    Shapes: images [8, 96, 96, 3] give fc_1 [8, 1, 1, 4096] and logits [8, classes] in the release.

    Args:
      config: of backbone and head.
      grid: cells along a side of conv_5 at the training size.
      classes: number of logits.
      head: "fc", "linear" or "pooled".
      frozen: number of first convolutions that do not train. They keep their weights, and their batch norms stay in
        inference mode.
      bn_config: settings of the batch norms.
    """

    def __init__(
        self,
        config: DiscriminatorConfig,
        grid: int = 6,
        classes: int = 2,
        head: str = "fc",
        frozen: int = 0,
        bn_config: BatchNormConfig = RELEASE_BATCH_NORM,
        name="trunk_classifier",  # part of the variable paths in checkpoints
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        if head not in HEADS:
            raise ValueError(f"head must be {' | '.join(HEADS)}. Received: head={head!r}")
        if not 0 <= frozen <= len(LAYERS):
            raise ValueError(f"frozen must be a number of layers, 0 to {len(LAYERS)}. Received: frozen={frozen}")
        self.config = config
        self.grid = grid
        self.classes = classes
        self.head = head
        self.frozen = frozen
        self.bn_config = bn_config
        self.backbone = AlexNet(config, bn_config=bn_config, dtype=self.dtype_policy)
        self.fc_1 = None
        if head == "fc":
            options = {"activation": "relu", "bn_config": bn_config, "dtype": self.dtype_policy, **GLOROT}
            self.fc_1 = ConvBlock(config.fc_units, grid, padding="VALID", norm="shift", name="fc_1", **options)
        self._make_outputs()

    def _make_outputs(self) -> None:
        """Make the layers that give logits, float32 under every policy."""
        # NB: fc_2 in bfloat16, a 1x1 convolution of 4096 to 2 channels, corrupts the heap (oneDNN, "unaligned tcache").
        kernel_size = self.grid if self.head == "linear" else 1
        options = GLOROT if self.fc_1 else TRANSFER
        self.fc_2 = ConvBlock(self.classes, kernel_size, padding="VALID", name="fc_2", dtype="float32", **options)

    def build(self, input_shape):
        self.backbone.build(input_shape)
        channels = self.config.backbone_filters[-1]
        if self.fc_1:
            self.fc_1.build((None, None, None, channels))
            channels = self.config.fc_units
        self.fc_2.build((None, None, None, channels))
        # NB: after building. `trainable = False` does not reach variables that are made later.
        for conv in self.backbone.convs[: self.frozen]:
            conv.trainable = False

    def call(self, images, training=False, dropout=None):
        """Return the logits and all activations before them.

        Args:
          images: [B, H, W, 3] in [-1, 1].
          training: batch norm mode.
          dropout: mask [B, 1, 1, fc_units] of fc_1's units, 1 = kept, drawn by the caller; None: no dropout. Kept units
            are divided by `dropout_keep`.

        Returns:
          Dict of `conv_1` to `conv_5`, `fc_1` before dropout (head "fc" alone) and `logits`, float32 [B, classes].
          For images above the training size the logits are the mean over all positions. For smaller ones conv_5 is
          padded with zeros, except under the head "pooled".
        """
        out = self.backbone(images, training=training)
        if self.head == "pooled":
            x = tf.reduce_mean(tf.cast(out["conv_5"], tf.float32), [1, 2], keepdims=True)
        else:
            x = _pad_to(out["conv_5"], self.grid)
        if self.fc_1:
            x = self.fc_1(x, training=training)
            out["fc_1"] = x
            if dropout is not None:
                x = x * tf.cast(dropout, x.dtype) / self.config.dropout_keep
        out["logits"] = tf.reduce_mean(self.fc_2(x), [1, 2])
        return out


@keras.saving.register_keras_serializable("lts")
class Discriminator(BackboneClassifier):
    """Discriminator C of the paper.

    The real/fake head is the classifier's "fc" head with the classes fake (0) and real (1). The mask head predicts
    for each cell of conv_5 whether it was kept (paper section 3; release).

    Shapes: images [8, 96, 96, 3] give logits [8, 2] and mask logits [8, 6, 6].

    Args:
      config: of backbone and heads.
      grid: cells along a side of conv_5 at the training size.
      bn_config: settings of the batch norms.
    """

    def __init__(
        self,
        config: DiscriminatorConfig,
        grid: int = 6,
        bn_config: BatchNormConfig = RELEASE_BATCH_NORM,
        name="discriminator",
        **kwargs,
    ):
        super().__init__(config, grid, bn_config=bn_config, name=name, **kwargs)

    def _make_outputs(self) -> None:
        # NB: before fc_2. Keras draws the seeds in this order, so another one gives a run other initial weights.
        self.mask_head = ConvBlock(1, 3, name="mask_head", dtype="float32", **GLOROT)
        super()._make_outputs()

    def build(self, input_shape):
        super().build(input_shape)
        self.mask_head.build((None, None, None, self.config.backbone_filters[-1]))

    def call(self, images, training=False, dropout=None):
        """Return the classifier's dict and the mask logits.

        `mask_logits` is float32 [B, h, w], positive = kept. For the rest see `BackboneClassifier.call`.
        """
        out = super().call(images, training=training, dropout=dropout)
        out["mask_logits"] = self.mask_head(out["conv_5"])[..., 0]
        return out


def _pad_to(x, size: int):
    """Pad to a size with zeros at the bottom and right."""
    if x.shape[1] is not None and x.shape[2] is not None and min(x.shape[1:3]) >= size:
        return x
    # NB: not tf.pad, after which TFLite does not know the number of channels.
    for axis in (1, 2):
        padding_shape = tf.unstack(tf.shape(x)[:3])
        padding_shape[axis] = tf.maximum(size - padding_shape[axis], 0)
        x = tf.concat([x, tf.zeros([*padding_shape, x.shape[-1]], x.dtype)], axis)
    return x
