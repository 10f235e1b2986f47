"""Linear probes: what the frozen features of a SavedModel are worth, layer by layer.

    python -m experiments.linear_probe --model=runs/features --dataset=folder:LABELLED --output=runs/probe \
        --baseline=runs/random_1,runs/random_2,runs/random_3

Writes results.json, results.md and results.png into --output, and test images for TensorBoard's embedding projector
into --output/tensorboard. A run that was stopped goes on where it stopped.
"""

import dataclasses

from absl import flags

from experiments import probe_flags
from experiments.protocol import CLASSIFIERS, Protocol
from lts.bin import common

DEFAULT = Protocol()


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Adds this binary's flags; a function, so that importing the module has no effect on other binaries."""
    probe_flags.define(DEFAULT, values)
    integer = flags.DEFINE_integer
    flags.DEFINE_enum("classifier", DEFAULT.classifier, CLASSIFIERS, "Linear classifier.", flag_values=values)
    integer("projector_images", 1000, "Test images in the embedding projector; 0: none.", 0, flag_values=values)
    flags.DEFINE_bool("model_card", False, "Put the figures into the model's README.md too.", flag_values=values)


def main(values: flags.FlagValues = flags.FLAGS) -> None:
    """Flags to one call of `probe_run.run`."""
    common.import_tensorflow()
    from experiments import probes, projector
    from lts import model_card

    def finish(model, results, test) -> None:
        projector.write(model, results["layers"], test, values.output, values.projector_images, values.batch_size)
        if values.model_card:
            model_card.add_probe(values.model, results)

    names = ("classifier", "pool", "dimensions", "seed")
    protocol = dataclasses.replace(DEFAULT, **{name: values[name].value for name in names})
    probe_flags.run(values, protocol, probes.measure, finish)


def console() -> None:
    """Entry point of the command."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
