"""Feature layers as an ordinary Keras model."""

from typing import Any

import keras

from lts.config import DiscriminatorConfig
from lts.data import as_signed
from lts.networks.backbones import KerasBackbone, build_backbone
from lts.networks.config_mixin import ConfigMixin
from lts.networks.keras_settings import check_data_format, check_policy
from lts.networks.layers import RELEASE_BATCH_NORM, BatchNormConfig


@keras.saving.register_keras_serializable("lts")
class FeatureExtractor(ConfigMixin, keras.Model):
    """A backbone up to one layer, preprocessing inside.

    This project; for fine-tuning with `fit`. `trainable = False` freezes the batch norm statistics too, as in Keras.

    Shapes: images `[8, 96, 96, 3]` give `[8, 6, 6, 256]` for conv_5 of preset `release`.

    Args:
      config: of the backbone.
      layer: the last layer, later layers are not built; None: all are built.
      bn_config: settings of the batch norms.
      architecture: Keras configuration of a backbone that a user's function made, see `KerasBackbone`.
      name: of the model.
      **kwargs: further arguments of `keras.Model`.

    Example:
      >>> backbone = lts.load("runs/features").keras_model("conv_3")
      >>> model = keras.Sequential([backbone, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)])
    """

    def __init__(
        self,
        config: DiscriminatorConfig,
        layer: str | None = None,
        bn_config: BatchNormConfig = RELEASE_BATCH_NORM,
        architecture: dict[str, Any] | None = None,
        name="features",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        check_policy(self.dtype_policy)
        check_data_format()  # layers of Keras that follow would average over the wrong axes
        self.config = config
        self.bn_config = bn_config
        options = {"bn_config": bn_config, "dtype": self.dtype_policy}
        if architecture is None:
            self.backbone = build_backbone(config, layer, **options)
        else:
            self.backbone = KerasBackbone(config, layer, architecture=architecture, **options)
        self.layer = self.backbone.layer_names[-1]
        self.architecture = getattr(self.backbone, "architecture", None)

    def build(self, input_shape):
        self.backbone.build(input_shape)

    def summary(self, *args, expand_nested=True, **kwargs):
        """Print the layers; arguments are those of `keras.Model.summary`."""
        super().summary(*args, expand_nested=expand_nested, **kwargs)

    def call(self, images, training=False):
        """Return a map of images in [0, 255]."""
        signed = as_signed(images, self.compute_dtype)
        # NB: a frozen Keras model keeps its batch norm statistics even in training mode.
        return self.backbone(signed, training=training and self.trainable)[self.layer]
