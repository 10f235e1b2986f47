"""Backbones of the discriminator."""

from lts.config import Config, DiscriminatorConfig, checks
from lts.config.registries import BACKBONES
from lts.networks.backbones.alexnet import AlexNet
from lts.networks.backbones.base import Backbone
from lts.networks.backbones.keras_backbone import KerasBackbone
from lts.networks.backbones.resnet import ResNet18

__all__ = ["AlexNet", "Backbone", "KerasBackbone", "ResNet18", "build_backbone", "check_grid"]


def build_backbone(config: DiscriminatorConfig, last: str | None = None, **options) -> Backbone:
    """Return the backbone of a configuration, not built yet.

    Args:
      config: of the discriminator.
      last: the last layer to build; None: all.
      **options: `bn_config` and arguments of `keras.Model`.

    Raises:
      ConfigError: a function that cannot be imported, or that returns another thing than a backbone.
    """
    if config.backbone in BACKBONES:
        return BACKBONES[config.backbone](config, last, **options)
    return KerasBackbone(config, last, **options)


def check_grid(config: Config, backbone: Backbone) -> None:
    """Check that the last map has one cell for each cell of the keep mask.

    Raises:
      ConfigError: it has not; the message holds both numbers.
    """
    checks.check_grids(config, backbone.geometry()[-1].cells(config.image.image_size))
