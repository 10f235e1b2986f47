"""Ablations: one value of the configuration changed at a time, and what that does to the features.

    python -m experiments.ablate --preset=small --dataset=folder:PHOTOS --output=runs/ablate --steps=1000

Trains the autoencoder once and stage 2 for each variant of the table in experiments/pretraining/ablations.py, exports
the features, probes them and compares each with the base: results.json, results.md and results.png in --output.
--only=base,keep_0.5 picks some; --variant=name:field=value adds one. Choices are made with these figures, so they are
of validation images, never of test ones. The same command goes on with a run that was stopped; runs of
`lts.bin.train_autoencoder` and `train_gan` that lie in OUTPUT/autoencoder and OUTPUT/NAME/gan are taken as they are.
"""

import re

from absl import flags

from experiments.pretraining import ablations
from experiments.pretraining import flags as pretraining_flags
from experiments.probing.protocols import LINEAR
from lts.bin import common
from lts.utils import files

FLAGS = flags.FLAGS


def main() -> None:
    """Flags to variants to results."""
    named = re.split(r"[^\w-]+", FLAGS.validation_split)
    if "test" in named:
        raise common.UsageError(f"--validation_split must hold no test images. Received: {FLAGS.validation_split}")
    own = dict(map(ablations.parse, FLAGS.variant))
    autoencoder_training, base = pretraining_flags.base()
    variants = ablations.choose(FLAGS.only, own, base, autoencoder_training)
    files.check_folder(FLAGS.output)
    source = common.open_source()
    from experiments.probing import run as probe_run
    from experiments.probing.features import ProbeError
    from experiments.reporting import comparison as comparison_report

    train = pretraining_flags.open_labelled(FLAGS.train_split, "train")
    validation = pretraining_flags.open_labelled(FLAGS.validation_split, "train")
    probe_run.check_labels(train, validation)
    if set(train.names) & set(validation.names):
        raise ProbeError(f"--train_split={train.split} and --validation_split={validation.split} share images")
    ablations.pretrain(variants, autoencoder_training, source, FLAGS.output)
    results = ablations.probe(variants, source, train, validation, LINEAR[FLAGS.protocol], FLAGS.output)
    comparison_report.write(results, FLAGS.output)
    print(f"\n{comparison_report.markdown(results)}\nwritten to {FLAGS.output}")


def console() -> None:
    """Entry point of the command."""
    pretraining_flags.define("runs/ablate")
    flags.DEFINE_string("train_split", "train[:80%]", "labelled images that the probe is trained on")
    flags.DEFINE_string("validation_split", "train[80%:]", "labelled images that the figures are of")
    flags.DEFINE_list("only", [], f"variants to run beside the base; none: all of {', '.join(ablations.ABLATIONS)}")
    flags.DEFINE_multi_string("variant", [], "one more variant, name:field=value[,field=value]; may be repeated")
    common.run(main)


if __name__ == "__main__":
    console()
