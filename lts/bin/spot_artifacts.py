r"""Find repaired regions, or measure the finding.

    python -m lts.bin.spot_artifacts --model=runs/features --images=FOLDER --output=runs/spotted
    python -m lts.bin.spot_artifacts --model=runs/features --evaluate=runs/gan --dataset=folder:PHOTOS --split=test \
        --output=runs/spotting

The first command writes artifact maps of the images in a folder. The second damages and repairs the images of --dataset
with the networks of a run, and measures how well the model finds the damage.
"""

import os

from absl import flags

from lts.bin import common, field_flags, paths
from lts.export import choices
from lts.utils.outputs import dataset_folder
from lts.utils.streams import print_result
from lts.utils.text import printable

FLAGS = flags.FLAGS
# Flags that do not apply, by the flag that chooses what the binary does.
EXCLUDED = {
    "images": ("dataset", "data_dir", "keep_probability", "resamples", "seed"),
    "evaluate": ("image_size", "test_crop"),
}
PRINTED_IMAGES = 5


def define_flags() -> None:
    """Define the flags of this binary."""
    paths.define("model", None, "SavedModel of export_features", required=True)
    paths.define("output", None, "folder to write", required=True)
    with field_flags.group("Artifact maps of a folder"):
        paths.define("images", None, "folder of images")
        flags.DEFINE_integer("image_size", None, "pixels per side that the model sees; none: those of its training")
        flags.DEFINE_float(
            "test_crop", None, "central crop, fraction of each side; none: that of its training", upper_bound=1
        )
    with field_flags.group("Evaluation"):
        paths.define("evaluate", None, "workdir of train_gan, which damages and repairs the images of --dataset")
        flags.DEFINE_float("keep_probability", None, "probability that a cell is KEPT; none: that of the run")
        flags.DEFINE_integer("resamples", 1000, "resamples of the bootstrap", lower_bound=10)
        flags.DEFINE_integer("seed", 1, "seed of keep masks and bootstrap", lower_bound=0)
    common.define_data_flags(required=False)
    common.define_import_flag()


def main() -> None:
    """Spot artifacts, or evaluate a run."""
    chosen = [name for name in EXCLUDED if FLAGS[name].value is not None]
    if len(chosen) != 1:
        raise common.UsageError("give either --images=FOLDER or --evaluate=WORKDIR with --dataset")
    common.refuse(EXCLUDED[chosen[0]], f"--{chosen[0]}")
    if FLAGS.evaluate is not None:
        _evaluate()
    else:
        _spot()


def _spot() -> None:
    folder = os.path.realpath(FLAGS.images)
    output = os.path.realpath(FLAGS.output)
    if os.path.commonpath([folder, output]) == folder:
        raise common.UsageError(
            f"the overlays would be spotted the next time. Received: output={FLAGS.output}. Give a folder outside of "
            "--images."
        )
    choices.check_spot(FLAGS.model, choices.read_description(FLAGS.model))
    common.import_tensorflow()
    from lts import spotting
    from lts.export import saved_model

    spotting.SPOTTED.check(FLAGS.output, [FLAGS.model, FLAGS.images, FLAGS.cache_dir])
    model = saved_model.load(FLAGS.model)
    source = common.open_source(common.image_config(model, FLAGS.image_size), f"folder:{FLAGS.images}")
    scores = spotting.spot_images(model, source, FLAGS.output, image_size=FLAGS.image_size, test_crop=FLAGS.test_crop)
    for score in scores[:PRINTED_IMAGES]:
        print(f"{score.probability:.3f} {printable(score.image)}")
    alarms = spotting.false_alarms({"path": FLAGS.model, **model.description})
    print_result(f"{spotting.headline(scores)}\n{alarms}\npage: {os.path.join(FLAGS.output, 'sheet.html')}")
    common.print_broken(source.broken)


def _evaluate() -> None:
    if FLAGS.dataset is None:
        raise common.UsageError("--evaluate needs --dataset, and --split where the run was trained on a part of it")
    choices.check_spot(FLAGS.model, choices.read_description(FLAGS.model))
    common.import_tensorflow()
    from lts import spotting
    from lts.export import saved_model

    inputs = [FLAGS.model, FLAGS.evaluate, FLAGS.data_dir, FLAGS.cache_dir, dataset_folder(FLAGS.dataset)]
    spotting.EVALUATION.check(FLAGS.output, inputs)
    model = saved_model.load(FLAGS.model)
    corruption = spotting.Corruption(FLAGS.evaluate, FLAGS.keep_probability)
    source = common.open_source(corruption.config.image)
    results = spotting.evaluate(model, corruption, source, FLAGS.output, seed=FLAGS.seed, resamples=FLAGS.resamples)
    print_result(f"{spotting.summary(results)}\n{os.path.join(FLAGS.output, 'evaluation.html')}")


def console() -> None:
    """Run the command `lts-spot-artifacts`."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
