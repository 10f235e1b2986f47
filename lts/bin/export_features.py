"""Stage 3: exports the discriminator of a run as a SavedModel, or an untrained one to compare with.

Of a run of stage 1 the encoder is exported. --recalibrate_batch_norm measures batch norm statistics anew, on --dataset or
the images of training.

python -m lts.bin.export_features --workdir=runs/gan --output=runs/features
python -m lts.bin.export_features --preset=small --random_weights --seed=1 --dataset=folder:PHOTOS --output=runs/random
"""

from absl import flags

from lts import config as configs
from lts.bin import common

SECTIONS = ("image", "autoencoder", "discriminator")
FLAGS = flags.FLAGS


def main() -> None:
    """Flags to one export."""
    if FLAGS.random_weights:
        _export_random()
    else:
        _export_run()


def _export_run() -> None:
    fixed = [name for name in ("preset", *common.overrides(*SECTIONS)) if name != "recalibrate_batch_norm"]
    given = [name for name in fixed if FLAGS[name].value is not None]
    if given:
        raise common.UsageError(f"--{given[0]} goes with --random_weights; a trained run has its own configuration")
    if FLAGS.workdir is None:
        raise common.UsageError("--workdir=RUN is required, or --random_weights with --preset and --dataset")
    common.import_tensorflow()
    from lts import training

    recalibrate = FLAGS.recalibrate_batch_norm
    configured = training.read_run_config(FLAGS.workdir)["config"].discriminator.recalibrate_batch_norm
    if FLAGS.dataset and not (configured if recalibrate is None else recalibrate):
        raise common.UsageError("--dataset is for --recalibrate_batch_norm: give both, or leave it out")
    source = common.open_source() if FLAGS.dataset else None
    step = training.export_run(FLAGS.workdir, FLAGS.output, FLAGS.weights, FLAGS.formats, source, recalibrate)
    print(f"exported step {step} of {FLAGS.workdir} ({FLAGS.weights} weights) to {FLAGS.output}")


def _export_random() -> None:
    if FLAGS.workdir is not None:
        raise common.UsageError("--workdir and --random_weights exclude each other")
    if FLAGS.preset is None or FLAGS.dataset is None:
        raise common.UsageError("--random_weights needs --preset and --dataset, to estimate batch norm statistics on")
    config = configs.preset(FLAGS.preset, **common.overrides(*SECTIONS))
    common.import_tensorflow()
    from lts import training

    training.export_random(config, common.open_source(), FLAGS.seed, FLAGS.output, FLAGS.formats)
    print(f"exported random weights (preset {FLAGS.preset}, seed {FLAGS.seed}) to {FLAGS.output}")


def console() -> None:
    """Entry point of `lts-export-features`."""
    flags.DEFINE_string("workdir", None, "workdir of train_gan")
    flags.DEFINE_string("output", None, "folder of the SavedModel", required=True)
    flags.DEFINE_enum("weights", "raw", ("raw", "averaged"), "averaged: the moving average of the run's weights")
    flags.DEFINE_list("formats", ["saved_model"], "beside the SavedModel: tflite, tflite_float16, onnx (extra onnx)")
    flags.DEFINE_bool("random_weights", False, "export an untrained discriminator")
    flags.DEFINE_integer("seed", 1, "of the random weights", lower_bound=0)
    common.define_data_flags(required=False)
    common.define_config_flags(*SECTIONS)
    common.run(main)


if __name__ == "__main__":
    console()
