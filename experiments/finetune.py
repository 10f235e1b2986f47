r"""Fine-tune a backbone with a new head.

    python -m experiments.finetune --model=runs/features --dataset=folder:LABELLED --output=runs/finetune \
        --baseline=runs/random_1,runs/random_2,runs/random_3

Trains all layers or the last ones on labels, and the baselines in the same way. Writes results.json, results.md and
results.png to --output. OUTPUT/training contains the runs with checkpoints and TensorBoard files. The same command
resumes a stopped run.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence

from absl import flags

from experiments.probing import flags as probe_flags
from experiments.probing.protocols import FINETUNE, FinetuneProtocol
from lts.bin import common, field_flags, paths
from lts.config.fields import fields_named
from lts.export.choices import EXPORT
from lts.utils import outputs
from lts.utils.outputs import dataset_folder

FLAGS = flags.FLAGS
DEFAULT = "default"
FIELDS = fields_named(
    FinetuneProtocol, "head", "epochs", "batch_size", "optimizer", "learning_rate", "weight_decay", "precision", "seeds"
)
TRAIN_LAYERS = fields_named(FinetuneProtocol, "train_layers")


def define_flags() -> None:
    """Define the flags of this binary."""
    define_schedule(FINETUNE, [*FIELDS, *TRAIN_LAYERS])


def define_schedule(protocols: Mapping[str, FinetuneProtocol], fields: Sequence[dataclasses.Field]) -> None:
    """Define flags of models, images and schedule."""
    flags.DEFINE_enum("protocol", DEFAULT, list(protocols), "named protocol, see experiments/probing/protocols.py")
    paths.define("export", None, "write the trained backbone of --model here, as a SavedModel")
    probe_flags.define_inputs()
    probe_flags.define_protocol(fields, lambda: protocols[FLAGS.protocol])


def main() -> None:
    """Fine-tune as the flags describe."""
    run(FINETUNE, [*FIELDS, *TRAIN_LAYERS])


def run(protocols: Mapping[str, FinetuneProtocol], fields: Sequence[dataclasses.Field]) -> None:
    """Train, test and report; arguments as `define_schedule`."""
    protocol = dataclasses.replace(protocols[FLAGS.protocol], **field_flags.given(fields))
    # A folder that cannot be replaced is reported before hours of training.
    if FLAGS.export:
        runs = os.path.join(FLAGS.output, "training", "run")  # one of the runs, which are exported at the end
        inputs = [FLAGS.model, *FLAGS.baseline, runs, FLAGS.data_dir, dataset_folder(FLAGS.dataset)]
        EXPORT.check(FLAGS.export, inputs)
    probe_flags.check_inputs()
    common.import_tensorflow()
    from experiments.probing import run as probe_run
    from experiments.probing.finetuning import FinetuneProbe
    from experiments.reporting import probe as probe_report
    from lts import training

    with outputs.locked(FLAGS.output):
        inputs = probe_flags.open_inputs()
        probe = FinetuneProbe(protocol=protocol, train=inputs.train, test=inputs.test, output=FLAGS.output)
        results = probe_run.run(probe, inputs.model, inputs.baselines)
        probe_report.write(results, FLAGS.output)
        # The first seed stands for the others.
        if FLAGS.export:
            training.export_run(probe.workdir(inputs.model, protocol.seeds[0]), FLAGS.export)
        probe_run.finish(results, FLAGS.output)


def console() -> None:
    """Run the command."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
