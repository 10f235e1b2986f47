"""AlexNet, the backbone of the paper (section 3; release)."""

import keras
import numpy as np
import tensorflow as tf

from lts.networks.backbones.base import Backbone
from lts.networks.geometry import LayerGeometry, alexnet_geometry
from lts.networks.layers import GLOROT, ConvBlock, GroupedConvBlock, local_response_norm, max_pool

MEAN_RGB = (123.68, 116.78, 103.94)  # of images in [0, 255] (release)
POOLED = ("conv_1", "conv_2")  # a 3x3 max-pool of stride 2 follows them (release)


@keras.saving.register_keras_serializable("lts")
class AlexNet(Backbone):
    """AlexNet's convolutions: the features to export.

    conv_1 to conv_5 without the last pool (release). With `backbone_norm="lrn"` (release) conv_1 to conv_4 have biases,
    local response norm follows the first two pools, and conv_5 has batch norm without gamma. With "batch_norm" (this
    project) every convolution has batch norm with gamma, and there is no local response norm.

    Shapes: images [8, 96, 96, 3] give in the release

        conv_1 [8, 24, 24, 96]    conv_3 [8, 6, 6, 384]    conv_5 [8, 6, 6, 256]
        conv_2 [8, 12, 12, 256]   conv_4 [8, 6, 6, 384]

    Args:
      config: filters, groups, first convolution, padding and normalisation.
      last: the last layer to build; None: conv_5.
      bn_config: settings of the batch norms.
    """

    def _make_layers(self) -> None:
        layers = self.geometry()[: len(self.layer_names)]
        self.convs = [self._make_conv(index, layer) for index, layer in enumerate(layers)]

    def _make_conv(self, index: int, layer: LayerGeometry):
        """Return the convolution block of a layer."""
        config = self.config
        options = {
            "activation": "relu",
            "bn_config": self.bn_config,
            "name": layer.name,
            "dtype": self.dtype_policy,
            **GLOROT,
        }
        if config.backbone_norm == "batch_norm":
            options["norm"] = "scale"
        elif layer.name == "conv_5":
            options["norm"] = "shift"
        if layer.name == "conv_1":
            options["stride"] = config.conv_1_stride
            options["padding"] = config.disc_padding

        kernel_size = layer.windows[-1].kernel
        groups = config.backbone_groups[index]
        if groups == 1:
            return ConvBlock(layer.channels, kernel_size, **options)
        return GroupedConvBlock(layer.channels, kernel_size, groups, **options)

    def build(self, input_shape):
        for conv in self.convs:
            conv.build(input_shape)
            input_shape = (*input_shape[:-1], conv.filters)

    @property
    def groups(self):
        """One convolution for each layer."""
        return [[conv] for conv in self.convs]

    def geometry(self) -> list[LayerGeometry]:
        """Return the geometry of conv_1 to conv_5."""
        return alexnet_geometry(self.config)

    def endpoints(self, images, training=False, last=None):
        """Return the activations of conv_1 to `last`, after the activation function.

        For arguments and result see `Backbone.endpoints`.

        Raises:
          ValueError: images that are too small for `last`; an `InvalidArgumentError` if their size is known only when
            the graph runs.
        """
        last = last or self.layer_names[-1]
        images = self._check_size(images, last)
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
        smallest = {layer.name: layer.smallest for layer in self.geometry()}[last]
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
