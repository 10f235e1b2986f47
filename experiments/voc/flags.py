"""Flags that the binaries of the three VOC tasks share, and the whole run."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from absl import flags

from experiments.probing import flags as probe_flags
from experiments.probing.flags import Inputs
from experiments.voc.protocols import VocProtocol
from lts.bin import common, field_flags, paths
from lts.utils import outputs
from lts.utils.streams import print_result

FLAGS = flags.FLAGS
IMAGES = "images: folder:PATH (VOCdevkit layout) | tfds:voc/2007 | tfds:voc/2012"
CLASS_NAMES_HELP = "voc, or a file with a name per line (masks: label 0 first); none: those of the training images"


def define_flags(protocols: Mapping[str, VocProtocol], train_split: str, test_split: str) -> None:
    """Define flags of models, images and output, and one for each field of the protocol.

    Args:
      protocols: by the value of --protocol.
      train_split: default of --train_split.
      test_split: default of --test_split.
    """
    names = list(protocols)
    flags.DEFINE_enum("protocol", names[0], names, "named protocol, see experiments/voc/protocols.py")
    paths.define("class_names", None, CLASS_NAMES_HELP)
    # Boxes and masks count pixels of the images as they are.
    probe_flags.define_inputs(IMAGES, train_split, test_split, cache=True, shrink=False)
    probe_flags.define_protocol(_fields(protocols), lambda: protocols[FLAGS.protocol])


def _fields(protocols: Mapping[str, VocProtocol]) -> list[dataclasses.Field]:
    """The fields of the protocols that are flags."""
    protocol = next(iter(protocols.values()))
    return [field for field in dataclasses.fields(protocol) if field.name != "name"]


def open_inputs(task: str) -> Inputs:
    """Return the models and images that the flags name.

    Args:
      task: "classification" | "detection" | "segmentation".

    Raises:
      ExportError: no export, or one without a backbone.
      DataError: see `open_images`.
    """
    from experiments.voc.data.dataset import read_class_names
    from experiments.voc.data.images import open_images
    from lts.export import saved_model

    class_names = FLAGS.class_names and read_class_names(FLAGS.class_names, masks=task == "segmentation")
    model = saved_model.load(FLAGS.model)
    baselines = [saved_model.load(path) for path in FLAGS.baseline]
    # An unsuitable model raises here, before images are read and hours of searching for proposals.
    for candidate in (model, *baselines):
        candidate.keras_model()
    options = {name: FLAGS[name].value for name in ("data_dir", "skip_broken_images", "cache_gb")}
    train_split, test_split = choose_splits(task)
    train = open_images(FLAGS.dataset, train_split, task, class_names=class_names, **options)
    test = open_images(FLAGS.dataset, test_split, task, class_names=train.set.class_names, **options)
    return Inputs(model, baselines, train, test)


def choose_splits(task: str) -> tuple[str, str]:
    """Return the splits of the flags, or those of the folder where none is given."""
    from experiments.voc.data import devkit

    given = FLAGS.train_split, FLAGS.test_split
    kind, _, path = FLAGS.dataset.partition(":")
    if kind != "folder" or FLAGS["train_split"].present or FLAGS["test_split"].present:
        return given
    chosen = devkit.default_splits(path, task, *given)
    if chosen[1].endswith(devkit.HELD_OUT):
        print(f"{FLAGS.dataset} has no test split, so a fifth of the images is held out for the test", flush=True)
    elif chosen != given:
        print(f"{FLAGS.dataset} has no split {given[1]}: training on {chosen[0]}, testing on {chosen[1]}", flush=True)
    return chosen


def run(protocols: Mapping[str, VocProtocol], task: str, make: Callable[[Inputs, VocProtocol], Any]) -> None:
    """Run a task and write its files.

    Finished parts of a stopped run are not trained again.

    Args:
      protocols: by the value of --protocol.
      task: see `open_inputs`.
      make: called with inputs and protocol, returns the `VocTask`. It imports what needs TensorFlow.
    """
    protocol = protocols[FLAGS.protocol].replace(**field_flags.given(_fields(protocols)))
    if protocol.optimizer != "sgd":
        common.refuse(["momentum", "rate_steps", "rate_factor"], f"--optimizer={protocol.optimizer}")
    elif not protocol.rate_steps:
        common.refuse(["rate_factor"], "--rate_steps=0")
    probe_flags.check_inputs(devkit=True)
    common.import_tensorflow()
    from experiments.probing.cache import clear_cache
    from experiments.voc import report as voc_report
    from experiments.voc import run as voc_run

    with outputs.locked(FLAGS.output):
        inputs = open_inputs(task)
        results = voc_run.run(make(inputs, protocol), inputs.model, inputs.baselines, FLAGS.output)
        voc_report.write(results, FLAGS.output)
        clear_cache(FLAGS.output)
    print_result(f"\n{voc_report.markdown(results)}\n{results['seconds']:.0f} s; written to {FLAGS.output}")
