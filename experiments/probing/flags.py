"""What the binaries of the probes share: flags, the way from flags to models and images, and the end of a run."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from absl import flags

from experiments.probing.protocols import POOLS
from lts.bin import common

LABELLED = "Labelled images: synthetic | tfds:NAME | folder:PATH."


def define_inputs(
    values: flags.FlagValues, images: str = LABELLED, train_split: str | None = None, test_split: str | None = None
) -> None:
    """Flags of models, images and the output.

    Args:
      values: where to add them.
      images: help of --dataset.
      train_split, test_split: where none is given.
    """
    text, several = flags.DEFINE_string, flags.DEFINE_list
    text("model", None, "SavedModel to look into (lts.bin.export_features).", flag_values=values)
    several("baseline", [], "SavedModels to put beside it, above all untrained ones.", flag_values=values)
    text("dataset", None, images, flag_values=values)
    text("data_dir", None, "Where tfds keeps its data sets.", flag_values=values)
    text("train_split", train_split, "Split to train on; none: the data set's own.", flag_values=values)
    text("test_split", test_split, "Split to test on; none: the data set's own.", flag_values=values)
    text("output", None, "Folder of the results; a run that is in it goes on.", flag_values=values)
    flags.DEFINE_bool("skip_broken_images", False, "Leave out images that cannot be read.", flag_values=values)
    flags.mark_flags_as_required(["model", "dataset", "output"], flag_values=values)


def define(default: Any, values: flags.FlagValues) -> None:
    """Those of `define_inputs`, and flags of layers and pooling; defaults are those of a protocol."""
    define_inputs(values)
    integer, several = flags.DEFINE_integer, flags.DEFINE_list
    several("layers", [], "Layers to probe; none: all.", flag_values=values)
    integer("dimensions", default.dimensions, "Values a layer is pooled to, about.", 1, flag_values=values)
    flags.DEFINE_enum("pool", default.pool, POOLS, "How feature maps are pooled.", flag_values=values)
    integer("batch_size", 100, "Images in one forward pass; speed alone.", 1, flag_values=values)
    integer("seed", default.seed, "Of all random choices.", 0, flag_values=values)


def numbers(values: flags.FlagValues, name: str, kind: Callable[[str], Any], wanted: Callable[[Any], bool]) -> tuple:
    """The different entries of a list flag, ascending.

    Args:
      values: the flags.
      name: of the flag.
      kind: int or float.
      wanted: whether a number may be there.

    Returns:
      The numbers.

    Raises:
      UsageError: something else than such numbers, or none at all.
    """
    try:
        found = tuple(sorted({kind(entry) for entry in values[name].value}))
    except ValueError:
        found = ()
    if not found or not all(wanted(number) for number in found):
        raise common.UsageError(f"--{name}: {values[name].help} Received: {','.join(values[name].value)}")
    return found


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a probe looks at: loaded models, and labelled sources."""

    model: Any
    baselines: list
    train: Any
    test: Any


def open_inputs(values: flags.FlagValues) -> Inputs:
    """Models and images that the flags name."""
    from experiments.probing import datasets
    from lts.export import saved_model
    from lts.utils import files

    files.check_folder(values.output)
    model, *baselines = (saved_model.load(path) for path in (values.model, *values.baseline))
    options = {"data_dir": values.data_dir, "skip_broken_images": values.skip_broken_images}
    train = datasets.open_labelled(values.dataset, values.train_split, role="train", **options)
    test = datasets.open_labelled(values.dataset, values.test_split, role="test", **options)
    return Inputs(model, baselines, train, test)


def run(
    values: flags.FlagValues,
    inputs: Inputs,
    protocol: Any,
    measure: Callable[..., dict[str, Any]] | None,
    finish: Callable | None = None,
    probe_model: Callable | None = None,
) -> None:
    """A probe from its flags to its files; what is already done of a run that was stopped is not done again.

    Args:
      values: the flags.
      inputs: of `open_inputs`.
      protocol: a dataclass of `experiments.probing.protocols`.
      measure: the probe of one layer, see `probe_run.run`.
      probe_model: the probe of one model in place of `measure`, see `probe_run.run`.
      finish: called with the model, the results and the test images before the run counts as done.
    """
    from experiments.probing import run as probe_run

    models, sources, output = (inputs.model, inputs.baselines), (inputs.train, inputs.test), values.output
    results = probe_run.run(*models, *sources, values.layers, protocol, output, values.batch_size, measure, probe_model)
    end(results, output, lambda: finish(inputs.model, results, inputs.test) if finish else None)


def end(results: Mapping[str, Any], output: str, finish: Callable[[], None]) -> None:
    """Writes and shows what a run gave; `finish` is called before it counts as done."""
    from experiments.probing import run as probe_run
    from experiments.reporting import probe as probe_report

    probe_report.write(results, output)
    finish()
    probe_run.clear_cache(output)
    print(f"\n{probe_report.markdown(results)}\n{results['seconds']:.0f} s; written to {output}")
