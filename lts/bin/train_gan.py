"""Stage 2: trains repair network against discriminator.

    python -m lts.bin.train_gan --autoencoder=runs/ae --dataset=folder:PHOTOS --workdir=runs/gan

The configuration is the autoencoder's, unless --preset names another. A run
imported with its encoder and decoder (lts.bin.import_checkpoint) goes on
without --autoencoder.
"""

import pathlib

from absl import flags

from lts import config as configs
from lts.bin import common

SECTIONS = (*configs.SECTIONS, "gan_training")
NO_AUTOENCODER = "--autoencoder=RUN is required: stage 2 works inside a trained autoencoder"
FLAGS = flags.FLAGS


def main() -> int:
    """Flags to configuration to training."""
    run = FLAGS.autoencoder or FLAGS.workdir  # whose configuration is taken
    if FLAGS.autoencoder is None and not (pathlib.Path(run) / "config.json").exists():
        raise common.UsageError(NO_AUTOENCODER)
    common.import_tensorflow()
    from lts import training

    record = training.read_run_config(run)
    if FLAGS.autoencoder is None and "imported" not in record:
        raise common.UsageError(NO_AUTOENCODER)
    base = configs.preset(FLAGS.preset) if FLAGS.preset else record["config"]
    config = base.replace("gan_training", **common.overrides(*SECTIONS))
    return common.train(config, "gan", autoencoder=FLAGS.autoencoder)


def console() -> None:
    """Entry point of `lts-train-gan`."""
    flags.DEFINE_string("autoencoder", None, "workdir of the trained autoencoder")
    common.define_data_flags()
    common.define_config_flags(*SECTIONS)
    common.define_training_flags()
    common.run(main)


if __name__ == "__main__":
    console()
