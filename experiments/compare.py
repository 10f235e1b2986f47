"""This method and its rivals: the same backbone, images, augmentation, batch size and time, then the same probes.

    python -m experiments.compare --preset=small --dataset=folder:PHOTOS --budget_minutes=30 --output=runs/compare

Rivals are random initialisation (three seeds), the autoencoder's own encoder, rotation prediction, supervised training
from scratch on the labelled training images, and this method, the time of both stages counted. First the training loops
are timed in turns on this machine; each then gets the steps that fit into the budget (OUTPUT/plan.json), whatever else
the machine does later. Writes results.json, results.md and results.png into --output. The same command goes on with a
run that was stopped.
"""

import pathlib

from absl import flags

from experiments.pretraining import baselines
from experiments.pretraining import flags as pretraining_flags
from experiments.pretraining.pipeline import Pipeline
from experiments.probing.protocols import LINEAR
from lts.bin import common
from lts.utils import files

FLAGS = flags.FLAGS
DECIDED = ("steps", "epochs")  # by the budget


def request() -> baselines.Request:
    """Budget, share and settings that the flags say.

    Raises:
      UsageError: a flag that the budget decides, no budget, or a share that leaves nothing for a stage.
    """
    for name in DECIDED:
        if FLAGS[name].value is not None or name in pretraining_flags.schedule_of_stage_1():
            raise common.UsageError(f"{name} follow from --budget_minutes: leave them out")
    if not FLAGS.budget_minutes > 0:  # nor nan
        raise common.UsageError(f"--budget_minutes must be above 0. Received: {FLAGS.budget_minutes:g}")
    if not 0 < FLAGS.autoencoder_share < 1:
        raise common.UsageError(f"--autoencoder_share must lie between 0 and 1. Received: {FLAGS.autoencoder_share}")
    settings = {name: dict(fields) for name, fields in baselines.SETTINGS.items()}
    for name, fields in settings.items():
        given = FLAGS[f"{name}_learning_rate"].value
        fields["learning_rate"] = fields["learning_rate"] if given is None else given
    return baselines.Request(FLAGS.budget_minutes, FLAGS.autoencoder_share, settings)


def main() -> None:
    """Flags to a plan to trainings to results."""
    asked, (_, base) = request(), pretraining_flags.base()
    files.check_folder(FLAGS.output)
    pretrain = common.open_source()
    from experiments.probing import run as probe_run
    from experiments.reporting import comparison as comparison_report

    train, test = (pretraining_flags.open_labelled(FLAGS[f"{side}_split"].value, side) for side in ("train", "test"))
    probe_run.check_labels(train, test)
    images, output = baselines.Images(pretrain, train, test), pathlib.Path(FLAGS.output)
    data = {"dataset": pretrain.name, "split": pretrain.split, "train_split": train.split}
    stages = Pipeline(output / "stages.json", base, data)
    made = baselines.plan(asked, base, images, output, stages, FLAGS.calibration_rounds, FLAGS.calibration_seconds)
    print(baselines.describe_plan(made), flush=True)
    baselines.pretrain(made, base, images, output, stages)
    results = baselines.probe(made, images, LINEAR[FLAGS.protocol], output, stages)
    comparison_report.write(results, output)
    print(f"\n{comparison_report.markdown(results)}\nwritten to {output}")


def console() -> None:
    """Entry point of the command."""
    pretraining_flags.define("runs/compare")
    number = flags.DEFINE_float
    number("budget_minutes", None, "of training for each rival, compiling left out", lower_bound=0, required=True)
    number("autoencoder_share", baselines.AUTOENCODER_SHARE, "of our budget that stage 1 gets")
    for name, fields in baselines.SETTINGS.items():
        number(f"{name}_learning_rate", None, f"of {name}'s Adam; none: {fields['learning_rate']:g}", lower_bound=0)
    flags.DEFINE_integer("calibration_rounds", 3, "turns in which each training is timed", lower_bound=1)
    number("calibration_seconds", 15, "of a turn", lower_bound=0)
    flags.DEFINE_string("train_split", None, "labelled images to train on; none: the data set's own")
    flags.DEFINE_string("test_split", None, "labelled images to test on; none: the data set's own")
    common.run(main)


if __name__ == "__main__":
    console()
