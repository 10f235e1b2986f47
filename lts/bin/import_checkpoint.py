"""Reads a checkpoint of the authors' TensorFlow 1 program into a run that exports and trains on like any other.

    python -m lts.bin.import_checkpoint --checkpoint=RELEASE/model.ckpt-195249 --output=runs/gan

Says of every variable whether it was taken, is missing, or is left over. A
checkpoint of the autoencoder alone becomes a run of stage 1, one with anything
of discriminator or generator a run of stage 2.
"""

from absl import flags

from lts import config as configs
from lts.bin import common

SECTIONS = ("image", "autoencoder", "discriminator")
FLAGS = flags.FLAGS


def main() -> None:
    """Flags to configuration to one import."""
    config = configs.preset(FLAGS.preset or "release", **common.overrides(*SECTIONS))
    common.import_tensorflow()
    from lts.release.importing import import_checkpoint

    report = import_checkpoint(config, FLAGS.checkpoint, FLAGS.output, FLAGS.weights, FLAGS.stage)
    print(report)
    print(f"{FLAGS.output} goes on with train_{report.stage}")


def console() -> None:
    """Entry point of `lts-import-checkpoint`."""
    flags.DEFINE_string("checkpoint", None, "what the release saved, as FOLDER/model.ckpt-195249", required=True)
    flags.DEFINE_string("output", None, "workdir of the run to make", required=True)
    flags.DEFINE_enum(
        "weights", "raw", ("raw", "averaged"), "averaged: each weight's moving average in the place of the weight"
    )
    flags.DEFINE_enum(
        "stage",
        None,
        ("autoencoder", "gan"),
        "autoencoder: leave out all but encoder and decoder; if not given: by what the checkpoint holds",
    )
    common.define_config_flags(*SECTIONS)
    common.run(main)


if __name__ == "__main__":
    console()
