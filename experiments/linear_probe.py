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
from experiments.probing.protocols import LINEAR, SGD, Protocol, SgdProtocol
from lts.bin import common, field_flags
from lts.config.fields import fields_named

FLAGS = flags.FLAGS
DEFAULT = "logistic"
TRAINED_HEADS = fields_named(SgdProtocol, "epochs", "learning_rate", "training_batch_size", "image_size")
FIELDS = [*fields_named(Protocol, "classifier", "pool", "dimensions", "seed"), *TRAINED_HEADS]


def define_flags() -> None:
    """Define the flags of this binary."""
    flags.DEFINE_enum("protocol", DEFAULT, list(LINEAR), "named protocol, see experiments/probing/protocols.py")
    flags.DEFINE_string("folds", None, "fold_indices.txt of STL-10, for --protocol=stl10_folds")
    flags.DEFINE_integer("projector_images", 1000, "test images in the embedding projector; 0: none", 0)
    flags.DEFINE_bool("model_card", False, "also write the figures into the model's README.md")
    probe_flags.define_inputs()
    probe_flags.define_layers()
    probe_flags.define_protocol(FIELDS, lambda: LINEAR[FLAGS.protocol])


def choose() -> Any:
    """Return the protocol that the flags name, with the fields that they change.

    Where a value of a published protocol of trained heads is changed, the change is appended to its name.

    Raises:
      UsageError: a flag that does not apply to the protocol.
    """
    protocol = LINEAR[FLAGS.protocol]
    given = field_flags.given(FIELDS)
    unused = [name for name in given if getattr(protocol, name, None) is None]
    if unused:
        raise common.UsageError(f"--{unused[0]} does not apply to --protocol={protocol.name}")
    changed = {name: value for name, value in given.items() if value != getattr(protocol, name) and name != "seed"}
    if FLAGS.protocol in SGD and changed:
        given["name"] = " ".join([protocol.name, *(f"--{name}={value}" for name, value in changed.items())])
    return dataclasses.replace(protocol, **given)


def main() -> None:
    """Run the probe that the flags describe."""
    if (FLAGS.protocol == "stl10_folds") != bool(FLAGS.folds):
        raise common.UsageError("--protocol=stl10_folds needs --folds=fold_indices.txt, and no other protocol takes it")
    protocol = choose()
    common.import_tensorflow()
    from experiments.probing import linear, projector, stl10_folds
    from lts.export import model_card

    def finish(model, results, test) -> None:
        projector.write(model, results["layers"], test, FLAGS.output, FLAGS.projector_images, FLAGS.batch_size)
        if FLAGS.model_card:
            model_card.add_probe(FLAGS.model, results)

    measure = linear.measure
    probe_model = None
    folds = stl10_folds.read(FLAGS.folds) if FLAGS.folds else None
    inputs = probe_flags.open_inputs()
    if folds:
        protocol = dataclasses.replace(protocol, folds=stl10_folds.digest(folds))
        measure = functools.partial(stl10_folds.measure, stl10_folds.rows(folds, inputs.train))
    if FLAGS.protocol in SGD:
        from experiments.probing import sgd_probe

        probe_model = sgd_probe.probe_model
    probe_flags.run(inputs, protocol, measure, finish, probe_model)


def console() -> None:
    """Run the command."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
