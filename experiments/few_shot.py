r"""Few labels: linear classifiers on frozen features of a SavedModel from 1, 5 and 10 % of the labels, layer by layer.

    python -m experiments.few_shot --model=runs/features --dataset=folder:LABELLED --output=runs/few_shot \
        --baseline=runs/random_1,runs/random_2,runs/random_3

Every share is drawn several times, the same images for every model. Writes results.json, results.md and results.png
into --output. A run that was stopped goes on where it stopped. All labels are `experiments.linear_probe`.
"""

import dataclasses

from absl import flags

from experiments.probing import flags as probe_flags
from experiments.probing.protocols import CLASSIFIERS, FewShotProtocol
from lts.bin import common

DEFAULT = FewShotProtocol()


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Adds this binary's flags; a function, so that importing the module has no effect on other binaries."""
    probe_flags.define(DEFAULT, values)
    shares = [f"{share:g}" for share in DEFAULT.shares]
    flags.DEFINE_list("shares", shares, "Percent of the labels, between 0 and 100.", flag_values=values)
    flags.DEFINE_integer("draws", DEFAULT.draws, "Draws of each share.", 2, flag_values=values)
    flags.DEFINE_enum("classifier", DEFAULT.classifier, CLASSIFIERS, "Linear classifier.", flag_values=values)


def main(values: flags.FlagValues = flags.FLAGS) -> None:
    """Flags to one call of `probe_run.run`."""
    shares = probe_flags.numbers(values, "shares", float, lambda share: 0 < share < 100)
    chosen = {name: values[name].value for name in ("draws", "classifier", "pool", "dimensions", "seed")}
    common.import_tensorflow()
    from experiments.probing import few_shot as few_shot_draws

    protocol = dataclasses.replace(DEFAULT, shares=shares, **chosen)
    probe_flags.run(values, probe_flags.open_inputs(values), protocol, few_shot_draws.measure_shares)


def console() -> None:
    """Entry point of the command."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
