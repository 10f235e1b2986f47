"""Import a release checkpoint as a run.

    python -m lts.bin.import_checkpoint --checkpoint=RELEASE/model.ckpt-195249 --output=runs/gan

The checkpoint is one of the authors' TensorFlow 1 program. The run can be exported and trained further like any other.
Every variable is reported as taken, missing or left over. A checkpoint of the autoencoder alone becomes a run of stage
1. A checkpoint with any variable of discriminator or generator becomes a run of stage 2.
"""

from absl import flags

from lts import config as configs
from lts.bin import common, config_flags, paths
from lts.utils import files
from lts.utils.streams import print_result

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Define the flags of this binary."""
    paths.define("checkpoint", None, "release checkpoint, such as FOLDER/model.ckpt-195249", required=True)
    paths.define("output", None, "workdir of the new run", required=True)
    flags.DEFINE_enum(
        "weights", "raw", ("raw", "averaged"), "averaged: the moving average of each weight replaces the weight"
    )
    flags.DEFINE_enum(
        "stage",
        None,
        ("autoencoder", "gan"),
        "autoencoder: skip all but encoder and decoder; none: decided by the contents of the checkpoint",
    )
    config_flags.define_config_flags(*configs.NETWORK_SECTIONS)


def main() -> None:
    """Import the checkpoint that the flags name."""
    config = config_flags.chosen_preset().replace(**config_flags.overrides(*configs.NETWORK_SECTIONS))
    files.check_folder(FLAGS.output)
    common.import_tensorflow()
    from lts.release.importing import import_checkpoint

    report = import_checkpoint(config, FLAGS.checkpoint, FLAGS.output, FLAGS.weights, FLAGS.stage)
    print(report)
    print_result(f"train_{report.stage} resumes {FLAGS.output}")


def console() -> None:
    """Run the command `lts-import-checkpoint`."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
