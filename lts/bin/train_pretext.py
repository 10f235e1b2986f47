"""Train another pretext task on the same backbone, without labels.

    python -m lts.bin.train_pretext --task=lci --preset=small --dataset=folder:PHOTOS --workdir=runs/lci

The tasks are rotation prediction (Gidaris et al., 2018) and limited context inpainting (Jenni, Jin and Favaro, 2020).
They have the schedule of stage 2 and no stage 1. The same command resumes a stopped run.
"""

from absl import flags

from lts import config as configs
from lts.bin import common, config_flags, training_program
from lts.config.stages import STAGES

FLAGS = flags.FLAGS
TASKS = [name for name, stage in STAGES.items() if stage.is_classifier and not stage.labelled]
SECTIONS = (*configs.SECTIONS, "gan_training")


def define_flags() -> None:
    """Define the flags of this binary."""
    flags.DEFINE_enum("task", None, TASKS, "what is predicted", required=True)
    common.define_data_flags()
    config_flags.define_config_flags(*SECTIONS)
    training_program.define_training_flags()


def main() -> int:
    """Train the task that the flags describe."""
    # Of the method's losses a classifier has the weight decay alone.
    method = [field.name for _, field in configs.fields_of("damage", "loss") if field.name != "weight_decay"]
    method += ["init_from", "joint_turns", "recalibrate_batch_norm", *STAGES[FLAGS.task].unused]
    common.refuse(method, f"--task={FLAGS.task}")
    config = config_flags.chosen_preset().replace("gan_training", **config_flags.overrides(*SECTIONS))
    return training_program.train(config, FLAGS.task)


def console() -> None:
    """Run the command `lts-train-pretext`."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
