"""Stage 1: trains the autoencoder.

python -m lts.bin.train_autoencoder --preset=small --dataset=folder:PHOTOS --workdir=runs/ae
"""

from lts import config as configs
from lts.bin import common

SECTIONS = (*configs.SECTIONS, "autoencoder_training")  # stage 2 takes over what is said here of its networks


def main() -> int:
    """Flags to configuration to training."""
    name = common.FLAGS.preset or "release"
    return common.train(configs.preset(name, "autoencoder_training", **common.overrides(*SECTIONS)), "autoencoder")


def console() -> None:
    """Entry point of `lts-train-autoencoder`."""
    common.define_data_flags()
    common.define_config_flags(*SECTIONS)
    common.define_training_flags()
    common.run(main)


if __name__ == "__main__":
    console()
