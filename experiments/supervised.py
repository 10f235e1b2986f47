"""The upper reference: the backbone of a SavedModel without its weights, trained on labels from scratch.

    python -m experiments.supervised --model=runs/features --dataset=folder:LABELLED --output=runs/supervised

As `experiments.finetune` with all layers trained: the same networks, head, schedule, augmentation and files.
"""

from experiments import finetune
from experiments.probing.protocols import SUPERVISED
from lts.bin import common


def define_flags() -> None:
    """Define the flags of this binary."""
    finetune.define_schedule(SUPERVISED, finetune.FIELDS)


def main() -> None:
    """Train from scratch as the flags describe."""
    finetune.run(SUPERVISED, finetune.FIELDS)


def console() -> None:
    """Run the command."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
