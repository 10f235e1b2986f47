r"""Linear probes: what the frozen features of a SavedModel are worth, layer by layer.

    python -m experiments.linear_probe --model=runs/features --dataset=folder:LABELLED --output=runs/probe \
        --baseline=runs/random_1,runs/random_2,runs/random_3

Features are extracted once for --protocol=logistic (logistic regression), ridge, or stl10_folds, which needs
--dataset=tfds:stl10 --folds=fold_indices.txt. Heads are trained over augmented images for imagenet, lci and
stl10_release: hours where the others take minutes, with TensorBoard in --output/training.

Writes results.json, results.md and results.png into --output, and test images for TensorBoard's embedding projector
into --output/tensorboard. A run that was stopped goes on where it stopped.
"""

import dataclasses
import functools
from typing import Any

from absl import flags

from experiments.probing import flags as probe_flags
from experiments.probing.protocols import CLASSIFIERS, LINEAR, SGD
from lts.bin import common

DEFAULT = "logistic"
SETTINGS = (  # flags that change a protocol
    *("classifier", "pool", "dimensions", "seed"),
    *("epochs", "learning_rate", "training_batch_size", "image_size"),
)


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Adds this binary's flags; a function, so that importing the module has no effect on other binaries."""
    probe_flags.define(LINEAR[DEFAULT], values)
    choice, integer = flags.DEFINE_enum, flags.DEFINE_integer
    choice(
        "protocol", DEFAULT, list(LINEAR), "Named protocol, see experiments/probing/protocols.py.", flag_values=values
    )
    choice("classifier", None, CLASSIFIERS, "Linear classifier, if not the protocol's own.", flag_values=values)
    own = f"of {', '.join(SGD)}, if not the protocol's own."
    integer("epochs", None, f"Passes over the training images, {own}", 1, flag_values=values)
    integer("training_batch_size", None, f"Training images in a step, {own}", 1, flag_values=values)
    integer("image_size", None, f"Pixels a side, {own}", 1, flag_values=values)
    flags.DEFINE_float("learning_rate", None, f"First learning rate, {own}", 0.0, flag_values=values)
    flags.DEFINE_string("folds", None, "fold_indices.txt of STL-10, for stl10_folds.", flag_values=values)
    integer("projector_images", 1000, "Test images in the embedding projector; 0: none.", 0, flag_values=values)
    flags.DEFINE_bool("model_card", False, "Put the figures into the model's README.md too.", flag_values=values)


def choose(values: flags.FlagValues) -> Any:
    """The protocol that the flags name, with the fields changed that they change.

    Heads that are trained otherwise than a published protocol says do not carry its name alone: what was changed
    stands behind it.

    Raises:
      UsageError: a flag that the protocol has no use for.
    """
    protocol = LINEAR[values.protocol]
    given = {name: values[name].value for name in SETTINGS if values[name].present}
    useless = [name for name in given if getattr(protocol, name, None) is None]
    if useless:
        raise common.UsageError(f"--{useless[0]} does not apply to --protocol={protocol.name}")
    changed = {name: value for name, value in given.items() if value != getattr(protocol, name) and name != "seed"}
    if values.protocol in SGD and changed:
        given["name"] = " ".join([protocol.name, *(f"--{name}={value}" for name, value in changed.items())])
    return dataclasses.replace(protocol, **given)


def main(values: flags.FlagValues = flags.FLAGS) -> None:
    """Flags to one call of `probe_run.run`."""
    if (values.protocol == "stl10_folds") != bool(values.folds):
        raise common.UsageError("--protocol=stl10_folds needs --folds=fold_indices.txt, and nothing else takes it")
    protocol = choose(values)
    common.import_tensorflow()
    from experiments.probing import linear, projector, stl10_folds
    from lts.export import model_card

    def finish(model, results, test) -> None:
        projector.write(model, results["layers"], test, values.output, values.projector_images, values.batch_size)
        if values.model_card:
            model_card.add_probe(values.model, results)

    measure, probe_model = linear.measure, None
    given = stl10_folds.read(values.folds) if values.folds else None
    inputs = probe_flags.open_inputs(values)
    if given:
        protocol = dataclasses.replace(protocol, folds=stl10_folds.digest(given))
        measure = functools.partial(stl10_folds.measure, stl10_folds.rows(given, inputs.train))
    if values.protocol in SGD:
        from experiments.probing import sgd_probe

        probe_model = sgd_probe.probe_model
    probe_flags.run(values, inputs, protocol, measure, finish, probe_model)


def console() -> None:
    """Entry point of the command."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
