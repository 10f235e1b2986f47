r"""VOC classification: fine-tune a backbone on image labels.

    python -m experiments.voc_classification --model=runs/features --baseline=runs/random_1,runs/random_2 \
        --dataset=folder:VOCdevkit/VOC2007 --protocol=voc2007 --output=runs/voc_classification

The baselines are trained in the same way. Writes results.json, results.md, results.png and pictures/ into --output, and
the runs with checkpoints and TensorBoard into its folder training/. A stopped run resumes from its last checkpoint.
"""

from experiments.voc import flags as voc_flags
from experiments.voc.protocols import CLASSIFICATION
from lts.bin import common


def define_flags() -> None:
    """Define the flags of this binary."""
    voc_flags.define_flags(CLASSIFICATION, "trainval", "test")


def main() -> None:
    """Run the task that the flags describe."""

    def make(inputs: voc_flags.Inputs, protocol):
        from experiments.voc.classification import Classification

        return Classification(inputs.train, inputs.test, protocol)

    voc_flags.run(CLASSIFICATION, "classification", make)


def console() -> None:
    """Run the command."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
