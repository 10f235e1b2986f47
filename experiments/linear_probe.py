"""Linear probes: what the frozen features of a SavedModel are worth, layer by layer.

    python -m experiments.linear_probe --model=runs/features --dataset=folder:LABELLED --output=runs/probe \
        --baseline=runs/random_1,runs/random_2,runs/random_3

Writes results.json, results.md and results.png into --output, and test images for TensorBoard's embedding projector
into --output/tensorboard. A run that was stopped goes on where it stopped.
"""

import dataclasses

from absl import flags

from experiments.protocol import CLASSIFIERS, POOLS, Protocol
from lts.bin import common

DEFAULT = Protocol()


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Adds this binary's flags; a function, so that importing the module has no effect on other binaries."""
    text, integer, choice = flags.DEFINE_string, flags.DEFINE_integer, flags.DEFINE_enum
    text("model", None, "SavedModel to look into (lts.bin.export_features).", flag_values=values)
    flags.DEFINE_list("baseline", [], "SavedModels to put beside it, above all untrained ones.", flag_values=values)
    text("dataset", None, "Labelled images: embedded | tfds:NAME | folder:PATH.", flag_values=values)
    text("data_dir", None, "Where tfds keeps its data sets.", flag_values=values)
    text("train_split", None, "Split to train on; none: the data set's own.", flag_values=values)
    text("test_split", None, "Split to test on; none: the data set's own.", flag_values=values)
    text("output", None, "Folder for results.json, results.md, results.png, tensorboard/.", flag_values=values)
    flags.DEFINE_list("layers", [], "Layers to probe; none: all.", flag_values=values)
    integer("dimensions", DEFAULT.dimensions, "Values a layer is pooled to, about.", 1, flag_values=values)
    choice("pool", DEFAULT.pool, POOLS, "How feature maps are pooled.", flag_values=values)
    choice("classifier", DEFAULT.classifier, CLASSIFIERS, "Linear classifier.", flag_values=values)
    integer("projector_images", 1000, "Test images in the embedding projector; 0: none.", 0, flag_values=values)
    integer("batch_size", 100, "Images in one forward pass; speed alone.", 1, flag_values=values)
    integer("seed", DEFAULT.seed, "Of the validation split and the bootstrap.", 0, flag_values=values)
    flags.DEFINE_bool("model_card", False, "Put the figures into the model's README.md too.", flag_values=values)
    flags.DEFINE_bool("skip_broken_images", False, "Leave out images that cannot be read.", flag_values=values)
    flags.mark_flags_as_required(["model", "dataset", "output"], flag_values=values)


def main(values: flags.FlagValues = flags.FLAGS) -> None:
    """Flags to one call of `probe_run.run`."""
    common.import_tensorflow()
    from experiments import probe_report, probe_run, projector
    from lts import data, model_card, saved_model

    names = ("classifier", "pool", "dimensions", "seed")
    protocol = dataclasses.replace(DEFAULT, **{name: values[name].value for name in names})
    model, *baselines = (saved_model.load(path) for path in (values.model, *values.baseline))
    options = {"data_dir": values.data_dir, "skip_broken_images": values.skip_broken_images}
    train = data.open_source(values.dataset, values.train_split, purpose="train", **options)
    test = data.open_source(values.dataset, values.test_split, purpose="test", **options)
    results = probe_run.run(model, baselines, train, test, values.layers, protocol, values.output, values.batch_size)
    probe_report.write(results, values.output)
    projector.write(model, results["layers"], test, values.output, values.projector_images, values.batch_size)
    if values.model_card:
        model_card.add_probe(values.model, results)
    probe_run.forget(values.output)
    print(f"\n{probe_report.markdown(results)}\n{results['seconds']:.0f} s; written to {values.output}")


def console() -> None:
    """Entry point of the command."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
