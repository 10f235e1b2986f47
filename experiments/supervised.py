"""The upper reference: the backbone of a SavedModel without its weights, trained on labels from scratch.

    python -m experiments.supervised --model=runs/features --dataset=folder:LABELLED --output=runs/supervised

As `experiments.finetune` with all layers trained: the same networks, head, schedule, augmentation and files.
"""

from absl import flags

from experiments import finetune
from experiments.probing.protocols import SUPERVISED
from lts.bin import common


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Adds this binary's flags; a function, so that importing the module has no effect on other binaries."""
    finetune.define_schedule(values)


def main(values: flags.FlagValues = flags.FLAGS) -> None:
    """Flags to one call of `finetuning.run`."""
    finetune.run(values, SUPERVISED)


def console() -> None:
    """Entry point of the command."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
