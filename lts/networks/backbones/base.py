"""What a backbone must offer."""

import abc

import keras
import numpy as np
import tensorflow as tf

from lts.config import DiscriminatorConfig
from lts.networks.config_mixin import ConfigMixin
from lts.networks.geometry import LayerGeometry
from lts.networks.layers import RELEASE_BATCH_NORM, BatchNormConfig


class Backbone(ConfigMixin, keras.Model):
    """Feature layers of the discriminator, the product of the training.

    A subclass makes its layers in `_make_layers`, and implements `build`, `groups`, `geometry` and `endpoints`. Heads,
    export, probes, fine-tuning and VOC tasks take the names and sizes of the layers from here (this project).

    Args:
      config: of the discriminator.
      last: the last layer to build; None: all.
      bn_config: settings of the batch norms.

    Attributes:
      layer_names: names of the feature layers that are built, first to last.
      groups: the Keras layers of each of them. A classifier freezes the first groups.
    """

    def __init__(
        self,
        config: DiscriminatorConfig,
        last: str | None = None,
        bn_config: BatchNormConfig = RELEASE_BATCH_NORM,
        name="trunk",  # part of the variable paths in checkpoints
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        self.config = config
        self.last = last
        self.bn_config = bn_config
        self._make_layers()

    @abc.abstractmethod
    def _make_layers(self) -> None:
        """Make the Keras layers; called by the constructor."""

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the feature layers that are built, first to last."""
        names = tuple(layer.name for layer in self.geometry())
        if self.last is None:
            return names
        if self.last not in names:
            raise ValueError(f"unknown layer. Received: last={self.last!r}. The layers are {', '.join(names)}.")
        return names[: names.index(self.last) + 1]

    @property
    @abc.abstractmethod
    def groups(self) -> list[list[keras.layers.Layer]]:
        """The Keras layers of each feature layer that is built."""

    @abc.abstractmethod
    def geometry(self) -> list[LayerGeometry]:
        """Return the geometry of all layers, first to last."""

    @abc.abstractmethod
    def endpoints(self, images, training=False, last: str | None = None) -> dict[str, tf.Tensor]:
        """Return the activations of the first layer to `last`.

        Args:
          images: [B, H, W, 3] in [-1, 1].
          training: batch norm mode; a layer with `trainable = False` stays in inference mode.
          last: the layer to stop at; None: the last one that was built.

        Returns:
          Dict from layer name to [B, h, w, channels], first to last.
        """

    def call(self, images, training=False, last=None):
        """Return the activations by layer, see `endpoints`."""
        return self.endpoints(images, training, last or self.layer_names[-1])

    def freeze(self, count: int) -> None:
        """Stop the training of the first `count` layers, batch norm statistics included."""
        # NB: after building. `trainable = False` does not reach variables that are made later.
        for group in self.groups[:count]:
            for layer in group:
                layer.trainable = False

    def first_kernels(self) -> np.ndarray | None:
        """Return the kernels [k, k, 3, filters] that see the image, for pictures; None if there are none."""
        for variable in self.variables:
            if variable.name == "kernel" and len(variable.shape) == 4 and variable.shape[2] == 3:
                return keras.ops.convert_to_numpy(variable)
        return None
