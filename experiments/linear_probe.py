"""Linear probes: what the frozen features of a SavedModel are worth, layer by layer.

    python -m experiments.linear_probe --model=runs/features --dataset=folder:LABELLED --output=runs/probe \
        --baseline=runs/random_1,runs/random_2,runs/random_3

--protocol=fast (logistic regression), ridge, or stl10_folds, which needs --dataset=tfds:stl10 --folds=fold_indices.txt.
Writes results.json, results.md and results.png into --output, and test images for TensorBoard's embedding projector
into --output/tensorboard. A run that was stopped goes on where it stopped.
"""

import dataclasses
import functools

from absl import flags

from experiments import probe_flags
from experiments.protocol import CLASSIFIERS, LINEAR
from lts.bin import common

DEFAULT = "fast"


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Adds this binary's flags; a function, so that importing the module has no effect on other binaries."""
    probe_flags.define(LINEAR[DEFAULT], values)
    choice, integer = flags.DEFINE_enum, flags.DEFINE_integer
    choice("protocol", DEFAULT, list(LINEAR), "Named protocol, see experiments/protocol.py.", flag_values=values)
    choice("classifier", None, CLASSIFIERS, "Linear classifier, if not the protocol's own.", flag_values=values)
    flags.DEFINE_string("folds", None, "fold_indices.txt of STL-10, for stl10_folds.", flag_values=values)
    integer("projector_images", 1000, "Test images in the embedding projector; 0: none.", 0, flag_values=values)
    flags.DEFINE_bool("model_card", False, "Put the figures into the model's README.md too.", flag_values=values)


def main(values: flags.FlagValues = flags.FLAGS) -> None:
    """Flags to one call of `probe_run.run`."""
    if (values.protocol == "stl10_folds") != bool(values.folds):
        raise common.UsageError("--protocol=stl10_folds needs --folds=fold_indices.txt, and nothing else takes it")
    common.import_tensorflow()
    from experiments import folds, probes, projector
    from lts import model_card

    def finish(model, results, test) -> None:
        projector.write(model, results["layers"], test, values.output, values.projector_images, values.batch_size)
        if values.model_card:
            model_card.add_probe(values.model, results)

    names = [name for name in ("classifier", "pool", "dimensions", "seed") if values[name].value is not None]
    protocol = dataclasses.replace(LINEAR[values.protocol], **{name: values[name].value for name in names})
    measure = probes.measure
    given = folds.read(values.folds) if values.folds else None
    inputs = probe_flags.open_inputs(values)
    if given:
        protocol = dataclasses.replace(protocol, folds=folds.digest(given))
        measure = functools.partial(folds.measure, folds.rows(given, inputs.train))
    probe_flags.run(values, inputs, protocol, measure, finish)


def console() -> None:
    """Entry point of the command."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
