"""What values a configuration may have; `lts.config` asks when one is made."""

from typing import Any

from lts.utils.errors import ConfigError


def check(config) -> None:
    """Raises `ConfigError` on the first value of a `Config` that cannot be."""
    _image(config.image)
    _autoencoder(config.autoencoder)
    _choice(config.damage, "damage_fill", "average", "zero")
    _that(config.damage, "keep_probability", 0 <= config.damage.keep_probability <= 1, "in [0, 1]")
    _discriminator(config.discriminator)
    for name in ("reconstruction_weight", "mask_weight", "weight_decay"):
        _that(config.loss, name, getattr(config.loss, name) >= 0, "at least 0")
    _choice(config.loss, "generator_loss", "confusion", "non_saturating")
    _choice(config.loss, "real_source", "reconstruction", "image", "mixed")
    _choice(config.loss, "reconstruct", "kept", "all", "dropped")
    _stage(config.autoencoder_training)
    _stage(config.gan_training)
    _grids(config)


def _that(section: Any, name: str, holds: bool, wanted: str) -> None:
    """One field of a section must be as `wanted` says."""
    if not holds:
        raise ConfigError(f"{name} must be {wanted}. Received: {name}={getattr(section, name)!r}")


def _choice(section: Any, name: str, *options: str) -> None:
    _that(section, name, getattr(section, name) in options, " | ".join(options))


def _image(image) -> None:
    _that(image, "image_size", image.image_size > 0, "positive")
    for name in ("crop_area", "crop_aspect", "saturation"):
        pair = getattr(image, name)
        _that(image, name, len(pair) == 2 and 0 < pair[0] <= pair[1], "two positive numbers, the smaller first")
    _that(image, "crop_area", image.crop_area[1] <= 1, "at most 1")
    _that(image, "bicubic_probability", 0 <= image.bicubic_probability <= 1, "in [0, 1]")
    _that(image, "brightness", 0 <= image.brightness < 1, "in [0, 1)")
    _that(image, "test_crop", 0 < image.test_crop <= 1, "in (0, 1]")


def _autoencoder(auto) -> None:
    widths = auto.encoder_filters
    _that(auto, "encoder_filters", len(widths) >= 2 and min(widths) > 0, "two or more positive integers")
    _that(auto, "encoder_kernel", auto.encoder_kernel >= 1, "at least 1")
    _that(auto, "bn_decay", 0 < auto.bn_decay < 1, "in (0, 1)")
    _that(auto, "bn_epsilon", auto.bn_epsilon > 0, "positive")
    _choice(auto, "batch_norm", "global", "per_replica")


def _discriminator(disc) -> None:
    for name in ("backbone_filters", "backbone_groups"):
        values = getattr(disc, name)
        _that(disc, name, len(values) == 5 and min(values) > 0, "5 positive integers")
    inputs = (3, *disc.backbone_filters)
    fits = all(inputs[i] % g == 0 and inputs[i + 1] % g == 0 for i, g in enumerate(disc.backbone_groups))
    _that(disc, "backbone_groups", fits, f"divisors of the layers' input and output widths {inputs}")
    for name in ("conv_1_kernel", "conv_1_stride", "fc_units"):
        _that(disc, name, getattr(disc, name) >= 1, "at least 1")
    _choice(disc, "disc_padding", "SAME", "VALID")
    _choice(disc, "backbone_norm", "lrn", "batch_norm")
    _that(disc, "dropout_keep", 0 < disc.dropout_keep <= 1, "in (0, 1]")


def _stage(stage) -> None:
    _that(stage, "batch_size", stage.batch_size >= 1, "at least 1")
    _that(stage, "epochs", stage.epochs >= 1, "at least 1")
    _that(stage, "steps", stage.steps >= 0, "at least 0")
    for name in ("learning_rate", "repair_learning_rate", "epsilon", "bias_gradient_factor"):
        _that(stage, name, getattr(stage, name) > 0, "positive")
    for name in ("end_lr_fraction", "decay_fraction"):
        _that(stage, name, 0 < getattr(stage, name) <= 1, "in (0, 1]")
    _that(stage, "global_clipnorm", stage.global_clipnorm >= 0, "at least 0")
    for name in ("beta_1", "beta_2", "ema_decay"):
        _that(stage, name, 0 <= getattr(stage, name) < 1, "in [0, 1)")
    _choice(stage, "precision", "float32", "bfloat16")
    _that(stage, "seed", 0 <= stage.seed < 2**30, "in [0, 2**30)")


def _grids(config) -> None:
    """The mask head predicts a cell of the encoder's grid in each of conv_5's."""
    disc, size = config.discriminator, config.image.image_size
    stride, grid = 2**config.autoencoder.num_strides, config.discriminator_grid
    if size % stride or size // stride != grid:
        why = f"not a multiple of the encoder's stride {stride}" if size % stride else "the two must be equal"
        mask = f"{size / stride:g}x{size / stride:g}"
        raise ConfigError(
            f"image_size does not fit: the mask grid is {mask} cells (stride {stride}), the discriminator grid "
            f"{grid}x{grid} cells (conv_1_stride {disc.conv_1_stride}, {disc.disc_padding}), {why}. "
            f"Received: image_size={size}"
        )
