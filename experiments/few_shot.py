r"""Linear classifiers from few labels.

    python -m experiments.few_shot --model=runs/features --dataset=folder:LABELLED --output=runs/few_shot \
        --baseline=runs/random_1,runs/random_2,runs/random_3

The features are frozen. 1, 5 and 10 % of the labels are drawn several times, with the same images for every model.
Writes results.json, results.md and results.png to --output. The same command resumes a stopped run. For all labels see
`experiments.linear_probe`.
"""

import dataclasses

from absl import flags

from experiments.probing import flags as probe_flags
from experiments.probing.protocols import FewShotProtocol
from lts.bin import common, field_flags
from lts.config.fields import fields_named

FLAGS = flags.FLAGS
DEFAULT = FewShotProtocol()
FIELDS = fields_named(FewShotProtocol, "shares", "draws", "classifier", "pool", "dimensions", "seed")


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
    from experiments.probing.few_shot import FewShotProbe

    probe_flags.run_probe(FewShotProbe, protocol)


def console() -> None:
    """Run the command."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
