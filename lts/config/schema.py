"""Every number of a run: frozen dataclasses, named presets, JSON in and out.

Constants are tagged by where they come from: (paper) the CVPR 2018 paper,
(release) the authors' public TensorFlow 1 code, (ours) chosen in this project.
The defaults of the dataclasses are the release's.

    >>> config = preset("small", seed=7, backbone_norm="lrn")
    >>> Config.from_json(config.to_json()) == config
    True
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from lts.config import checks
from lts.utils.errors import ConfigError


def setting(default: Any, help: str) -> Any:
    """A field with its default and a line of documentation, which becomes the help of its flag."""
    return dataclasses.field(default=default, metadata={"help": help})


@dataclasses.dataclass(frozen=True)
class ImageConfig:
    """Size of the images and how a training image is cut out of a stored one (release: STL-10)."""

    image_size: int = setting(96, "pixels a side (release)")
    crop_area: tuple[float, ...] = setting((0.333, 1.0), "random crop, fraction of the image's area (release)")
    crop_aspect: tuple[float, ...] = setting((0.75, 1.33), "width / height of the random crop (release)")
    bicubic_probability: float = setting(0.5, "legacy bicubic instead of legacy bilinear resize (release)")
    flip: bool = setting(True, "mirror left-right with probability 1/2 (release)")
    brightness: float = setting(32 / 255, "largest shift, image in [0, 1] (release)")
    saturation: tuple[float, ...] = setting((0.5, 1.5), "factor, drawn uniformly (release)")
    test_crop: float = setting(0.85, "central crop of a test image, fraction of each side (release)")


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig:
    """The autoencoder {E, D} (paper section 3; release)."""

    encoder_filters: tuple[int, ...] = setting(
        (32, 64, 128, 256, 512), "a stride-1 layer, then stride-2 ones (release)"
    )
    encoder_kernel: int = setting(2, "kernel of the stride-2 layers: 2 keeps features local (release)")
    bn_decay: float = setting(0.975, "of every batch norm, all networks (release)")
    bn_epsilon: float = setting(1e-3, "of every batch norm, all networks (release)")
    batch_norm: str = setting("global", "statistics under several replicas: global (ours) | per_replica (release)")

    @property
    def num_strides(self) -> int:
        """Number of stride-2 layers; a cell of the feature map stands for 2**num_strides pixels."""
        return len(self.encoder_filters) - 1

    @property
    def decoder_filters(self) -> tuple[int, ...]:
        """Widths of the decoder's upsampling layers: the encoder's, mirrored (release)."""
        return tuple(reversed(self.encoder_filters[:-1]))


@dataclasses.dataclass(frozen=True)
class DamageConfig:
    """Damage of the feature map and its repair (paper section 3, Omega; release)."""

    keep_probability: float = setting(0.3, "a cell is KEPT with this probability (release)")
    damage_fill: str = setting("average", "dropped cells become: average (3x3, release) | zero (ours)")
    repair: bool = setting(True, "False: damaged features are decoded as they are (ours, ablation)")


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig:
    """The discriminator: AlexNet backbone, mask head, real/fake head (paper section 3; release)."""

    backbone_filters: tuple[int, ...] = setting((96, 256, 384, 384, 256), "conv_1..conv_5 (release)")
    backbone_groups: tuple[int, ...] = setting((1, 2, 1, 2, 2), "of conv_1..conv_5 (release)")
    conv_1_kernel: int = setting(11, "kernel of conv_1 (release)")
    conv_1_stride: int = setting(4, "stride of conv_1 (release)")
    disc_padding: str = setting("SAME", "of conv_1, pool_1, pool_2: SAME (release) | VALID")
    backbone_norm: str = setting("lrn", "lrn (release) | batch_norm after every backbone convolution (ours)")
    fc_units: int = setting(4096, "units of fc_1 (release)")
    dropout_keep: float = setting(0.5, "of fc_1 (release)")
    recalibrate_batch_norm: bool = setting(
        False, "estimate the batch norm statistics of exported features on photographs (ours); release: training's"
    )


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights and forms of the losses (paper section 3; release)."""

    reconstruction_weight: float = setting(30.0, "both stages (release)")
    mask_weight: float = setting(0.1, "of the mask head's cross entropy (release)")
    weight_decay: float = setting(5e-5, "L2: weight_decay * sum(w ** 2) / 2 (release)")
    generator_loss: str = setting(
        "confusion",
        "confusion: swapped labels on both halves plus the discriminator's terms (release) | "
        "non_saturating: repaired images labelled real (paper)",
    )
    real_source: str = setting(
        "reconstruction",
        "what the discriminator sees as real: reconstruction (release) | image | half of each: mixed (ours)",
    )
    reconstruct: str = setting("kept", "pixels with a reconstruction loss in stage 2: kept (release) | all | dropped")


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Schedule and optimizer of one stage of training (release)."""

    batch_size: int = setting(256, "images a step, over all GPUs: the release ran 128 on each of 2 (release)")
    epochs: int = setting(500, "passes over the images, where steps is 0 (release)")
    steps: int = setting(0, "training steps; 0: floor(images / batch_size) * epochs (ours)")
    learning_rate: float = setting(3e-4, "stage 1: autoencoder; stage 2: discriminator (release)")
    repair_learning_rate: float = setting(3e-4, "stage 2 alone: repair network (release: the same Adam)")
    end_lr_fraction: float = setting(0.01, "last learning rate as a fraction of the first (release)")
    decay_fraction: float = setting(0.9, "linear decay over this part of the steps (release)")
    beta_1: float = setting(0.5, "of Adam (release)")
    beta_2: float = setting(0.999, "of Adam (release)")
    epsilon: float = setting(1e-5, "of Adam, outside the bias correction: epsilon hat (release)")
    bias_gradient_factor: float = setting(2.0, "gradients of biases count this often (release)")
    global_clipnorm: float = setting(
        0.0, "largest global norm of a player's gradient; 0: not clipped, as the release (ours)"
    )
    ema_decay: float = setting(
        0.9999, "decay of the weights' moving average, for export --weights=averaged; 0: none (release)"
    )
    precision: str = setting("float32", "of activations: float32 (release) | bfloat16 (ours); weights stay float32")
    seed: int = setting(1, "(ours) every random number is a function of (seed, step, position in the batch)")


SECTIONS = ("image", "autoencoder", "damage", "discriminator", "loss")
STAGES = ("autoencoder_training", "gan_training")
HEADS = ("fc", "linear", "pooled")  # of a classifier on the backbone, see `BackboneClassifier`


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole run: what the networks are, what the losses are, how the two stages train.

    Raises `ConfigError` when a value, or the fit of image size, mask grid and
    discriminator grid, is wrong.
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
        checks.check(self)

    @property
    def mask_grid(self) -> int:
        """Cells a side of the encoder's feature map, and so of the keep mask."""
        return self.image.image_size // 2**self.autoencoder.num_strides

    @property
    def discriminator_grid(self) -> int:
        """Cells a side of conv_3..conv_5 and of the mask head."""
        return discriminator_grid(self.image.image_size, self.discriminator)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dict, ready for JSON."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """The configuration as indented JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Config":
        """Inverse of `to_dict`.

        Raises:
          ConfigError: a section or field that is not known, or a value that is not valid.
        """
        sections: dict[str, Any] = {}
        known = {field.name: field for field in dataclasses.fields(cls)}
        for name, value in values.items():
            if name not in known:
                raise ConfigError(f"unknown section {name!r}; known: {', '.join(known)}")
            if name == "preset":
                sections[name] = value
                continue
            section = known[name].type
            fields = {field.name: field for field in dataclasses.fields(section)}
            for key in value:
                if key not in fields:
                    raise ConfigError(f"unknown field {name}.{key!r}; known: {', '.join(fields)}")
            sections[name] = section(**{key: _cast(fields[key], value[key]) for key in value})
        return cls(**sections)

    @classmethod
    def from_json(cls, text: str) -> "Config":
        """Inverse of `to_json`; raises `ConfigError` as `from_dict` does."""
        return cls.from_dict(json.loads(text))

    def replace(self, stage: str | None = None, **overrides: Any) -> "Config":
        """A copy with single fields changed, named without their section.

        Args:
          stage: "autoencoder_training" or "gan_training": where fields of `TrainingConfig` go; None
            changes them in both stages.
          **overrides: field name to value, text as from a flag or already typed.

        Raises:
          ConfigError: a field that is not known, or a value that is not valid.

        Example:
          >>> preset("tiny").replace("gan_training", steps=10).gan_training.steps
          10
        """
        values = {name: dict(vars(getattr(self, name))) for name in SECTIONS + STAGES}
        for key, value in overrides.items():
            owners = [name for name in SECTIONS if key in values[name]]
            if not owners and key in values["autoencoder_training"]:
                owners = [stage] if stage else list(STAGES)
            if not owners:
                raise ConfigError(f"unknown field {key!r}; known: {', '.join(sorted(field_names()))}")
            for owner in owners:
                values[owner][key] = value
        return Config.from_dict({"preset": self.preset, **values})


def fields_of(*sections: str) -> Iterator[tuple[str, dataclasses.Field]]:
    """(section, field) of every field of the named sections of `Config`, in their order."""
    types = {field.name: field.type for field in dataclasses.fields(Config)}
    for section in sections:
        for field in dataclasses.fields(types[section]):
            yield section, field


def field_names() -> set[str]:
    """Names of all fields that `Config.replace` takes."""
    return {field.name for _, field in fields_of(*SECTIONS, "autoencoder_training")}


def differences(old: Config, new: Config) -> list[str]:
    """'section.field: old -> new' for every field in which two configurations differ."""
    lines = []
    for section, field in fields_of(*SECTIONS, *STAGES):
        before, after = (getattr(getattr(config, section), field.name) for config in (old, new))
        if before != after:
            lines.append(f"{section}.{field.name}: {before} -> {after}")
    return lines


def discriminator_grid(image_size: int, discriminator: DiscriminatorConfig) -> int:
    """Cells a side of conv_5 for a square image: one strided convolution, two pools of 3 with stride 2."""
    size = image_size
    for kernel, stride in ((discriminator.conv_1_kernel, discriminator.conv_1_stride), (3, 2), (3, 2)):
        size = -(-size // stride) if discriminator.disc_padding == "SAME" else (size - kernel) // stride + 1
    return size


def _cast(field: dataclasses.Field, value: Any) -> Any:
    """`value` (typed, text of a flag, or from JSON) as the field's type."""
    kind = field.type
    try:
        if kind is bool:
            if isinstance(value, str):
                return {"true": True, "false": False}[value.lower()]
            if not isinstance(value, bool):
                raise ValueError
            return value
        if kind is int:
            if isinstance(value, bool) or int(value) != float(value):
                raise ValueError
            return int(value)
        if kind is float:
            return float(value)
        if kind is str:
            if not isinstance(value, str):
                raise ValueError
            return value
        element = int if kind == tuple[int, ...] else float
        parts = value.split(",") if isinstance(value, str) else value
        return tuple(element(part) for part in parts)
    except (ValueError, KeyError, TypeError):
        wanted = getattr(kind, "__name__", str(kind)) if not str(kind).startswith("tuple") else "a comma-separated list"
        raise ConfigError(f"{field.name} must be {wanted}. Received: {field.name}={value!r}") from None


def _presets() -> dict[str, Config]:
    release = Config()
    small_stage = TrainingConfig(batch_size=32, ema_decay=0.0, precision="bfloat16")  # (ours)
    return {
        "release": release,
        # ImageNet photographs at 128x128. The paper's ImageNet size, depth and schedule are not known: all of
        # image_size, batch_size and epochs are (ours), everything else is the release's.
        "imagenet": Config(
            preset="imagenet",
            image=ImageConfig(image_size=128),  # (ours)
            autoencoder_training=TrainingConfig(batch_size=256, epochs=40),  # (ours)
            gan_training=TrainingConfig(batch_size=256, epochs=40),  # (ours)
        ),
        # Natural photographs at 64x64 on one CPU: the whole chain below one hour on two cores for about
        # 10,000 images. Everything here is (ours).
        "small": Config(
            preset="small",
            image=ImageConfig(image_size=64),
            autoencoder=AutoencoderConfig(encoder_filters=(16, 32, 64, 128)),
            discriminator=DiscriminatorConfig(
                backbone_filters=(48, 128, 192, 192, 128),
                conv_1_kernel=7,
                conv_1_stride=2,
                backbone_norm="batch_norm",
                fc_units=512,
                recalibrate_batch_norm=True,
            ),
            loss=LossConfig(generator_loss="non_saturating"),
            autoencoder_training=dataclasses.replace(small_stage, batch_size=16, steps=16000, learning_rate=3e-3),
            gan_training=dataclasses.replace(small_stage, steps=9000, learning_rate=1e-3, repair_learning_rate=3e-4),
        ),
        # The synthetic set at 48x48, for the quickstart and the tests. Everything here is (ours).
        "tiny": Config(
            preset="tiny",
            image=ImageConfig(image_size=48),
            autoencoder=AutoencoderConfig(encoder_filters=(8, 16, 32, 64)),
            discriminator=DiscriminatorConfig(
                backbone_filters=(24, 64, 96, 96, 64),
                conv_1_kernel=7,
                conv_1_stride=2,
                backbone_norm="batch_norm",
                fc_units=256,
            ),
            loss=LossConfig(generator_loss="non_saturating"),
            autoencoder_training=TrainingConfig(batch_size=32, steps=1500, learning_rate=3e-3, ema_decay=0.0),
            gan_training=TrainingConfig(
                batch_size=32, steps=2000, learning_rate=1e-3, repair_learning_rate=3e-4, ema_decay=0.0
            ),
        ),
    }


PRESETS: Mapping[str, Config] = _presets()


def preset(name: str, stage: str | None = None, **overrides: Any) -> Config:
    """The named preset, with single fields changed as `Config.replace` does.

    Raises:
      ConfigError: an unknown preset or field (the message lists the known ones), or a value that is not valid.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
    return PRESETS[name].replace(stage, **overrides)
