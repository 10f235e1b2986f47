r"""Probe frozen features with linear classifiers.

    python -m experiments.linear_probe --model=runs/features --dataset=folder:LABELLED --output=runs/probe \
        --baseline=runs/random_1,runs/random_2,runs/random_3

The protocols `ridge` (default), `logistic` and `stl10_folds` extract features once. `stl10_folds` needs
--dataset=tfds:stl10 --folds=fold_indices.txt. The protocols `rotnet`, `lci` and `stl10_release` train heads over
augmented images. They take hours instead of minutes, and write TensorBoard files to OUTPUT/training.

Writes results.json, results.md and results.png to --output, and test images for TensorBoard's embedding projector to
OUTPUT/tensorboard. The same command resumes a stopped run.
"""

import dataclasses
from typing import Any

from absl import flags

from experiments.probing import flags as probe_flags
from experiments.probing.protocols import LINEAR, SGD, Protocol, SgdProtocol
from lts.bin import common, field_flags, paths
from lts.config.fields import fields_named
from lts.export import hub
from lts.utils import outputs

FLAGS = flags.FLAGS
DEFAULT = "ridge"  # as accurate as `logistic`, in less than half the time
TRAINED_HEADS = fields_named(SgdProtocol, "epochs", "learning_rate", "training_batch_size", "image_size")
FIELDS = [*fields_named(Protocol, "classifier", "pool", "dimensions", "seed"), *TRAINED_HEADS]


def define_flags() -> None:
    """Define the flags of this binary."""
    flags.DEFINE_enum("protocol", DEFAULT, list(LINEAR), "named protocol, see experiments/probing/protocols.py")
    paths.define("folds", None, "fold_indices.txt of STL-10, for --protocol=stl10_folds")
    flags.DEFINE_integer("projector_images", 1000, "test images in the embedding projector; 0: none", 0)
    flags.DEFINE_bool("model_card", False, "also write the figures into the model's README.md")
    probe_flags.define_inputs()
    probe_flags.define_layers()
    probe_flags.define_protocol(FIELDS, lambda: LINEAR[FLAGS.protocol])


def choose_protocol() -> Any:
    """Return the protocol of the flags.

    Raises:
      UsageError: a flag that does not apply to the protocol.
    """
    protocol = LINEAR[FLAGS.protocol]
    given = field_flags.given(FIELDS)
    changes = []
    for name, value in given.items():
        default = getattr(protocol, name, None)
        if default is None:
            raise common.UsageError(f"--{name} does not apply to --protocol={protocol.name}")
        if value != default and name != "seed":
            changes.append(f"--{name}={value}")
    # A changed published protocol must not appear under its published name.
    if FLAGS.protocol in SGD:
        given["name"] = " ".join([protocol.name, *changes])
    return dataclasses.replace(protocol, **given)


def make_probe(protocol: Any, folds: list, inputs: probe_flags.Inputs) -> Any:
    """Return the `Probe` of a protocol."""
    from experiments.probing import stl10_folds
    from experiments.probing.linear import LinearProbe
    from experiments.probing.sgd_probe import SgdProbe

    options = {"train": inputs.train, "test": inputs.test, "output": FLAGS.output, "batch_size": FLAGS.batch_size}
    if FLAGS.protocol in SGD:
        return SgdProbe(protocol=protocol, **options)
    if folds:
        protocol = dataclasses.replace(protocol, folds=stl10_folds.digest(folds))
        rows = stl10_folds.rows_of_folds(folds, inputs.train)
        return stl10_folds.FoldsProbe(protocol=protocol, folds=rows, **options)
    return LinearProbe(protocol=protocol, **options)


def main() -> None:
    """Run the probe that the flags describe."""
    if (FLAGS.protocol == "stl10_folds") != bool(FLAGS.folds):
        raise common.UsageError("--folds=fold_indices.txt must be given with --protocol=stl10_folds, and only then")
    if FLAGS.model_card and hub.is_address(FLAGS.model):
        raise common.UsageError(
            "the card of a repository is not changed. Received: --model_card with "
            f"--model={FLAGS.model}. Probe a folder, then upload it with lts.bin.share_features."
        )
    protocol = choose_protocol()
    probe_flags.check_inputs(FLAGS.layers)
    common.import_tensorflow()
    from experiments.probing import projector

    if FLAGS.projector_images:
        projector.check(FLAGS.output)
    with outputs.locked(FLAGS.output):
        _run(protocol)


def _run(protocol: Any) -> None:
    """Probe and report."""
    from experiments.probing import projector, stl10_folds
    from experiments.probing import run as probe_run
    from experiments.reporting import probe as probe_report
    from lts.export import model_card
    from lts.visualization import figures

    # A wrong file is reported before images are opened, which can take minutes.
    folds = stl10_folds.read_folds(FLAGS.folds) if FLAGS.folds else []
    inputs = probe_flags.open_inputs(getattr(protocol, "image_size", 0))
    probe = make_probe(protocol, folds, inputs)
    results = probe_run.run(probe, inputs.model, inputs.baselines, FLAGS.layers)
    probe_report.write(results, FLAGS.output)
    layers = results["layers"]
    with figures.optional_picture("the embedding projector"):
        projector.write(inputs.model, layers, inputs.test, FLAGS.output, FLAGS.projector_images, FLAGS.batch_size)
    if FLAGS.model_card:
        model_card.add_probe(FLAGS.model, results)
    probe_run.finish(results, FLAGS.output)


def console() -> None:
    """Run the command."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
