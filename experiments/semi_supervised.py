r"""Compare labels in pre-training with fine-tuning.

    python -m experiments.semi_supervised --model=runs/labels_1/features,runs/labels_10/features \
        --baseline=runs/features --dataset=folder:LABELLED --output=runs/semi_supervised

The models are exports of `lts.bin.train_gan --labels_weight=1 --labels_share=SHARE`; each tells the classes by itself.
The baselines are exports that were trained without labels. They are fine-tuned with the same labels, once for each
share. Writes results.json, results.md and results.png to --output. The same command resumes a stopped run.
"""

import dataclasses

from absl import flags

from experiments.finetune import FIELDS, TRAIN_LAYERS
from experiments.probing import flags as probe_flags
from experiments.probing.protocols import FINETUNE
from lts.bin import common, field_flags
from lts.export import choices
from lts.utils import outputs
from lts.utils.errors import UserError

FLAGS = flags.FLAGS
DEFAULT = dataclasses.replace(FINETUNE["default"], name="semi_supervised")


def define_flags() -> None:
    """Define the flags of this binary."""
    probe_flags.define_inputs(several_models=True)
    probe_flags.define_protocol([*FIELDS, *TRAIN_LAYERS], lambda: DEFAULT)


def main() -> None:
    """Test, fine-tune and report as the flags describe."""
    protocol = dataclasses.replace(DEFAULT, **field_flags.given([*FIELDS, *TRAIN_LAYERS]))
    if len(protocol.seeds) > 1:
        raise common.UsageError("one seed is compared with one pre-training. Received: several --seeds.")
    probe_flags.check_inputs()
    for path in FLAGS.model:
        if "classes" not in choices.read_description(path):
            raise UserError(f"the export tells no classes. Received: --model={path}. Give one of a run with labels.")
    common.import_tensorflow()
    from experiments.probing import run as probe_run
    from experiments.probing.semi_supervised import LabelledExports, SemiSupervisedProbe
    from experiments.reporting import probe as probe_report

    with outputs.locked(FLAGS.output):
        inputs = probe_flags.open_inputs()
        exports = {}
        shares = {}
        for export in sorted(inputs.model, key=lambda export: export.config.loss.labels_share):
            share = export.config.loss.labels_share
            name = f"{100 * share:g} %"
            if name in exports:
                raise UserError(f"every model needs another share of the labels. Received: {name} in {export.path}.")
            exports[name] = export
            shares[name] = probe_flags.open_split(FLAGS.train_split, "train", inputs.model, labels_share=share)
        images = {"train": inputs.train, "test": inputs.test, "shares": shares}
        probe = SemiSupervisedProbe(protocol=protocol, **images, output=FLAGS.output)
        results = probe_run.run(probe, LabelledExports(exports), inputs.baselines)
        probe_report.write(results, FLAGS.output)
        probe_run.finish(results, FLAGS.output)


def console() -> None:
    """Run the command."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
