"""Compare features after changing one value.

    python -m experiments.ablate --preset=small --dataset=folder:PHOTOS --output=runs/ablate --steps=1000

The program trains the autoencoder once, and damage and repair for each variant in
experiments/pretraining/ablations.py. It exports and probes the features and compares each variant with the base:
results.json, results.md and results.png in --output. --only=keep_0.5,no_repair picks variants.
--variant=name:field=value adds one. --seeds=1,2,3 trains everything three times, in OUTPUT/seed_1 and so on, and
reports means.

The figures are of validation images, never of test images. A data set with a test split is divided into train[:80%] and
train[80%:]. In any other data set, such as a folder with one sub-folder per class, the fifth of each class that the
probes use for the test is skipped, and a fifth of each class of the rest becomes the validation images.
--train_split and --validation_split choose others.

The same command resumes a stopped run. Existing runs of `lts.bin.train_autoencoder` in OUTPUT/autoencoder and of
`train_gan` in OUTPUT/NAME/gan are used.
"""

import os
import re
from collections.abc import Sequence
from typing import Any

from absl import flags

from experiments.pretraining import ablations
from experiments.pretraining import flags as pretraining_flags
from experiments.probing.protocols import LINEAR
from lts.bin import common, field_flags
from lts.config import Config
from lts.config.fields import fields_named
from lts.utils import outputs
from lts.utils.streams import print_result

FLAGS = flags.FLAGS
SEEDS = fields_named(ablations.Repetitions)


def main() -> None:
    """Choose variants and compare them."""
    # Hyper-parameters are tuned on these figures, so test images must stay unseen.
    if "test" in re.split(r"[^\w-]+", FLAGS.validation_split or ""):
        raise common.UsageError(
            f"validation_split must hold no test images. Received: --validation_split={FLAGS.validation_split}"
        )
    seeds = ablations.Repetitions(**field_flags.given(SEEDS)).seeds
    if len(seeds) == 1:
        raise common.UsageError(f"seeds must be two or more. Received: --seeds={seeds[0]}. Give --seed={seeds[0]}.")
    if seeds:
        common.refuse(["seed"], "--seeds")
    # Invalid variants and folders are reported before TensorFlow is imported and images are opened.
    custom = dict(ablations.parse(text) for text in FLAGS.variant)
    autoencoder_training, base = pretraining_flags.stage_configs()
    variants = ablations.choose(FLAGS.only, custom, base, autoencoder_training)
    from experiments.reporting import comparison as comparison_report
    from experiments.reporting import results as result_files

    result_files.check_output(FLAGS.output, FLAGS.dataset)
    with outputs.locked(FLAGS.output):
        if not seeds:
            results = _run(variants, autoencoder_training, FLAGS.output)
        else:
            results = _run_seeds(seeds, custom, autoencoder_training, base)
        comparison_report.write(results, FLAGS.output)
    print_result(f"\n{comparison_report.markdown(results)}\nwritten to {FLAGS.output}")


def _run(variants: Sequence[ablations.Variant], autoencoder_training: Config, output: str) -> dict[str, Any]:
    """Train and probe; return the results."""
    image = autoencoder_training.image
    source = common.open_source(image)
    from experiments.probing import run as probe_run

    train = pretraining_flags.open_labelled(FLAGS.train_split, "tuning", image)
    validation = pretraining_flags.open_labelled(FLAGS.validation_split, "validation", image)
    probe_run.check_labels(train, validation)
    ablations.pretrain(variants, autoencoder_training, source, output)
    return ablations.probe(variants, source, train, validation, LINEAR[FLAGS.protocol], output)


def _run_seeds(
    seeds: Sequence[int], custom: dict[str, Any], autoencoder_training: Config, base: Config
) -> dict[str, Any]:
    """Train and probe with every seed; return the means."""
    results = []
    for seed in seeds:
        print(f"\n=== seed {seed}", flush=True)
        configs = (base.replace(seed=seed), autoencoder_training.replace(seed=seed))
        variants = ablations.choose(FLAGS.only, custom, *configs)
        results.append(_run(variants, configs[1], os.path.join(FLAGS.output, f"seed_{seed}")))
    return ablations.mean_over_seeds(results, seeds, LINEAR[FLAGS.protocol])


def define_flags() -> None:
    """Define the flags of this binary."""
    pretraining_flags.define_flags("runs/ablate")
    flags.DEFINE_string("train_split", None, "labelled images that the probe is trained on; none: see above")
    flags.DEFINE_string("validation_split", None, "labelled images that the probe is tested on; none: see above")
    flags.DEFINE_list("only", [], f"variants to run next to the base; none: {', '.join(ablations.ABLATIONS)}")
    field_flags.define(SEEDS, ablations.Repetitions)
    flags.DEFINE_multi_string("variant", [], "one more variant, name:field=value[,field=value]; may be repeated")


def console() -> None:
    """Run the command."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
