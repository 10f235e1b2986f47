"""Train the autoencoder (stage 1).

    python -m lts.bin.train_autoencoder --preset=small --dataset=folder:PHOTOS --workdir=runs/ae

The same command resumes a stopped run.
"""

from lts import config as configs
from lts.bin import common, config_flags, training_program
from lts.config.stages import STAGES

# Stage 2 takes over the configuration of stage 1, so all sections are given here.
SECTIONS = (*configs.SECTIONS, "autoencoder_training")


def define_flags() -> None:
    """Define the flags of this binary."""
    common.define_data_flags()
    config_flags.define_config_flags(*SECTIONS)
    training_program.define_training_flags()


def main() -> int:
    """Train the autoencoder that the flags describe."""
    common.refuse(STAGES["autoencoder"].unused, "stage 1")
    config = config_flags.chosen_preset().replace("autoencoder_training", **config_flags.overrides(*SECTIONS))
    return training_program.train(config, "autoencoder")


def console() -> None:
    """Run the command `lts-train-autoencoder`."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
