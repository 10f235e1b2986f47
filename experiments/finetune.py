r"""Fine-tuning: the backbone of a SavedModel with a new head, trained on labels as a whole or in its last layers.

    python -m experiments.finetune --model=runs/features --dataset=folder:LABELLED --output=runs/finetune \
        --baseline=runs/random_1,runs/random_2,runs/random_3

The baselines are trained in the same way. Writes results.json, results.md and results.png into --output; the runs lie
below it in training/, with checkpoints and TensorBoard. A run that was stopped goes on where it stopped.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from absl import flags

from experiments.probing import flags as probe_flags
from experiments.probing.protocols import FINETUNE, FinetuneProtocol
from lts.bin import common, field_flags
from lts.config.fields import fields_named
from lts.utils import files

FLAGS = flags.FLAGS
DEFAULT = "default"
FIELDS = fields_named(
    FinetuneProtocol, "head", "epochs", "batch_size", "learning_rate", "weight_decay", "precision", "seeds"
)
TRAIN_LAYERS = fields_named(FinetuneProtocol, "train_layers")


def define_flags() -> None:
    """Define the flags of this binary."""
    define_schedule(FINETUNE, [*FIELDS, *TRAIN_LAYERS])


def define_schedule(protocols: Mapping[str, FinetuneProtocol], fields: Sequence[dataclasses.Field]) -> None:
    """Define flags of models, images, head and schedule.

    Args:
      protocols: by the value of --protocol.
      fields: of the protocol, which are flags.
    """
    flags.DEFINE_enum("protocol", DEFAULT, list(protocols), "named protocol, see experiments/probing/protocols.py")
    flags.DEFINE_string("export", None, "write the trained backbone of --model here, as a SavedModel")
    probe_flags.define_inputs()
    probe_flags.define_protocol(fields, lambda: protocols[FLAGS.protocol])


def main() -> None:
    """Fine-tune as the flags describe."""
    run(FINETUNE, [*FIELDS, *TRAIN_LAYERS])


def run(protocols: Mapping[str, FinetuneProtocol], fields: Sequence[dataclasses.Field]) -> None:
    """Train, test and write the results; arguments as for `define_schedule`."""
    protocol = dataclasses.replace(protocols[FLAGS.protocol], **field_flags.given(fields))
    if FLAGS.export:
        files.check_replaceable(FLAGS.export, "saved_model.pb")
    common.import_tensorflow()
    from experiments.probing import finetuning
    from lts import training

    inputs = probe_flags.open_inputs()
    results = finetuning.run(inputs.model, inputs.baselines, inputs.train, inputs.test, protocol, FLAGS.output)

    def finish() -> None:
        if FLAGS.export:
            workdir = finetuning.workdir(FLAGS.output, inputs.model, protocol.seeds[0])
            training.export_run(workdir, FLAGS.export)

    probe_flags.end(results, finish)


def console() -> None:
    """Run the command."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
