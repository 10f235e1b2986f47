"""Supervised training from scratch: the upper reference.

    python -m experiments.supervised --model=runs/features --dataset=folder:LABELLED --output=runs/supervised

Trains the backbone of a SavedModel from random weights on labels. Networks, head, schedule, augmentation and files are
those of `experiments.finetune` with all layers trained.
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
