r"""Says where images look repaired; or how well the model says it, on damage of its own run's making.

python -m lts.bin.spot_artifacts --model=runs/features --images=FOLDER --output=runs/spotted
python -m lts.bin.spot_artifacts --model=runs/features --evaluate=runs/gan --dataset=folder:PHOTOS --split=test \
  --output=runs/spotting
"""

import os

from absl import flags

from lts.bin import common

FLAGS = flags.FLAGS
ONLY = {  # flags that one of the two ways does not take
    "images": ("dataset", "keep_probability", "resamples", "seed"),
    "evaluate": ("image_size", "test_crop"),
}
SHOWN = 5  # images named at the end


def main() -> None:
    """Flags to one call."""
    given = [name for name in ONLY if FLAGS[name].value is not None]
    if len(given) != 1:
        raise common.UsageError("give either --images=FOLDER or --evaluate=WORKDIR with --dataset")
    for name in ONLY[given[0]]:
        if FLAGS[name].present:
            raise common.UsageError(f"--{name} does not go with --{given[0]}")
    if FLAGS.evaluate is not None:
        _evaluate()
    else:
        _spot()


def _spot() -> None:
    folder, output = (os.path.realpath(path) for path in (FLAGS.images, FLAGS.output))
    if os.path.commonpath([folder, output]) == folder:
        raise common.UsageError(
            f"--output={FLAGS.output} lies in --images: its overlays would be spotted the next time"
        )
    common.import_tensorflow()
    from lts import spotting
    from lts.export import saved_model

    model, source = saved_model.load(FLAGS.model), common.open_source(f"folder:{FLAGS.images}")
    scores = spotting.spot_images(model, source, FLAGS.output, image_size=FLAGS.image_size, test_crop=FLAGS.test_crop)
    for score in scores[:SHOWN]:
        print(f"{score.probability:.3f} {score.image}")
    print(f"{len(scores)} images: {os.path.join(FLAGS.output, 'sheet.html')}")
    if source.broken:
        print(f"{len(source.broken)} broken images were skipped: {', '.join(source.broken)}")


def _evaluate() -> None:
    if FLAGS.dataset is None:
        raise common.UsageError("--evaluate needs --dataset, and --split where the run was trained on a part of it")
    common.import_tensorflow()
    from lts import spotting
    from lts.export import saved_model

    model = saved_model.load(FLAGS.model)
    corruption = spotting.Corruption(FLAGS.evaluate, FLAGS.keep_probability)
    results = spotting.evaluate(
        model, corruption, common.open_source(), FLAGS.output, seed=FLAGS.seed, resamples=FLAGS.resamples
    )
    print(f"{spotting.summary(results)}\n{os.path.join(FLAGS.output, 'evaluation.html')}")


def console() -> None:
    """Entry point of `lts-spot-artifacts`."""
    flags.DEFINE_string("model", None, "SavedModel of export_features", required=True)
    flags.DEFINE_string("images", None, "folder of images to look at")
    flags.DEFINE_string("evaluate", None, "workdir of train_gan: damages the images of --dataset and measures")
    flags.DEFINE_string("output", None, "folder to write", required=True)
    flags.DEFINE_integer("image_size", None, "pixels a side that the model sees, if not those of its training")
    flags.DEFINE_float(
        "test_crop", None, "central crop, fraction of each side, if not that of its training; 1: all", upper_bound=1
    )
    flags.DEFINE_float("keep_probability", None, "a cell is KEPT with this probability, if not the run's own")
    flags.DEFINE_integer("resamples", 1000, "of the bootstrap", lower_bound=10)
    flags.DEFINE_integer("seed", 1, "of keep masks and bootstrap", lower_bound=0)
    common.define_data_flags(required=False)
    common.run(main)


if __name__ == "__main__":
    console()
