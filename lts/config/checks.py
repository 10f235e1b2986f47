"""Checks of a configuration that concern several fields."""

from lts.utils.errors import ConfigError


def check_groups(discriminator) -> None:
    """Check that groups divide all layers' filters.

    Raises:
      ConfigError: a grouped convolution whose inputs or outputs cannot be split.
    """
    # A grouped convolution splits its inputs and its outputs.
    channels = (3, *discriminator.backbone_filters)
    for layer, groups in enumerate(discriminator.backbone_groups):
        if channels[layer] % groups or channels[layer + 1] % groups:
            raise ConfigError(
                f"backbone_groups must be divisors of the layers' input and output filters {channels}. "
                f"Received: backbone_groups={discriminator.backbone_groups!r}"
            )


def check_grids(config) -> None:
    """Check that mask and discriminator grids agree.

    Raises:
      ConfigError: the grids differ, or the image size is no multiple of the encoder's stride.
    """
    # The mask head predicts, for each cell of conv_5, one cell of the encoder's grid.
    size = config.image.image_size
    discriminator = config.discriminator
    stride = 2**config.autoencoder.num_strides
    grid = config.discriminator_grid
    if size % stride == 0 and size // stride == grid:
        return
    reason = f"not a multiple of the encoder's stride {stride}" if size % stride else "the two must be equal"
    mask = f"{size / stride:g}x{size / stride:g}"
    raise ConfigError(
        f"image_size does not fit: the mask grid is {mask} cells (stride {stride}), the discriminator grid "
        f"{grid}x{grid} cells (conv_1_stride {discriminator.conv_1_stride}, {discriminator.disc_padding}), {reason}. "
        f"Received: image_size={size}"
    )
