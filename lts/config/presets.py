"""Named configurations, one function each.

A preset's docstring gives its source, the accuracy to expect, the time, the hardware and the command.
"""

from collections.abc import Callable, Mapping
from typing import Any

from lts.config.schema import (
    AutoencoderConfig,
    Config,
    DiscriminatorConfig,
    ImageConfig,
    LossConfig,
    TrainingConfig,
    fields_of,
)
from lts.utils.errors import ConfigError


def release() -> Config:
    """The authors' constants, for STL-10 at 96x96.

    Source: the authors' TensorFlow 1 release.
    Accuracy: not trained here. A second-hand figure for STL-10 is 76.9 % (experiments/results/README.md).
    Time and hardware: hundreds of hours on two CPU cores. The release ran on two GPUs.
    Command: python -m lts.bin.train_autoencoder --preset=release --dataset=tfds:stl10 --split=unlabelled+train
      --workdir=runs/ae, then train_gan.
    """
    return Config()


def imagenet() -> Config:
    """ImageNet photographs at 128x128.

    Source: the paper does not state image size, batch size and epochs on ImageNet, so these are (ours). All other
    values are those of the release.
    Accuracy: not trained here. The paper reports 38.9 % with a linear probe on conv_4 (experiments/results/README.md).
    Time and hardware: not measured. Use GPUs.
    Command: python -m lts.bin.train_autoencoder --preset=imagenet --dataset=tfds:imagenet2012 --split=train
      --workdir=runs/ae, then train_gan.
    """
    training = TrainingConfig(batch_size=256, epochs=40)
    return Config(
        preset="imagenet", image=ImageConfig(image_size=128), autoencoder_training=training, gan_training=training
    )


def small() -> Config:
    """Natural photographs at 64x64 on one CPU.

    Source: this project.
    Accuracy: 72.0 % with a linear probe on conv_3 of imagenette128; random weights reach 59.7 %.
    Time and hardware: 10 minutes for the autoencoder and 28 minutes for stage 2 on two CPU cores, 9,469 photographs.
    Command: python -m lts.bin.train_autoencoder --preset=small --dataset=folder:PHOTOS --workdir=runs/ae, then
      train_gan.
    """
    return Config(
        preset="small",
        image=ImageConfig(image_size=64),
        autoencoder=AutoencoderConfig(encoder_filters=(16, 32, 64, 128)),
        discriminator=DiscriminatorConfig(
            backbone_filters=(48, 128, 192, 192, 128),
            conv_1_kernel=7,
            conv_1_stride=2,
            # With the release's LRN the backbone stayed at chance for minutes on a CPU.
            backbone_norm="batch_norm",
            fc_units=512,
            recalibrate_batch_norm=True,
        ),
        loss=LossConfig(generator_loss="non_saturating"),
        # A moving average of the weights is skipped, which saves time on a CPU.
        autoencoder_training=TrainingConfig(
            batch_size=16, steps=16000, learning_rate=3e-3, ema_decay=0.0, precision="bfloat16"
        ),
        gan_training=TrainingConfig(
            batch_size=32,
            steps=9000,
            learning_rate=1e-3,
            repair_learning_rate=3e-4,
            ema_decay=0.0,
            precision="bfloat16",
        ),
    )


def tiny() -> Config:
    """The synthetic set at 48x48, for the quickstart.

    Source: this project.
    Accuracy: 82.2 % [79.8, 84.5] with a linear probe on conv_2 of the synthetic set.
    Time and hardware: 3 minutes for the whole quickstart on two free CPU cores.
    Command: python -m experiments.quickstart --output=runs/quickstart
    """
    return Config(
        preset="tiny",
        image=ImageConfig(image_size=48),
        autoencoder=AutoencoderConfig(encoder_filters=(16, 32, 48, 96)),
        discriminator=DiscriminatorConfig(
            backbone_filters=(24, 64, 96, 96, 64),
            conv_1_kernel=7,
            conv_1_stride=2,
            backbone_norm="batch_norm",
            fc_units=256,
        ),
        loss=LossConfig(generator_loss="non_saturating"),
        # Small batches and a large rate give the sharpest pictures in a minute.
        autoencoder_training=TrainingConfig(batch_size=8, steps=4500, learning_rate=0.012, ema_decay=0.0),
        gan_training=TrainingConfig(
            batch_size=32, steps=850, learning_rate=1e-3, repair_learning_rate=3e-4, ema_decay=0.0
        ),
    )


PRESETS: Mapping[str, Callable[[], Config]] = {"release": release, "imagenet": imagenet, "small": small, "tiny": tiny}


def preset(name: str, stage: str | None = None, **overrides: Any) -> Config:
    """Return the named preset, with single fields changed.

    Args:
      name: key of `PRESETS`.
      stage: see `Config.replace`.
      **overrides: field to value, see `Config.replace`.

    Raises:
      ConfigError: an unknown preset or field, or an invalid value.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset. Received: {name!r}. Known: {', '.join(PRESETS)}.")
    return PRESETS[name]().replace(stage, **overrides)


def describe(config: Config, *sections: str) -> str:
    """Return a configuration's preset, and the fields of sections that differ from it.

    Example:
      >>> describe(preset("tiny", steps=60), "image", "gan_training")
      'preset tiny with steps=60'
    """
    base = preset(config.preset)
    changes = []
    for section, field in fields_of(*sections):
        value = getattr(getattr(config, section), field.name)
        if value != getattr(getattr(base, section), field.name):
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            changes.append(f"{field.name}={text}")
    return f"preset {config.preset}" + (f" with {' '.join(changes)}" if changes else "")
