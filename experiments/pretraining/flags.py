"""Flags that `compare` and `ablate` share."""

from typing import Any

from absl import flags

from experiments.pretraining import ablations
from lts import config as configs
from lts.bin import common, config_flags, paths

FLAGS = flags.FLAGS
SECTIONS = (*configs.SECTIONS, "gan_training")
BOTH_STAGES = ("precision", "seed")  # flags of a stage that apply to both
PROTOCOLS = ("ridge", "logistic")


def define_flags(output: str) -> None:
    """Define the shared flags; `output` is a default."""
    paths.define("output", output, "folder of the run; a run in it is resumed")
    flags.DEFINE_enum("protocol", "ridge", PROTOCOLS, "of the linear probes, see experiments/probing/protocols.py")
    flags.DEFINE_string(
        "autoencoder_training",
        "",
        "schedule of the autoencoder: field=value[,field=value]; the other flags give that of stage 2",
    )
    common.define_data_flags()
    config_flags.define_config_flags(*SECTIONS, required=True)


def stage_configs() -> tuple[configs.Config, configs.Config]:
    """Return the configurations of both stages.

    They are those of `lts.bin.train_autoencoder` and `train_gan`.

    Raises:
      UserError: an unknown preset or field, or an invalid value.
    """
    # Flags of a stage configure stage 2, except BOTH_STAGES. --autoencoder_training holds the fields of stage 1.
    early = config_flags.overrides(*SECTIONS)
    late = {}
    for _, field in configs.fields_of("gan_training"):
        if field.name in early and field.name not in BOTH_STAGES:
            late[field.name] = early.pop(field.name)
    config = configs.preset(FLAGS.preset, **early)
    autoencoder_config = config.replace("autoencoder_training", **autoencoder_schedule())
    base = autoencoder_config.replace("gan_training", **late)
    config_flags.check_schedule(base.gan_training)
    return autoencoder_config, base


def autoencoder_schedule() -> dict[str, str]:
    """Return the fields of --autoencoder_training.

    Raises:
      UsageError: a name that is no field of a stage.
    """
    # A name is checked here, because `Config.replace` would accept fields of other sections too.
    fields = ablations.parse_fields(FLAGS.autoencoder_training) if FLAGS.autoencoder_training else {}
    unknown = fields.keys() - {field.name for _, field in configs.fields_of("autoencoder_training")}
    if unknown:
        raise common.UsageError(f"--autoencoder_training has no field {min(unknown)!r}")
    return fields


def open_labelled(split: str | None, role: str, image: configs.ImageConfig) -> Any:
    """Return the labelled images of a split; `image` decides how far they are shrunk."""
    from experiments.probing import datasets

    return datasets.open_labelled(FLAGS.dataset, split, role=role, **common.data_options(image))
