"""What `compare` and `ablate` share: flags, and the way from flags to configurations and images."""

from typing import Any

from absl import flags

from experiments.pretraining import ablations
from lts import config as configs
from lts.bin import common

FLAGS = flags.FLAGS
FLAGGED = (*configs.SECTIONS, "stage_2")
BOTH = ("precision", "seed")  # flags of a stage that mean both
PROTOCOLS = ("ridge", "fast")


def define(output: str) -> None:
    """Flags of the configuration, the images, the probe and the folder."""
    common.define_data_flags()
    common.define_config_flags(*FLAGGED)
    flags.mark_flag_as_required("preset")
    flags.DEFINE_string("stage_1", "", "the autoencoder's schedule: field=value[,field=value]; the flags are stage 2's")
    flags.DEFINE_string("output", output, "folder of the run; a run that is in it goes on")
    flags.DEFINE_enum("protocol", "ridge", PROTOCOLS, "of the linear probes, see experiments/probing/protocols.py")


def base() -> tuple[configs.Config, configs.Config]:
    """Configurations of the autoencoder and of stage 2, as `lts.bin.train_autoencoder` and `train_gan` make them.

    Fields of a stage that are flags are stage 2's, but for those of `BOTH`; stage 1's are in --stage_1.

    Raises:
      UserError: a preset, field or value that cannot be.
    """
    given = common.overrides(*FLAGGED)
    both = {name: given.pop(name) for name in BOTH if name in given}
    schedule = {name: given.pop(name) for _, field in configs.fields_of("stage_2") if (name := field.name) in given}
    stage_1 = configs.preset(FLAGS.preset, **given, **both).replace("stage_1", **schedule_of_stage_1())
    return stage_1, stage_1.replace("stage_2", **schedule)


def schedule_of_stage_1() -> dict[str, str]:
    """Fields of --stage_1.

    Raises:
      UsageError: something that is no field of a stage.
    """
    fields = ablations.parse_fields(FLAGS.stage_1) if FLAGS.stage_1 else {}
    unknown = fields.keys() - {field.name for _, field in configs.fields_of("stage_1")}
    if unknown:
        raise common.UsageError(f"--stage_1 has no field {min(unknown)!r}")
    return fields


def open_labelled(split: str | None, purpose: str) -> Any:
    """Labelled images of --dataset."""
    from experiments.probing import datasets

    options = {name: FLAGS[name].value for name in ("data_dir", "skip_broken_images", "cache_gb")}
    return datasets.open_labelled(FLAGS.dataset, split, purpose=purpose, **options)
