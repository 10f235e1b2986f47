r"""Export a run's features as a SavedModel.

    python -m lts.bin.export_features --workdir=runs/gan --output=runs/features
    python -m lts.bin.export_features --preset=small --random_weights --seed=1 --dataset=folder:PHOTOS \
        --output=runs/random_1

A run of stage 2 gives the discriminator's backbone, a run of stage 1 the encoder. The second command exports an
untrained discriminator as a baseline. --recalibrate_batch_norm estimates batch norm statistics on --dataset, or else on
the images of training.
"""

import os
import shlex

from absl import flags

from lts import config as configs
from lts.bin import common, config_flags, paths
from lts.config.stages import STAGES
from lts.export.choices import CALIBRATED, EXPORT, check_formats, check_license
from lts.utils.outputs import dataset_folder
from lts.utils.streams import print_result

FLAGS = flags.FLAGS
# Flags of the images for statistics.
IMAGES = ("dataset", "split", "data_dir", "skip_broken_images", "cache_gb", "stored_size", "cache_dir")
# What to do with an export: task, program and flags.
NEXT = (
    ("features of images", "lts.bin.extract_features", "--dataset=folder:PHOTOS", "--output=X.npz"),
    ("linear probe", "experiments.linear_probe", "--dataset=folder:LABELLED", "--output=runs/probe"),
)


def define_flags() -> None:
    """Define the flags of this binary."""
    paths.define("workdir", None, "workdir of a training run")
    paths.define("output", None, "folder of the SavedModel", required=True)
    flags.DEFINE_enum("weights", "raw", ("raw", "averaged"), "averaged: the moving average of the run's weights")
    flags.DEFINE_list(
        "formats",
        ["saved_model"],
        "also write these formats: safetensors, tflite, tflite_float16, tflite_int8, onnx (see the extras)",
    )
    flags.DEFINE_string("license", None, "licence of the model, as the Hugging Face hub names it; none: not stated")
    flags.DEFINE_bool("random_weights", False, "export an untrained discriminator")
    flags.DEFINE_integer("seed", 1, "seed of the random weights", lower_bound=0)
    common.define_data_flags(required=False)
    config_flags.define_config_flags(*configs.NETWORK_SECTIONS)


def main() -> None:
    """Export a run or random weights."""
    check_formats(FLAGS.formats)
    check_license(FLAGS.license)
    EXPORT.check(FLAGS.output, [FLAGS.workdir, FLAGS.data_dir, FLAGS.cache_dir, dataset_folder(FLAGS.dataset)])
    if FLAGS.random_weights:
        _export_random()
    else:
        _export_run()


def _export_run() -> None:
    # One field of the networks concerns the export alone; any other is fixed by the run.
    overrides = config_flags.overrides(*configs.NETWORK_SECTIONS)
    recalibrate = overrides.pop("recalibrate_batch_norm", None)
    if FLAGS.workdir is None:
        raise common.UsageError("--workdir=RUN is required, or --random_weights with --preset and --dataset")
    common.refuse(["preset", "seed", *overrides], "--workdir, because a trained run has a configuration")
    common.import_tensorflow()
    from lts import training

    record = training.read_run_config(FLAGS.workdir)
    recalibrates = record.config.discriminator.recalibrate_batch_norm if recalibrate is None else recalibrate
    recalibrates = recalibrates and record.stage in STAGES and STAGES[record.stage].adversarial
    if not recalibrates and CALIBRATED not in FLAGS.formats:
        common.refuse(IMAGES, "an export that measures no batch norm statistics (see --recalibrate_batch_norm)")
    source = None
    if FLAGS.dataset:
        source = common.open_source(record.config.image)
    else:
        common.refuse(set(IMAGES) - {"data_dir"}, "the training images of the run")
    options = {"data_dir": FLAGS.data_dir, "license": FLAGS.license}
    step = training.export_run(
        FLAGS.workdir, FLAGS.output, FLAGS.weights, FLAGS.formats, source, recalibrate, **options
    )
    print_result(f"exported step {step} of {FLAGS.workdir} ({FLAGS.weights} weights) to {FLAGS.output}")
    print(f"model card: {os.path.join(FLAGS.output, 'README.md')}")
    for task, program, dataset, output in NEXT:
        command = ["python", "-m", program, f"--model={FLAGS.output}", dataset, output]
        print(f"{task}: {shlex.join(command)}")


def _export_random() -> None:
    common.refuse(["workdir", "weights", "recalibrate_batch_norm"], "--random_weights")
    if FLAGS.preset is None or FLAGS.dataset is None:
        raise common.UsageError("--random_weights needs --preset, and --dataset to estimate batch norm statistics on")
    config = config_flags.chosen_preset().replace(**config_flags.overrides(*configs.NETWORK_SECTIONS))
    common.import_tensorflow()
    from lts import training

    source = common.open_source(config.image)
    training.export_random(config, source, FLAGS.seed, FLAGS.output, FLAGS.formats, FLAGS.license)
    print_result(f"exported random weights (preset {FLAGS.preset}, seed {FLAGS.seed}) to {FLAGS.output}")


def console() -> None:
    """Run the command `lts-export-features`."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
