"""Every number of a run, as frozen dataclasses.

Each help text is tagged with the source of the value: (paper) the CVPR 2018 paper, (release) the authors' public
TensorFlow 1 code, (ours) chosen in this project. The defaults are those of the release.

    >>> from lts.config.presets import preset
    >>> config = preset("small", seed=7, backbone_norm="lrn")
    >>> Config.from_json(config.to_json()) == config
    True
"""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from lts.config import checks
from lts.config.fields import cast, check_fields, check_value, field
from lts.config.registries import CORRUPTIONS, FILLS, OPTIMIZERS
from lts.config.windows import alexnet_windows
from lts.utils.errors import ConfigError

# What a field may define, for `differences`:
#   autoencoder         what the trained encoder and decoder depend on
#   frozen_autoencoder  what the encoder and decoder compute once they are trained
#   backbone            what the feature layers of the discriminator compute
#   discriminator       the heads of the discriminator, and how its training keeps statistics
NETWORKS = ("autoencoder", "backbone", "discriminator")
AUTOENCODER = ("autoencoder", "frozen_autoencoder")


@dataclasses.dataclass(frozen=True)
class ImageConfig:
    """Image size and augmentation of training images.

    The defaults are those of the release for STL-10.
    """

    image_size: int = field(96, "pixels per side (release)", above=0, defines=AUTOENCODER)
    crop_area: tuple[float, ...] = field(
        (0.333, 1.0),
        "random crop, fraction of the image's area (release)",
        above=0,
        maximum=1,
        length=2,
        ascending=True,
    )
    crop_aspect: tuple[float, ...] = field(
        (0.75, 1.33), "width / height of the random crop (release)", above=0, length=2, ascending=True
    )
    bicubic_probability: float = field(
        0.5, "probability of a bicubic instead of a bilinear resize, both legacy (release)", minimum=0, maximum=1
    )
    flip: bool = field(True, "mirror left-right with probability 1/2 (release)")
    brightness: float = field(32 / 255, "largest shift, for images in [0, 1] (release)", minimum=0, below=1)
    saturation: tuple[float, ...] = field(
        (0.5, 1.5), "range of the factor, drawn uniformly (release)", above=0, length=2, ascending=True
    )
    test_crop: float = field(0.85, "central crop of a test image, fraction of each side (release)", above=0, maximum=1)

    @property
    def stored_size(self) -> int:
        """Shorter side in pixels of an image from which nothing is lost (ours).

        Larger images may be shrunk to this size before they are cropped: the smallest random crop still has
        `image_size` pixels per side, and so has the test view.

        Example:
          >>> ImageConfig(image_size=64).stored_size
          129
        """
        # A crop of the area a and the aspect ratio r has sides sqrt(a / r) and sqrt(a * r).
        narrowest = min(self.crop_aspect[0], 1 / self.crop_aspect[1])
        random_crop = math.sqrt(self.crop_area[0] * narrowest)
        return math.ceil(self.image_size / min(random_crop, self.test_crop))


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig:
    """The autoencoder {E, D} (paper section 3; release)."""

    encoder_filters: tuple[int, ...] = field(
        (32, 64, 128, 256, 512),
        "filters of a stride-1 layer, then of the stride-2 layers (release)",
        above=0,
        min_length=2,
        defines=AUTOENCODER,
    )
    encoder_kernel: int = field(
        2,
        "kernel of the stride-2 layers; 2 keeps features local (release)",
        minimum=1,
        defines=AUTOENCODER,
        ablation=True,
    )
    bn_decay: float = field(
        0.975, "decay of every batch norm, all networks (release)", above=0, below=1, defines=["autoencoder"]
    )
    bn_epsilon: float = field(
        1e-3, "epsilon of every batch norm, all networks (release)", above=0, defines=[*AUTOENCODER, "backbone"]
    )
    batch_norm: str = field(
        "global",
        "statistics under several replicas: global (ours) | per_replica (release)",
        choices=["global", "per_replica"],
        defines=["autoencoder"],
    )

    @property
    def num_strides(self) -> int:
        """Number of stride-2 layers.

        A cell of the feature map stands for `2 ** num_strides` pixels.
        """
        return len(self.encoder_filters) - 1

    @property
    def decoder_filters(self) -> tuple[int, ...]:
        """Filters of the decoder's upsampling layers.

        They mirror the encoder's (release).
        """
        return tuple(reversed(self.encoder_filters[:-1]))


@dataclasses.dataclass(frozen=True)
class DamageConfig:
    """Damage and repair (paper section 3, Omega; release)."""

    keep_probability: float = field(0.3, "probability that a cell is KEPT (release)", minimum=0, maximum=1)
    corruption: str = field(
        "cell_drop",
        "which cells are dropped, and what they become; cell_drop is the paper's, the others are (ours)",
        choices=CORRUPTIONS,
    )
    damage_fill: str = field(
        "average",
        "features of cells that cell_drop, block_drop or channel_drop drop: average of 3x3 cells (paper; release), "
        "zero (ours) or global_average (release, where nothing uses it)",
        choices=FILLS,
        ablation=True,
    )
    repair: bool = field(True, "repair damaged features before decoding (release)", ablation=True)


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig:
    """Backbone and both heads (paper section 3; release)."""

    backbone: str = field(
        "alexnet",
        "alexnet (release) | resnet18 (ours) | module:function that returns a Keras model (ours)",
        defines=["backbone"],
    )
    resnet_width: float = field(
        1.0, "resnet18 only: factor on its 64, 64, 128, 256 and 512 filters (ours)", above=0, defines=["backbone"]
    )
    backbone_filters: tuple[int, ...] = field(
        (96, 256, 384, 384, 256),
        "alexnet only: filters of conv_1 to conv_5 (release)",
        above=0,
        length=5,
        defines=["backbone"],
    )
    backbone_groups: tuple[int, ...] = field(
        (1, 2, 1, 2, 2), "alexnet only: groups of conv_1 to conv_5 (release)", above=0, length=5, defines=["backbone"]
    )
    conv_1_kernel: int = field(11, "kernel of conv_1, alexnet and resnet18 (release)", minimum=1, defines=["backbone"])
    conv_1_stride: int = field(4, "stride of conv_1, alexnet and resnet18 (release)", minimum=1, defines=["backbone"])
    disc_padding: str = field(
        "SAME",
        "alexnet only: padding of conv_1, pool_1, pool_2: SAME (release) | VALID",
        choices=["SAME", "VALID"],
        defines=["backbone"],
    )
    backbone_norm: str = field(
        "lrn",
        "alexnet only: lrn (release) | batch_norm after every convolution (ours)",
        choices=["lrn", "batch_norm"],
        defines=["backbone"],
    )
    fc_units: int = field(4096, "units of fc_1 (release)", minimum=1, defines=["discriminator"])
    dropout_keep: float = field(
        0.5, "probability that fc_1 keeps a unit (release)", above=0, maximum=1, defines=["discriminator"]
    )
    joint_turns: bool = field(
        False,
        "one head of eight classes, real or repaired in each of four turns, instead of the real/fake head and the task "
        "rotation; stage 1 turns its images, too (SSGAN-LA; ours)",
        defines=["discriminator"],
    )
    recalibrate_batch_norm: bool = field(
        False,
        "estimate the batch norm statistics of exported features on photographs (ours)",
        defines=["discriminator"],
    )


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Losses and their weights (paper section 3; release)."""

    reconstruction_weight: float = field(30.0, "weight of the reconstruction, both stages (release)", minimum=0)
    mask_weight: float = field(0.1, "weight of the mask head's cross entropy (release)", minimum=0)
    weight_decay: float = field(5e-5, "L2: weight_decay * sum(w ** 2) / 2 (release)", minimum=0)
    generator_loss: str = field(
        "confusion",
        "confusion: swapped labels on both halves plus the discriminator's terms (release) | "
        "non_saturating: repaired images labelled real (paper)",
        choices=["confusion", "non_saturating"],
    )
    real_source: str = field(
        "reconstruction",
        "images that the discriminator sees as real: reconstruction (release) | image | mixed, half of each (ours)",
        choices=["reconstruction", "image", "mixed"],
        ablation=True,
    )
    rotation_weight: float = field(
        0.0,
        "weight of the rotation task: the discriminator tells by how many quarter turns an image was turned; stage 1 "
        "turns its images, too, unless the task has separate photographs; 0: no such task (ours)",
        minimum=0,
    )
    rotation_turns: str = field(
        "random",
        "a random turn of each image | all four turns of each image in a batch (ours)",
        choices=["random", "all"],
    )
    rotation_images: str = field(
        "real",
        "images whose turn the discriminator learns: real | both halves | photographs, further images of its batch in "
        "all four turns, while decoded images stay upright (ours)",
        choices=["real", "both", "photographs"],
    )
    rotation_generator_weight: float = field(
        0.0, "weight of the same term on repaired images for the repair network (ours)", minimum=0
    )
    labels_weight: float = field(
        0.0,
        "weight of the task of labels: the discriminator tells the class of the images with a label; 0: no such task "
        "(ours)",
        minimum=0,
    )
    labels_share: float = field(
        1.0, "share of each class's labels that the task uses, at least one; chosen by name (ours)", above=0, maximum=1
    )
    labels_batch_share: float = field(
        0.25,
        "share of each batch that is drawn from the images with a label, if some have none (ours)",
        above=0,
        maximum=1,
    )
    task_weights: tuple[str, ...] = field(
        (), "tasks of --import and their weights, NAME=WEIGHT[,NAME=WEIGHT]; those not named do not exist (ours)"
    )
    reconstruct: str = field(
        "kept",
        "pixels with a reconstruction loss in stage 2: kept (release) | all | dropped",
        choices=["kept", "all", "dropped"],
        ablation=True,
    )

    def task_weight(self, name: str) -> float:
        """Return the weight of a discriminator task, 0 if a run does not have it."""
        own_field = f"{name}_weight"
        return (
            getattr(self, own_field)
            if hasattr(self, own_field)
            else checks.task_weights(self.task_weights).get(name, 0.0)
        )


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Schedule and optimizer of one stage (release)."""

    batch_size: int = field(256, "images per step over all GPUs; the release ran 128 on each of 2 (release)", minimum=1)
    epochs: int = field(500, "passes over the images, used where steps is 0 (release)", minimum=1)
    steps: int = field(0, "training steps; 0: floor(images / batch_size) * epochs (ours)", minimum=0)
    learning_rate: float = field(3e-4, "stage 1: autoencoder; stage 2: discriminator (release)", above=0)
    repair_learning_rate: float = field(3e-4, "stage 2 only: repair network (release: the same Adam)", above=0)
    repair_every: int = field(
        1,
        "stage 2: the repair network is trained in every Nth step, lci: inpainter and critic; the other steps are "
        "cheaper (ours)",
        minimum=1,
    )
    shows: int = field(
        1,
        "stage 2 only: each decoded pair is shown to the discriminator N times, mirrored, moved by cells and, with the "
        "task rotation, turned (ours)",
        minimum=1,
    )
    end_lr_fraction: float = field(0.01, "last learning rate as a fraction of the first (release)", above=0, maximum=1)
    decay_fraction: float = field(0.9, "fraction of the steps with linear decay (release)", above=0, maximum=1)
    optimizer: str = field("adam", "adam is the release's, the others are (ours)", choices=OPTIMIZERS)
    beta_1: float = field(0.5, "beta_1 of adam and adamw (release)", minimum=0, below=1)
    beta_2: float = field(0.999, "beta_2 of adam and adamw (release)", minimum=0, below=1)
    epsilon: float = field(
        1e-5, "epsilon of adam and adamw, not in the bias correction: epsilon hat (release)", above=0
    )
    momentum: float = field(0.9, "momentum of sgd (ours)", minimum=0, below=1)
    decoupled_weight_decay: bool = field(
        False,
        "weight_decay shrinks kernels by learning_rate * weight_decay in each step, instead of being an L2 term of the "
        "loss (release); adamw always does so (ours)",
    )
    bias_gradient_factor: float = field(2.0, "factor on the gradients of biases (release)", above=0)
    global_clipnorm: float = field(
        0.0, "largest global norm of a player's gradient; 0: not clipped, as in the release (ours)", minimum=0
    )
    ema_decay: float = field(
        0.9999,
        "decay of the weights' moving average, for export --weights=averaged; 0: none (release)",
        minimum=0,
        below=1,
    )
    precision: str = field(
        "float32",
        "precision of activations: float32 (release) | bfloat16 (ours); weights stay float32",
        choices=["float32", "bfloat16"],
    )
    seed: int = field(
        1, "every random number is a function of (seed, step, position in the batch) (ours)", minimum=0, below=2**30
    )

    def steps_on(self, images: int) -> int:
        """Return the training steps of a run on a number of images; 0 if they fill no batch."""
        return self.steps or images // self.batch_size * self.epochs


SECTIONS = ("image", "autoencoder", "damage", "discriminator", "loss")
SCHEDULES = ("autoencoder_training", "gan_training")  # sections of type `TrainingConfig`
HEADS = ("fc", "linear", "pooled")  # of a classifier on the backbone, see `BackboneClassifier`


@dataclasses.dataclass(frozen=True)
class Config:
    """Configuration of a complete run.

    `ConfigError` is raised for a value outside of its bounds, and where the grids of mask and discriminator differ.
    """

    preset: str = "release"
    image: ImageConfig = ImageConfig()
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    damage: DamageConfig = DamageConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    loss: LossConfig = LossConfig()
    autoencoder_training: TrainingConfig = TrainingConfig()
    gan_training: TrainingConfig = TrainingConfig()

    def __post_init__(self) -> None:
        for name in SECTIONS + SCHEDULES:
            check_fields(getattr(self, name))
        checks.check_backbone(self.discriminator)
        checks.check_groups(self.discriminator)
        for name in checks.task_weights(self.loss.task_weights):
            if hasattr(self.loss, f"{name}_weight"):
                raise ConfigError(f"task_weights must name other tasks. Received: {name}. Give --{name}_weight.")
        checks.check_grids(self, self.discriminator_grid)
        checks.check_joint_turns(self)
        checks.check_rotation(self.loss)

    @property
    def turns_images(self) -> bool:
        """Whether both stages turn the images that they decode."""
        turns_decoded = self.loss.rotation_weight > 0 and self.loss.rotation_images != "photographs"
        return turns_decoded or self.discriminator.joint_turns

    @property
    def mask_grid(self) -> int:
        """Cells per side of the keep mask."""
        # The encoder's feature map has this grid.
        return self.image.image_size // 2**self.autoencoder.num_strides

    @property
    def discriminator_grid(self) -> int | None:
        """Cells per side of the mask head; None if only the backbone itself can tell."""
        if self.discriminator.backbone != "alexnet":
            return None
        cells = self.image.image_size
        for window in alexnet_windows(self.discriminator)["conv_5"]:
            cells = window.cells(cells)
        return cells

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain dicts, ready for JSON."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """Return the configuration as indented JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Config":
        """Build a configuration from what `to_dict` returned.

        Raises:
          ConfigError: an unknown section or field, or an invalid value.
        """
        # Values may be the text of flags or lists from JSON: `_section` casts them.
        if not isinstance(values, Mapping):
            raise ConfigError(f"a configuration must be an object. Received: {type(values).__name__}.")
        if not isinstance(values.get("preset", ""), str):
            raise ConfigError(f"preset must be text. Received: preset={values['preset']!r}.")
        sections: dict[str, Any] = {}
        types: dict[str, Any] = {section.name: section.type for section in dataclasses.fields(cls)}
        for name, value in values.items():
            if name not in types:
                raise ConfigError(f"unknown section. Received: {name!r}. Known: {', '.join(types)}.")
            sections[name] = value if name == "preset" else _section(name, types[name], value)
        return cls(**sections)

    @classmethod
    def from_json(cls, text: str) -> "Config":
        """Build a configuration from JSON; see `from_dict`."""
        return cls.from_dict(json.loads(text))

    def replace(self, stage: str | None = None, **overrides: Any) -> "Config":
        """Return a copy with single fields changed.

        Args:
          stage: "autoencoder_training" or "gan_training": where fields of `TrainingConfig` are changed. None: in both.
          **overrides: field name, without its section, to value: the text of a flag or a typed value.

        Raises:
          ConfigError: an unknown field or an invalid value.

        Example:
          >>> preset("tiny").replace("gan_training", steps=10).gan_training.steps
          10
        """
        values = {name: dict(vars(getattr(self, name))) for name in SECTIONS + SCHEDULES}
        changed = []
        for key, value in overrides.items():
            # A field belongs to one section, those of `TrainingConfig` to both stages.
            owners = [name for name in SECTIONS if key in values[name]]
            if not owners and key in values["autoencoder_training"]:
                owners = [stage] if stage else list(SCHEDULES)
            if not owners:
                known = ", ".join(sorted(field_names()))
                raise ConfigError(f"unknown field. Received: {key!r}. Known: {known}.")
            for owner in owners:
                values[owner][key] = value
                changed.append((owner, key))
        config = Config.from_dict({"preset": self.preset, **values})
        # A name that was just given is checked at once, one from a file where it is used, see `check_fields`.
        for section, section_field in fields_of(*SECTIONS, *SCHEDULES):
            if (section, section_field.name) in changed:
                check_value(section_field, getattr(getattr(config, section), section_field.name))
        return config


def _section(name: str, section: type, values: Mapping[str, Any]) -> Any:
    """Build one section from untyped values."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"section {name} must be an object. Received: {type(values).__name__}.")
    known = {section_field.name: section_field for section_field in dataclasses.fields(section)}
    arguments = {}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"unknown field. Received: {name}.{key!r}. Known: {', '.join(known)}.")
        arguments[key] = cast(known[key], value)
    return section(**arguments)


def fields_of(*sections: str) -> Iterator[tuple[str, dataclasses.Field]]:
    """Yield (section, field) of the named sections."""
    types: dict[str, Any] = {section.name: section.type for section in dataclasses.fields(Config)}
    for section in sections:
        for section_field in dataclasses.fields(types[section]):
            yield section, section_field


def field_names() -> set[str]:
    """Return all names that `Config.replace` takes."""
    return {section_field.name for _, section_field in fields_of(*SECTIONS, "autoencoder_training")}


def differences(old: Config, new: Config, *networks: str) -> list[str]:
    """List the fields in which two configurations differ.

    Args:
      old: a configuration.
      new: another one.
      *networks: only fields that define one of these, such as "backbone"; see the top of this file. None: all fields.

    Returns:
      A line "section.field: old -> new" for each field.
    """
    lines = []
    for section, section_field in fields_of(*SECTIONS, *SCHEDULES):
        name = section_field.name
        if networks and not set(networks) & set(section_field.metadata["defines"]):
            continue
        before = getattr(getattr(old, section), name)
        after = getattr(getattr(new, section), name)
        if before != after:
            lines.append(f"{section}.{name}: {before} -> {after}")
    return lines


# Sections with a field that defines a network.
NETWORK_SECTIONS = tuple(dict.fromkeys(section for section, field in fields_of(*SECTIONS) if field.metadata["defines"]))
