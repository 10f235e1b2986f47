r"""Nearest neighbours: how well frozen features of a SavedModel sort images with nothing fitted to them, by layer.

    python -m experiments.knn_probe --model=runs/features --dataset=folder:LABELLED --output=runs/knn \
        --baseline=runs/random_1,runs/random_2,runs/random_3

Cosine similarity; k is chosen on a slice of the training images. Writes results.json, results.md and results.png into
--output. A run that was stopped goes on where it stopped.
"""

import dataclasses

from absl import flags

from experiments.probing import flags as probe_flags
from experiments.probing.protocols import KnnProtocol
from lts.bin import common

DEFAULT = KnnProtocol()


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Adds this binary's flags; a function, so that importing the module has no effect on other binaries."""
    probe_flags.define(DEFAULT, values)
    candidates = [str(k) for k in DEFAULT.neighbours]
    flags.DEFINE_list("neighbours", candidates, "Values of k to choose from, 1 or more.", flag_values=values)


def main(values: flags.FlagValues = flags.FLAGS) -> None:
    """Flags to one call of `probe_run.run`."""
    neighbours = probe_flags.numbers(values, "neighbours", int, lambda k: k >= 1)
    chosen = {name: values[name].value for name in ("pool", "dimensions", "seed")}
    common.import_tensorflow()
    from experiments.probing import knn

    protocol = dataclasses.replace(DEFAULT, neighbours=neighbours, **chosen)
    probe_flags.run(values, probe_flags.open_inputs(values), protocol, knn.measure)


def console() -> None:
    """Entry point of the command."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
