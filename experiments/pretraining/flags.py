"""What `compare` and `ablate` share: flags, and the way from flags to configurations and images."""

from typing import Any

from absl import flags

from experiments.pretraining import ablations
from lts import config as configs
from lts.bin import common

FLAGS = flags.FLAGS
FLAGGED = (*configs.SECTIONS, "gan_training")
BOTH = ("precision", "seed")  # flags of a stage that mean both
PROTOCOLS = ("ridge", "logistic")


def define(output: str) -> None:
    """Flags of the configuration, the images, the probe and the folder."""
    common.define_data_flags()
    common.define_config_flags(*FLAGGED)
    flags.mark_flag_as_required("preset")
    flags.DEFINE_string(
        "autoencoder_training", "", "the autoencoder's schedule: field=value[,field=value]; the flags are stage 2's"
    )
    flags.DEFINE_string("output", output, "folder of the run; a run that is in it goes on")
    flags.DEFINE_enum("protocol", "ridge", PROTOCOLS, "of the linear probes, see experiments/probing/protocols.py")


def base() -> tuple[configs.Config, configs.Config]:
    """Configurations of the autoencoder and of stage 2, as `lts.bin.train_autoencoder` and `train_gan` make them.

    Fields of a stage that are flags are stage 2's, but for those of `BOTH`; stage 1's are in --autoencoder_training.

    Raises:
      UserError: a preset, field or value that cannot be.
    """
    given = common.overrides(*FLAGGED)
    both = {name: given.pop(name) for name in BOTH if name in given}
    schedule = {
        name: given.pop(name) for _, field in configs.fields_of("gan_training") if (name := field.name) in given
    }
    autoencoder_training = configs.preset(FLAGS.preset, **given, **both).replace(
        "autoencoder_training", **schedule_of_stage_1()
    )
    return autoencoder_training, autoencoder_training.replace("gan_training", **schedule)


def schedule_of_stage_1() -> dict[str, str]:
    """Fields of --autoencoder_training.

    Raises:
      UsageError: something that is no field of a stage.
    """
    fields = ablations.parse_fields(FLAGS.autoencoder_training) if FLAGS.autoencoder_training else {}
    unknown = fields.keys() - {field.name for _, field in configs.fields_of("autoencoder_training")}
    if unknown:
        raise common.UsageError(f"--autoencoder_training has no field {min(unknown)!r}")
    return fields


def open_labelled(split: str | None, role: str) -> Any:
    """Labelled images of --dataset."""
    from experiments.probing import datasets

    options = {name: FLAGS[name].value for name in ("data_dir", "skip_broken_images", "cache_gb")}
    return datasets.open_labelled(FLAGS.dataset, split, role=role, **options)
