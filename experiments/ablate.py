"""Ablations: one value of the configuration changed at a time, and what that does to the features.

    python -m experiments.ablate --preset=small --dataset=folder:PHOTOS --output=runs/ablate --steps=1000

Trains the autoencoder once and stage 2 for each variant of the table in experiments/ablations.py, exports the features,
probes them and compares each with the base: results.json, results.md and results.png in --output. --only=base,keep_0.5
picks some; --variant=name:field=value adds one. Choices are made with these figures, so they are of validation images,
never of test ones. The same command goes on with a run that was stopped; runs of `lts.bin.train_autoencoder` and
`train_gan` that lie in OUTPUT/autoencoder and OUTPUT/NAME/gan are taken as they are.
"""

import re

from absl import flags

from experiments import ablations, run_flags
from experiments.protocol import LINEAR
from lts import files
from lts.bin import common

FLAGS = flags.FLAGS


def main() -> None:
    """Flags to variants to results."""
    named = re.split(r"[^\w-]+", FLAGS.validation_split)
    if "test" in named:
        raise common.UsageError(f"--validation_split must hold no test images. Received: {FLAGS.validation_split}")
    own = dict(map(ablations.parse, FLAGS.variant))
    stage_1, base = run_flags.base()
    variants = ablations.choose(FLAGS.only, own, base, stage_1)
    files.check_folder(FLAGS.output)
    source = common.open_source()
    from experiments import comparison_report, probe_run
    from experiments.features import ProbeError

    train = run_flags.open_labelled(FLAGS.train_split, "train")
    validation = run_flags.open_labelled(FLAGS.validation_split, "train")
    probe_run.check_labels(train, validation)
    if set(train.names) & set(validation.names):
        raise ProbeError(f"--train_split={train.split} and --validation_split={validation.split} share images")
    ablations.pretrain(variants, stage_1, source, FLAGS.output)
    results = ablations.probe(variants, source, train, validation, LINEAR[FLAGS.protocol], FLAGS.output)
    comparison_report.write(results, FLAGS.output)
    print(f"\n{comparison_report.markdown(results)}\nwritten to {FLAGS.output}")


def console() -> None:
    """Entry point of the command."""
    run_flags.define("runs/ablate")
    flags.DEFINE_string("train_split", "train[:80%]", "labelled images that the probe is trained on")
    flags.DEFINE_string("validation_split", "train[80%:]", "labelled images that the figures are of")
    flags.DEFINE_list("only", [], f"variants to run beside the base; none: all of {', '.join(ablations.ABLATIONS)}")
    flags.DEFINE_multi_string("variant", [], "one more variant, name:field=value[,field=value]; may be repeated")
    common.run(main)


if __name__ == "__main__":
    console()
