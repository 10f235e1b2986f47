"""Stage 2: trains repair network against discriminator.

    python -m lts.bin.train_gan --autoencoder=runs/ae --dataset=folder:PHOTOS --workdir=runs/gan

The configuration is the autoencoder's, unless --preset names another.
"""

from absl import flags

from lts import config as configs
from lts.bin import common

SECTIONS = (*configs.SECTIONS, "stage_2")


def main() -> int:
    """Flags to configuration to training."""
    common.import_tensorflow()
    from lts import training

    base = training.read_record(common.FLAGS.autoencoder)["config"]
    if common.FLAGS.preset:
        base = configs.preset(common.FLAGS.preset)
    config = base.replace("stage_2", **common.overrides(*SECTIONS))
    return common.train(config, "gan", autoencoder=common.FLAGS.autoencoder)


def console() -> None:
    """Entry point of `lts-train-gan`."""
    flags.DEFINE_string("autoencoder", None, "workdir of the trained autoencoder", required=True)
    common.define_data_flags()
    common.define_config_flags(*SECTIONS)
    common.define_training_flags()
    common.run(main)


if __name__ == "__main__":
    console()
