"""Discriminator C: a backbone with two heads (paper section 3; release)."""

from collections.abc import Mapping

import keras
import tensorflow as tf

from lts.config import HEADS, DiscriminatorConfig
from lts.networks.backbones import build_backbone
from lts.networks.config_mixin import ConfigMixin
from lts.networks.layers import GLOROT, RELEASE_BATCH_NORM, BatchNormConfig, ConvBlock

# A dictionary, because each layer needs its own initializer: an instance of Keras' holds its seed and repeats itself.
SMALL_NORMAL = {"class_name": "TruncatedNormal", "config": {"stddev": 0.005}}
JOINT_CLASSES = 8  # fake in four turns, then real in four turns
TRANSFER = {"kernel_initializer": SMALL_NORMAL}  # the linear head of transfer learning (release)


@keras.saving.register_keras_serializable("lts")
class BackboneClassifier(ConfigMixin, keras.Model):
    """The backbone with a classification head.

    Heads: "fc" is fc_1 over the whole map (batch norm without gamma, ReLU), dropout and fc_2, as in AlexNet (release:
    discriminator). "linear" is fc_2 alone over the whole map (release: transfer). "pooled" is fc_2 alone of the mean
    over the map (this project).

    Shapes: images [8, 96, 96, 3] give fc_1 [8, 1, 1, 4096] and logits [8, classes] in the release.

    Args:
      config: of backbone and head.
      grid: cells along a side of the last map at the training size.
      classes: number of logits.
      head: "fc", "linear" or "pooled".
      frozen: number of first layers that do not train. They keep their weights, and their batch norms stay in inference
        mode.
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
        self.config = config
        self.grid = grid
        self.classes = classes
        self.head = head
        self.frozen = frozen
        self.bn_config = bn_config
        self.backbone = build_backbone(config, bn_config=bn_config, dtype=self.dtype_policy)
        layers = len(self.backbone.layer_names)
        if not 0 <= frozen <= layers:
            raise ValueError(f"frozen must be a number of layers, 0 to {layers}. Received: frozen={frozen}")
        self.further_heads = {}  # of a subclass, by name
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
        channels = self.backbone.geometry()[-1].channels
        if self.fc_1:
            self.fc_1.build((None, None, None, channels))
            channels = self.config.fc_units
        self.fc_2.build((None, None, None, channels))
        self.backbone.freeze(self.frozen)

    def call(self, images, training=False, dropout=None):
        """Return the logits and all activations before them.

        Args:
          images: [B, H, W, 3] in [-1, 1].
          training: batch norm mode.
          dropout: mask [B, 1, 1, fc_units] of fc_1's units, 1 = kept, drawn by the caller; None: no dropout. Kept units
            are divided by `dropout_keep`.

        Returns:
          Dict of the backbone's layers, `fc_1` before dropout (head "fc" alone) and `logits`, float32 [B, classes].
          For images above the training size the logits are the mean over all positions. For smaller ones the last
          map is padded with zeros, except under the head "pooled".
        """
        out = self.backbone(images, training=training)
        x = out[self.backbone.layer_names[-1]]
        if self.head == "pooled":
            x = tf.reduce_mean(tf.cast(x, tf.float32), [1, 2], keepdims=True)
        else:
            x = _pad_to(x, self.grid)
        if self.fc_1:
            x = self.fc_1(x, training=training)
            out["fc_1"] = x
            if dropout is not None:
                x = x * tf.cast(dropout, x.dtype) / self.config.dropout_keep
        out["logits"] = tf.reduce_mean(self.fc_2(x), [1, 2])
        for name, head in self.further_heads.items():
            out[f"{name}_logits"] = tf.reduce_mean(head(x), [1, 2])
        return out


@keras.saving.register_keras_serializable("lts")
class Discriminator(BackboneClassifier):
    """Discriminator C of the paper.

    The real/fake head is the classifier's "fc" head with the classes fake (0) and real (1). The mask head predicts
    for each cell of the last map whether it was kept (paper section 3; release). With `joint_turns` the first head
    has the classes (fake or real) x (four turns), and the real/fake logits are its log-sum-exp over the turns (ours).

    Shapes: images [8, 96, 96, 3] give logits [8, 2] and mask logits [8, 6, 6].

    Args:
      config: of backbone and heads.
      grid: cells along a side of the last map at the training size.
      bn_config: settings of the batch norms.
      heads: number of logits by name of further heads on fc_1 (ours), with the outputs `NAME_logits`.
    """

    def __init__(
        self,
        config: DiscriminatorConfig,
        grid: int = 6,
        bn_config: BatchNormConfig = RELEASE_BATCH_NORM,
        heads: Mapping[str, int] | None = None,
        name="discriminator",
        **kwargs,
    ):
        classes = JOINT_CLASSES if config.joint_turns else 2
        super().__init__(config, grid, classes, bn_config=bn_config, name=name, **kwargs)
        self.heads = dict(heads or {})
        # After the release's heads, whose initial weights depend on the order.
        for head, units in self.heads.items():
            layer = ConvBlock(units, 1, padding="VALID", name=f"{head}_head", dtype="float32", **GLOROT)
            self.further_heads[head] = layer

    def _make_outputs(self) -> None:
        # NB: before fc_2. Keras draws the seeds in this order, so another one gives a run other initial weights.
        self.mask_head = ConvBlock(1, 3, name="mask_head", dtype="float32", **GLOROT)
        super()._make_outputs()

    def build(self, input_shape):
        super().build(input_shape)
        self.mask_head.build((None, None, None, self.backbone.geometry()[-1].channels))
        for head in self.further_heads.values():
            head.build((None, None, None, self.config.fc_units))

    def call(self, images, training=False, dropout=None):
        """Return the classifier's dict and the mask logits.

        `mask_logits` is float32 [B, h, w], positive = kept. For the rest see `BackboneClassifier.call`.
        """
        out = super().call(images, training=training, dropout=dropout)
        if self.config.joint_turns:
            out["joint_logits"] = out["logits"]
            by_turn = tf.reshape(out["joint_logits"], [-1, 2, JOINT_CLASSES // 2])
            out["logits"] = tf.reduce_logsumexp(by_turn, -1)
        out["mask_logits"] = self.mask_head(out[self.backbone.layer_names[-1]])[..., 0]
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
