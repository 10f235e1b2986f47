r"""Classify frozen features by nearest neighbours.

    python -m experiments.knn_probe --model=runs/features --dataset=folder:LABELLED --output=runs/knn \
        --baseline=runs/random_1,runs/random_2,runs/random_3

Nothing is fitted to the features of the SavedModel. The similarity is the cosine. k is chosen on a slice of the
training images. Writes results.json, results.md and results.png to --output. The same command resumes a stopped run.
"""

import dataclasses

from absl import flags

from experiments.probing import flags as probe_flags
from experiments.probing.protocols import KnnProtocol
from lts.bin import common, field_flags
from lts.config.fields import fields_named

FLAGS = flags.FLAGS
DEFAULT = KnnProtocol()
FIELDS = fields_named(KnnProtocol, "neighbours", "pool", "dimensions", "seed")


def define_flags() -> None:
    """Define the flags of this binary."""
    probe_flags.define_inputs()
    probe_flags.define_layers()
    probe_flags.define_protocol(FIELDS, lambda: DEFAULT)


def main() -> None:
    """Run the probe that the flags describe."""
    protocol = dataclasses.replace(DEFAULT, **field_flags.given(FIELDS))
    probe_flags.check_inputs(FLAGS.layers)
    common.import_tensorflow()
    from experiments.probing.knn import KnnProbe

    probe_flags.run_probe(KnnProbe, protocol)


def console() -> None:
    """Run the command."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
