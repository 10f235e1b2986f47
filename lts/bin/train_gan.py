"""Train repair network and discriminator (stage 2).

    python -m lts.bin.train_gan --autoencoder=runs/ae --dataset=folder:PHOTOS --workdir=runs/gan

The configuration is that of the autoencoder, unless --preset names another. The same command resumes a stopped run. A
run that was imported with its encoder and decoder (lts.bin.import_checkpoint) is resumed without --autoencoder.
"""

import os
import pathlib

from absl import flags

from lts import config as configs
from lts.bin import common, config_flags, paths, training_program

SECTIONS = (*configs.SECTIONS, "gan_training")
NO_AUTOENCODER = "--autoencoder=RUN is required: stage 2 works inside an autoencoder that train_autoencoder trained"
FLAGS = flags.FLAGS


def define_flags() -> None:
    """Define the flags of this binary."""
    paths.define("autoencoder", None, "workdir of the trained autoencoder")
    common.define_data_flags()
    config_flags.define_config_flags(*SECTIONS)
    training_program.define_training_flags()


def main() -> int:
    """Train stage 2 as the flags describe."""
    if FLAGS.autoencoder and os.path.realpath(FLAGS.autoencoder) == os.path.realpath(FLAGS.workdir):
        raise common.UsageError(
            f"--workdir must be another folder than --autoencoder. Received: workdir={FLAGS.workdir}. Give a new one."
        )
    # An imported run has its own encoder and decoder, and needs no --autoencoder.
    configured_run = FLAGS.autoencoder or FLAGS.init_from or FLAGS.workdir
    if configured_run == FLAGS.workdir and not (pathlib.Path(configured_run) / "config.json").exists():
        raise common.UsageError(NO_AUTOENCODER)
    common.import_tensorflow()
    from lts import training

    record = training.read_run_config(configured_run)
    if configured_run == FLAGS.workdir and record.imported is None:
        raise common.UsageError(NO_AUTOENCODER)
    base = configs.preset(FLAGS.preset) if FLAGS.preset else record.config
    config = base.replace("gan_training", **config_flags.overrides(*SECTIONS))
    if not config.damage.repair:
        common.refuse(["repair_learning_rate", "repair_every"], "--norepair")
    return training_program.train(config, "gan", autoencoder=FLAGS.autoencoder)


def console() -> None:
    """Run the command `lts-train-gan`."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
