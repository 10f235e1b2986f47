"""Checks of a configuration that concern several fields."""

from collections.abc import Sequence

from lts.config.registries import BACKBONES
from lts.utils.errors import ConfigError


def task_weights(entries: Sequence[str]) -> dict[str, float]:
    """Return the weights of further tasks by name.

    Args:
      entries: "NAME=WEIGHT" each.

    Raises:
      ConfigError: an entry of another form, a weight that is not above 0, or a name that occurs twice.

    Example:
      >>> task_weights(["jigsaw=0.5"])
      {'jigsaw': 0.5}
    """
    weights: dict[str, float] = {}
    for entry in entries:
        name, _, text = entry.partition("=")
        try:
            weight = float(text)
        except ValueError:
            weight = 0.0
        if not name or name in weights or not 0 < weight < float("inf"):
            received = ",".join(entries)
            raise ConfigError(
                f"task_weights must be NAME=WEIGHT[,NAME=WEIGHT], every weight above 0. Received: {received!r}"
            )
        weights[name] = weight
    return weights


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


def check_backbone(discriminator) -> None:
    """Check that a backbone has a known name or names a function.

    Raises:
      ConfigError: neither.
    """
    name = discriminator.backbone
    module, _, function = name.partition(":")
    if name not in BACKBONES and not (module and function.isidentifier()):
        raise ConfigError(
            f"unknown backbone. Received: backbone={name!r}. Known: {', '.join(BACKBONES)}, and module:function for a "
            "function of your own."
        )


def check_joint_turns(config) -> None:
    """Check that joint labels replace the other losses of turns and of real and repaired images.

    Raises:
      ConfigError: the task rotation or the release's generator loss is asked for, too.
    """
    if not config.discriminator.joint_turns:
        return
    if config.loss.rotation_weight:
        received = f"rotation_weight={config.loss.rotation_weight:g}"
        raise ConfigError(f"joint_turns replaces the task rotation. Received: {received}. Leave one of them out.")
    if config.loss.generator_loss != "non_saturating":
        raise ConfigError(
            "joint_turns has its own loss of the generator. "
            f"Received: generator_loss={config.loss.generator_loss}. Give --generator_loss=non_saturating."
        )


def check_rotation(loss) -> None:
    """Check that no field asks for turned decoded images where photographs alone are turned.

    Raises:
      ConfigError: all turns of decoded images, or a term of the repair network.
    """
    if not loss.rotation_weight or loss.rotation_images != "photographs":
        return
    if loss.rotation_turns != "random":
        raise ConfigError(
            "photographs are always shown in all turns. "
            f"Received: rotation_images=photographs, rotation_turns={loss.rotation_turns}. Leave the second one out."
        )
    if loss.rotation_generator_weight:
        raise ConfigError(
            "the repair network has no turn to keep visible. Received: rotation_images=photographs, "
            f"rotation_generator_weight={loss.rotation_generator_weight:g}. Leave the second one out."
        )


def check_grids(config, grid: int | None) -> None:
    """Check that mask and discriminator grids agree.

    Args:
      config: the `Config`.
      grid: cells per side of the discriminator's map; None: not known yet.

    Raises:
      ConfigError: the grids differ, or the image size is no multiple of the encoder's stride.
    """
    # The mask head predicts, for each cell of the last layer, one cell of the encoder's grid.
    size = config.image.image_size
    stride = 2**config.autoencoder.num_strides
    if size % stride == 0 and grid in (None, size // stride):
        return
    reason = f"not a multiple of the encoder's stride {stride}" if size % stride else "the two must be equal"
    mask = f"{size / stride:g}x{size / stride:g}"
    discriminator = config.discriminator
    details = f"backbone {discriminator.backbone}, conv_1_stride {discriminator.conv_1_stride}"
    if discriminator.backbone == "alexnet":
        details += f", {discriminator.disc_padding}"
    received = "unknown" if grid is None else f"{grid}x{grid} cells"
    raise ConfigError(
        f"image_size does not fit: the mask grid is {mask} cells (stride {stride}), the discriminator grid "
        f"{received} ({details}), {reason}. Received: image_size={size}"
    )
