"""Flags that the programs of the probes share, and the inputs that they name."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from absl import flags

from lts.bin import common, field_flags, paths
from lts.export import choices
from lts.utils import outputs
from lts.utils.text import warn

FLAGS = flags.FLAGS
LABELLED = "labelled images: synthetic | tfds:NAME | folder:PATH"


def define_inputs(
    images: str = LABELLED,
    train_split: str | None = None,
    test_split: str | None = None,
    cache: bool = False,
    several_models: bool = False,
    shrink: bool = True,
) -> None:
    """Define flags of models, images and the output.

    Args:
      images: help of --dataset.
      train_split: default of --train_split.
      test_split: default of --test_split.
      cache: whether images are used more than once, for --cache_gb.
      several_models: whether --model is a list.
      shrink: whether images may be shrunk, for --stored_size.
    """
    if several_models:
        paths.define_list("model", "SavedModels to evaluate (lts.bin.export_features)", required=True)
    else:
        paths.define("model", None, "SavedModel to evaluate (lts.bin.export_features)", required=True)
    paths.define_list("baseline", "SavedModels to compare with, such as untrained ones")
    paths.define("output", None, "folder of the results; a run in it is resumed", required=True)
    common.define_data_flags(split=False, cache=cache, shrink=shrink, images=images)
    common.define_import_flag()
    with field_flags.group("Splits"):
        flags.DEFINE_string("train_split", train_split, "split to train on; none: that of the data set")
        flags.DEFINE_string(
            "test_split", test_split, "split to test on; none: that of the data set, or a held-out fifth of each class"
        )


def define_protocol(described: Iterable[dataclasses.Field], chosen: Callable[[], Any]) -> None:
    """Define flags that change fields of a protocol.

    Args:
      described: fields of the protocol.
      chosen: returns the protocol without those changes.
    """
    with field_flags.group("Protocol"):
        field_flags.define(described, chosen)


def define_layers() -> None:
    """Define flags of the layers of a probe."""
    flags.DEFINE_list("layers", [], "layers to probe; none: all")
    flags.DEFINE_integer("batch_size", 100, "images per forward pass; affects speed only", 1)


def check_inputs(layers: Sequence[str] = (), devkit: bool = False) -> None:
    """Check output, models and layers before TensorFlow is imported.

    Args:
      layers: names of layers that every model must have.
      devkit: whether --dataset has VOC's layout, of which only listed images are read.

    Raises:
      OutputError: the output folder cannot be written, or holds a results.json of another program.
      ExportError: a model is not an export.
      LayerError: a model lacks a layer.
    """
    from experiments.reporting import results as result_files  # imports matplotlib

    if devkit:
        result_files.check_output(FLAGS.output, names=(*result_files.WRITTEN, "pictures"))
    else:
        result_files.check_output(FLAGS.output, FLAGS.dataset)
    models = FLAGS.model if isinstance(FLAGS.model, list) else [FLAGS.model]
    paths_of_exports = [*models, *FLAGS.baseline]
    if len({os.path.realpath(path) for path in paths_of_exports}) < len(paths_of_exports):
        warn(f"the same export is given twice. Received: {', '.join(paths_of_exports)}.")
    for path in paths_of_exports:
        known = [layer.name for layer in choices.layer_geometry(choices.read_description(path))]
        for layer in layers:
            if layer not in known:
                raise choices.LayerError(
                    f"{path} has no such layer. Received: layers={layer}. Choose from {', '.join(known)}."
                )


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Loaded models and labelled images."""

    model: Any  # a list where --model is one
    baselines: list
    train: Any
    test: Any


def open_inputs(image_size: int = 0) -> Inputs:
    """Return the models and images that the flags name.

    Args:
      image_size: pixels per side that the backbones see; 0: those of their training.
    """
    from lts.export import saved_model

    several = isinstance(FLAGS.model, list)
    model = [saved_model.load(path) for path in FLAGS.model] if several else saved_model.load(FLAGS.model)
    baselines = [saved_model.load(path) for path in FLAGS.baseline]
    models = [*model, *baselines] if several else [model, *baselines]
    train = open_split(FLAGS.train_split, "train", models, image_size)
    test = open_split(FLAGS.test_split, "test", models, image_size)
    return Inputs(model, baselines, train, test)


def open_split(split: str | None, role: str, models: Iterable[Any], image_size: int = 0, **options: Any) -> Any:
    """Return the images of a split; further options are those of `lts.data.open_source`.

    Large images are shrunk as far as the models allow, as in their training.
    """
    from experiments.probing import datasets

    options.update(data_dir=FLAGS.data_dir, skip_broken_images=FLAGS.skip_broken_images)
    options["stored_size"] = max(common.stored_size(common.image_config(model, image_size)) for model in models)
    return datasets.open_labelled(FLAGS.dataset, split, role=role, **options)


def run_probe(probe_class: type, protocol: Any) -> None:
    """Run a probe of frozen features and report."""
    from experiments.probing import run as probe_run
    from experiments.reporting import probe as probe_report

    with outputs.locked(FLAGS.output):
        inputs = open_inputs()
        options = {"output": FLAGS.output, "batch_size": FLAGS.batch_size}
        probe = probe_class(protocol=protocol, train=inputs.train, test=inputs.test, **options)
        results = probe_run.run(probe, inputs.model, inputs.baselines, FLAGS.layers)
        # The cache goes last, so that a run which stops before repeats no work.
        probe_report.write(results, FLAGS.output)
        probe_run.finish(results, FLAGS.output)
