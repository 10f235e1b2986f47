r"""Fine-tuning: the backbone of a SavedModel with a new head, trained on labels as a whole or in its last layers.

    python -m experiments.finetune --model=runs/features --dataset=folder:LABELLED --output=runs/finetune \
        --baseline=runs/random_1,runs/random_2,runs/random_3

The baselines are trained in the same way. Writes results.json, results.md and results.png into --output; the runs lie
below it in training/, with checkpoints and TensorBoard. A run that was stopped goes on where it stopped.
"""

import dataclasses
from collections.abc import Mapping

from absl import flags

from experiments.probing import flags as probe_flags
from experiments.probing.protocols import FINETUNE, FinetuneProtocol
from lts.bin import common
from lts.config import HEADS
from lts.utils import files

DEFAULT = "default"
OVERRIDES = ("head", "train_layers", "epochs", "batch_size", "learning_rate", "weight_decay", "precision")


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Adds this binary's flags; a function, so that importing the module has no effect on other binaries."""
    define_schedule(values)
    what = "Train this many of the last convolutions and freeze those before; 0: the head alone."
    flags.DEFINE_integer("train_layers", None, what, 0, 5, flag_values=values)


def define_schedule(values: flags.FlagValues) -> None:
    """Flags of models, images, head and schedule."""
    probe_flags.define_inputs(values)
    choice, integer, real = flags.DEFINE_enum, flags.DEFINE_integer, flags.DEFINE_float
    choice(
        "protocol", DEFAULT, list(FINETUNE), "Named protocol, see experiments/probing/protocols.py.", flag_values=values
    )
    choice("head", None, HEADS, "fc_1 and fc_2, a linear map of conv_5, or one of its mean.", flag_values=values)
    integer("epochs", None, "Passes over the training images.", 1, flag_values=values)
    integer("batch_size", None, "Images in one training step.", 1, flag_values=values)
    real("learning_rate", None, "First rate of Adam.", 1e-12, flag_values=values)
    real("weight_decay", None, "L2 on all kernels.", 0.0, flag_values=values)
    choice("precision", None, ("float32", "bfloat16"), "None: as the model was trained.", flag_values=values)
    flags.DEFINE_list("seeds", ["1"], "Seeds of training, at least 0 and below 2**30.", flag_values=values)
    flags.DEFINE_string(
        "export", None, "Write the trained backbone of --model here, as a SavedModel.", flag_values=values
    )


def main(values: flags.FlagValues = flags.FLAGS) -> None:
    """Flags to one call of `finetuning.run`."""
    run(values, FINETUNE)


def run(values: flags.FlagValues, protocols: Mapping[str, FinetuneProtocol]) -> None:
    """Flags to files; `protocols` by the value of --protocol."""
    given = [name for name in OVERRIDES if name in values and values[name].value is not None]
    chosen = {name: values[name].value for name in given}
    seeds = probe_flags.numbers(values, "seeds", int, lambda seed: 0 <= seed < 2**30)
    protocol = dataclasses.replace(protocols[values.protocol], seeds=seeds, **chosen)
    if values.export:
        files.check_replaceable(values.export, "saved_model.pb")
    common.import_tensorflow()
    from experiments.probing import finetuning
    from lts import training

    inputs, output = probe_flags.open_inputs(values), values.output
    results = finetuning.run(inputs.model, inputs.baselines, inputs.train, inputs.test, protocol, output)

    def finish() -> None:
        if values.export:
            training.export_run(finetuning.workdir(output, inputs.model, seeds[0]), values.export)

    probe_flags.end(results, output, finish)


def console() -> None:
    """Entry point of the command."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
