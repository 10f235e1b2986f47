"""What the binaries of the three VOC tasks share: flags, the way from flags to models and images, the end of a run."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from absl import flags

from experiments.probing import flags as probe_flags
from experiments.voc.protocols import CHOICES, VocProtocol
from lts.bin import common
from lts.utils import files

IMAGES = "folder:PATH (VOCdevkit layout) | tfds:voc/2007 | tfds:voc/2012."
NAMES = "voc, or a file with a name a line, of masks label 0 first; none: those of the training images."
LISTS = {tuple[int, ...]: int, tuple[float, ...]: float}


def define(
    protocols: Mapping[str, VocProtocol], train_split: str, test_split: str, values: flags.FlagValues = flags.FLAGS
) -> None:
    """Flags of models, images, output, and one for each field of the protocol.

    Args:
      protocols: by the value of --protocol.
      train_split: to learn from where none is given.
      test_split: to report on where none is given.
      values: where to add them.
    """
    probe_flags.define_inputs(values, IMAGES, train_split, test_split)
    flags.DEFINE_float(
        "cache_gb", None, "Memory for decoded images; none: half of what is free.", lower_bound=0, flag_values=values
    )
    flags.DEFINE_string("class_names", None, NAMES, flag_values=values)
    names = list(protocols)
    flags.DEFINE_enum("protocol", names[0], names, "Named protocol: experiments/voc/protocols.py.", flag_values=values)
    for field in _fields(protocols):
        _define_field(field, values)


def _fields(protocols: Mapping[str, VocProtocol]) -> list[dataclasses.Field]:
    """Fields of the protocols that are flags."""
    return [field for field in dataclasses.fields(next(iter(protocols.values()))) if field.name != "name"]


def _define_field(field: dataclasses.Field, values: flags.FlagValues) -> None:
    """The flag of a field; without it the field is as the named protocol has it."""
    given = (field.name, None, field.metadata["help"])
    if field.name in CHOICES:
        flags.DEFINE_enum(field.name, None, [o for o in CHOICES[field.name] if o], given[2], flag_values=values)
    elif field.type in LISTS:
        flags.DEFINE_list(*given, flag_values=values)
    else:
        {int: flags.DEFINE_integer, float: flags.DEFINE_float, bool: flags.DEFINE_bool}[field.type](
            *given, flag_values=values
        )


def protocol_of(values: flags.FlagValues, protocols: Mapping[str, VocProtocol]) -> VocProtocol:
    """The named protocol with the fields that were given.

    Raises:
      ProtocolError: a value that cannot be.
      UsageError: a list of something else than numbers.
    """
    changes = {}
    for field in _fields(protocols):
        value = values[field.name].value
        if value is None:
            continue
        if field.type in LISTS:
            try:
                value = tuple(LISTS[field.type](part) for part in value)
            except ValueError:
                raise common.UsageError(f"--{field.name} must be numbers. Received: {','.join(value)}") from None
        changes[field.name] = value
    return protocols[values.protocol].replace(**changes)


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a task works on: loaded models, and images."""

    model: Any
    baselines: list
    train: Any
    test: Any


def open_inputs(values: flags.FlagValues, task: str) -> Inputs:
    """Models and images that the flags name.

    Args:
      values: the flags.
      task: "classification" | "detection" | "segmentation".

    Raises:
      ExportError: no export, or one without a backbone.
      DataError: as `open_images` raises it.
    """
    from experiments.voc.data.dataset import read_class_names
    from experiments.voc.data.images import open_images
    from lts.export import saved_model

    class_names = values.class_names and read_class_names(values.class_names, masks=task == "segmentation")
    model, *baselines = (saved_model.load(path) for path in (values.model, *values.baseline))
    for candidate in (model, *baselines):
        candidate.keras_model()  # says what is wrong with one before images are read and proposals searched for
    options = {name: values[name].value for name in ("data_dir", "skip_broken_images", "cache_gb")}
    train = open_images(values.dataset, values.train_split, task, class_names=class_names, **options)
    test = open_images(values.dataset, values.test_split, task, class_names=train.set.class_names, **options)
    return Inputs(model, baselines, train, test)


def run(
    values: flags.FlagValues,
    protocols: Mapping[str, VocProtocol],
    task: str,
    make: Callable[[Inputs, VocProtocol], Any],
) -> None:
    """A binary from its flags to its files; what is already done of a run that was stopped is not done again.

    Args:
      values: the flags.
      protocols: by the value of --protocol.
      task: as for `open_inputs`.
      make: called with inputs and protocol, gives the `VocTask`; it imports what needs TensorFlow.
    """
    protocol = protocol_of(values, protocols)
    files.check_folder(values.output)
    common.import_tensorflow()
    from experiments.probing import run as probe_run
    from experiments.voc import report as voc_report
    from experiments.voc import run as voc_run

    inputs = open_inputs(values, task)
    made = make(inputs, protocol)
    results = voc_run.run(made, inputs.model, inputs.baselines, values.output)
    voc_report.write(results, values.output)
    probe_run.clear_cache(values.output)
    print(f"\n{voc_report.markdown(results)}\n{results['seconds']:.0f} s; written to {values.output}")
