"""The discriminator C: AlexNet backbone, mask head, real/fake head (paper section 3; release)."""

import keras
import numpy as np
import tensorflow as tf

from lts.config import HEADS, DiscriminatorConfig
from lts.networks.autoencoder import _tuples
from lts.networks.geometry import KERNELS, LAYERS, POOLED
from lts.networks.layers import ConvBlock, GroupedConvBlock, local_response_norm, max_pool

MEAN_RGB = (123.68, 116.78, 103.94)  # of 0..255 images (release)
HEAD = {"kernel_initializer": "glorot_uniform", "bias_value": 0.1}  # of fc_1, fc_2 and mask head (release)
SMALL_NORMAL = {"class_name": "TruncatedNormal", "config": {"stddev": 0.005}}  # a new one each: Keras' hold their seed
LINEAR_HEAD = {"kernel_initializer": SMALL_NORMAL}  # of the transfer (release)


@keras.saving.register_keras_serializable("lts")
class AlexNet(keras.Model):
    """conv_1..conv_5 of AlexNet without the last pool (release): the features that are the product.

    With the release's widths an [8, 96, 96, 3] batch becomes conv_1
    [8, 24, 24, 96], conv_2 [8, 12, 12, 256] and conv_3..conv_5 [8, 6, 6, 384],
    [8, 6, 6, 384], [8, 6, 6, 256].

    With `backbone_norm="lrn"` (release) conv_1..conv_4 have biases, local response
    norm stands behind the first two pools and conv_5 has batch norm without
    gamma. With "batch_norm" (ours) every convolution has batch norm with gamma
    and there is no local response norm.

    Args:
      config: widths, groups, first convolution, padding, normalisation.
      last: the last layer that is built.
      **batch_norm: the bn_... arguments of `ConvBlock`.
    """

    def __init__(self, config: DiscriminatorConfig, last: str = "conv_5", name="trunk", dtype=None, **batch_norm):
        super().__init__(name=name, dtype=dtype)
        self.config, self.last, self.batch_norm = config, last, batch_norm
        self.convs = []
        kernels = (config.conv_1_kernel, *KERNELS[1:])
        for name, width, groups, kernel in zip(
            LAYERS, config.backbone_filters, config.backbone_groups, kernels, strict=True
        ):
            norm = "scale" if config.backbone_norm == "batch_norm" else "shift" if name == "conv_5" else None
            options = {
                "norm": norm,
                "activation": "relu",
                "kernel_initializer": "glorot_uniform",
                "bias_value": 0.1,
                **batch_norm,
                "name": name,
                "dtype": self.dtype_policy,
            }
            if name == "conv_1":
                options |= {"stride": config.conv_1_stride, "padding": config.disc_padding}
            if groups == 1:
                self.convs.append(ConvBlock(width, kernel, **options))
            else:
                self.convs.append(GroupedConvBlock(width, kernel, groups, **options))
            if name == last:
                break

    def build(self, input_shape):
        for conv in self.convs:
            conv.build(input_shape)
            input_shape = (*input_shape[:-1], conv.filters)

    def call(self, images, training=False, last=None):
        """Activations of conv_1..`last`.

        Args:
          images: [B, H, W, 3] in [-1, 1].
          training: batch norm mode; a layer with `trainable = False` stays in inference mode.
          last: the layer to stop at; None: the last that was built.

        Returns:
          Dict from layer name to [B, h, w, channels], after the activation.
        """
        x = images * 127.5 - tf.constant([mean - 127.5 for mean in MEAN_RGB], images.dtype)
        endpoints = {}
        for name, conv in zip(LAYERS, self.convs, strict=False):
            x = endpoints[name] = conv(x, training=training and conv.trainable)
            if name == last:
                break
            if name in POOLED:
                x = max_pool(x, self.config.disc_padding)
                if self.config.backbone_norm == "lrn":
                    x = local_response_norm(x)
        return endpoints

    def get_config(self):
        return {**super().get_config(), "config": vars(self.config), "last": self.last, **self.batch_norm}

    @classmethod
    def from_config(cls, config):
        return cls(DiscriminatorConfig(**_tuples(config.pop("config"))), **config)


@keras.saving.register_keras_serializable("lts")
class BackboneClassifier(keras.Model):
    """The backbone with a head; by default AlexNet's: fc_1 over the whole grid, batch norm without gamma, dropout, fc_2.

    With the release's widths [8, 96, 96, 3] images give fc_1 [8, 1, 1, 4096] and logits [8, classes].

    Args:
      config: of backbone and head.
      grid: cells a side of conv_5 at the training size; fc_1's kernel.
      classes: number of logits.
      head: "fc": fc_1, dropout and fc_2; "linear": fc_2 alone, over the whole map of conv_5 (release: transfer);
        "pooled": fc_2 alone, of the mean over the map (ours).
      frozen: number of first convolutions that do not train: their weights stay as they are, their batch norms stay in
        inference mode.
      **batch_norm: the bn_... arguments of `ConvBlock`.
    """

    def __init__(
        self,
        config: DiscriminatorConfig,
        grid: int = 6,
        classes: int = 2,
        head: str = "fc",
        frozen: int = 0,
        name="trunk_classifier",
        dtype=None,
        **batch_norm,
    ):
        super().__init__(name=name, dtype=dtype)
        if head not in HEADS:
            raise ValueError(f"head must be {' | '.join(HEADS)}. Received: head={head!r}")
        if not 0 <= frozen <= len(LAYERS):
            raise ValueError(f"frozen must be a number of layers, 0 to {len(LAYERS)}. Received: frozen={frozen}")
        self.config, self.grid, self.classes, self.batch_norm = config, grid, classes, batch_norm
        self.head, self.frozen = head, frozen
        norm = {"norm": "shift", "activation": "relu", **batch_norm}
        self.backbone = AlexNet(config, dtype=self.dtype_policy, **batch_norm)
        self.fc_1 = None
        if head == "fc":
            self.fc_1 = ConvBlock(
                config.fc_units, grid, padding="VALID", name="fc_1", dtype=self.dtype_policy, **norm, **HEAD
            )
        self._make_outputs()

    def _make_outputs(self) -> None:
        # Logits are float32 under every policy (and fc_2 in bfloat16 corrupts the heap: BUILD_NOTES, "bfloat16").
        kernel, options = self.grid if self.head == "linear" else 1, HEAD if self.fc_1 else LINEAR_HEAD
        self.fc_2 = ConvBlock(self.classes, kernel, padding="VALID", name="fc_2", dtype="float32", **options)

    def build(self, input_shape):
        self.backbone.build(input_shape)
        width = self.config.backbone_filters[-1]
        if self.fc_1:
            self.fc_1.build((None, None, None, width))
            width = self.config.fc_units
        self.fc_2.build((None, None, None, width))
        for conv in self.backbone.convs[: self.frozen]:
            conv.trainable = False  # after building: it must reach their variables

    def call(self, images, training=False, dropout=None):
        """Logits and all that lies before them.

        Args:
          images: [B, H, W, 3] in [-1, 1].
          training: batch norm mode.
          dropout: None, or a mask [B, 1, 1, fc_units] of fc_1's units, 1 = kept;
            kept units are divided by `dropout_keep`. It is drawn by the caller.

        Returns:
          Dict of float32 `logits` [B, classes], and `conv_1`..`conv_5`, `fc_1` (before dropout) where there is one.
          Images larger than the training size give `logits` as the mean over positions; for smaller ones conv_5 is
          padded with zeros, unless its mean is taken.
        """
        out = self.backbone(images, training=training)
        if self.head == "pooled":
            x = tf.reduce_mean(tf.cast(out["conv_5"], tf.float32), [1, 2], keepdims=True)
        else:
            x = _at_least(out["conv_5"], self.grid)
        if self.fc_1:
            x = out["fc_1"] = self.fc_1(x, training=training)
            if dropout is not None:
                x = x * tf.cast(dropout, x.dtype) / self.config.dropout_keep
        return {**out, "logits": tf.reduce_mean(self.fc_2(x), [1, 2])}

    def first_kernels(self) -> np.ndarray:
        """Kernels [k, k, 3, n] of conv_1, for pictures; [k, k, 1, n] if it has 3 groups."""
        conv_1 = self.backbone.convs[0]
        kernels = [keras.ops.convert_to_numpy(block.kernel) for block in getattr(conv_1, "blocks", [conv_1])]
        return np.concatenate(kernels, -1)

    def get_config(self):
        own = {name: getattr(self, name) for name in ("grid", "classes", "head", "frozen")}
        return {**super().get_config(), "config": vars(self.config), **own, **self.batch_norm}

    @classmethod
    def from_config(cls, config):
        return cls(DiscriminatorConfig(**_tuples(config.pop("config"))), **config)


@keras.saving.register_keras_serializable("lts")
class Discriminator(BackboneClassifier):
    """The backbone with its two heads (paper section 3; release).

    The mask head predicts for each cell whether it was kept; the real/fake head
    is the classifier's, with the classes (fake, real). [8, 96, 96, 3] images give
    logits [8, 2] and mask logits [8, 6, 6].

    Args:
      config: of backbone and heads.
      grid: cells a side of conv_5 at the training size; fc_1's kernel.
      **batch_norm: the bn_... arguments of `ConvBlock`.
    """

    def __init__(self, config: DiscriminatorConfig, grid: int = 6, name="discriminator", dtype=None, **batch_norm):
        super().__init__(config, grid, name=name, dtype=dtype, **batch_norm)

    def _make_outputs(self) -> None:
        self.mask_head = ConvBlock(1, 3, name="mask_head", dtype="float32", **HEAD)
        super()._make_outputs()

    def build(self, input_shape):
        super().build(input_shape)
        self.mask_head.build((None, None, None, self.config.backbone_filters[-1]))

    def call(self, images, training=False, dropout=None):
        """The classifier's dict, class 1 = real, with float32 `mask_logits` [B, h, w], positive = kept."""
        out = super().call(images, training=training, dropout=dropout)
        return {**out, "mask_logits": self.mask_head(out["conv_5"])[..., 0]}

    def get_config(self):
        fixed = ("classes", "head", "frozen")
        return {name: value for name, value in super().get_config().items() if name not in fixed}


def _at_least(x, size: int):
    """[B, h, w, c] with zeros at the bottom and right up to `size` rows and columns (ours; a no-op in training)."""
    if x.shape[1] is not None and x.shape[2] is not None and min(x.shape[1:3]) >= size:
        return x
    for axis in (1, 2):  # not tf.pad, after which TFLite does not know the channels
        missing = tf.unstack(tf.shape(x)[:3])
        missing[axis] = tf.maximum(size - missing[axis], 0)
        x = tf.concat([x, tf.zeros([*missing, x.shape[-1]], x.dtype)], axis)
    return x
