"""Compare the method with baselines in equal time.

    python -m experiments.compare --preset=small --dataset=folder:PHOTOS --budget_minutes=30 --output=runs/compare

The baselines are random initialisation (three seeds), the autoencoder's own encoder, rotation prediction, and
supervised training from scratch on the labelled training images. --baselines chooses others by name. All have the same
images, backbone, augmentation, batch size and probes.

First the training loops are timed in turns on this machine. OUTPUT/plan.json then gives each method the steps that fit
into the budget, whatever else the machine does later. Both stages of this method count. The program writes
results.json, results.md and results.png into --output. The same command resumes a stopped run.
"""

import pathlib

from absl import flags

from experiments.pretraining import baselines
from experiments.pretraining import flags as pretraining_flags
from experiments.pretraining.pipeline import Pipeline
from experiments.probing.protocols import LINEAR
from lts.bin import common
from lts.config import Config
from lts.utils import outputs
from lts.utils.streams import print_result

FLAGS = flags.FLAGS
PLANNED_FIELDS = ("steps", "epochs")  # they follow from the budget


def request() -> baselines.Request:
    """Return budget, share and settings from the flags.

    Raises:
      UsageError: a flag that the budget decides, or a value out of range.
    """
    autoencoder_schedule = pretraining_flags.autoencoder_schedule()
    for name in PLANNED_FIELDS:
        if FLAGS[name].value is not None or name in autoencoder_schedule:
            raise common.UsageError(f"steps follow from --budget_minutes. Received: --{name}. Remove it.")
    # NB: "not above 0" rather than "at most 0", so that nan is refused too.
    if not FLAGS.budget_minutes > 0:
        raise common.UsageError(f"budget_minutes must be above 0. Received: --budget_minutes={FLAGS.budget_minutes:g}")
    share = FLAGS.autoencoder_share
    if not 0 < share < 1:
        raise common.UsageError(f"autoencoder_share must be between 0 and 1. Received: --autoencoder_share={share:g}")
    names = list(dict.fromkeys(FLAGS.baselines))
    for name in names:
        if name not in baselines.METHODS or name == baselines.OURS:
            known = ", ".join(name for name in baselines.METHODS if name != baselines.OURS)
            raise common.UsageError(f"unknown baseline. Received: --baselines={name}. Known: {known}.")
    common.refuse([f"{name}_learning_rate" for name in baselines.SETTINGS if name not in names], "--baselines")
    settings = {}
    for name, fields in baselines.SETTINGS.items():
        if name not in names:
            continue
        settings[name] = dict(fields)
        learning_rate = FLAGS[f"{name}_learning_rate"].value
        if learning_rate is not None:
            settings[name]["learning_rate"] = learning_rate
    # Ours is trained last; methods with its stages follow.
    methods = [name for name in baselines.METHODS if name in names or name == baselines.OURS]
    return baselines.Request(FLAGS.budget_minutes, share, settings, methods)


def main() -> None:
    """Compare the methods as the flags describe."""
    # Invalid flags and folders are reported before images are opened.
    compare_request = request()
    _, base = pretraining_flags.stage_configs()
    for name in compare_request.methods:
        baselines.config_of(name, base, compare_request.settings)
    from experiments.reporting import results as result_files

    result_files.check_output(FLAGS.output, FLAGS.dataset)
    with outputs.locked(FLAGS.output):
        _run(compare_request, base)


def _run(compare_request: baselines.Request, base: Config) -> None:
    """Plan, train, probe and report."""
    pretrain = common.open_source(base.image)
    from experiments.probing import run as probe_run
    from experiments.reporting import comparison as comparison_report

    train = pretraining_flags.open_labelled(FLAGS.train_split, "train", base.image)
    test = pretraining_flags.open_labelled(FLAGS.test_split, "test", base.image)
    probe_run.check_labels(train, test)
    output = pathlib.Path(FLAGS.output)
    # A run in the folder is resumed only if its images are the same.
    data = {"split": pretrain.split, "images": pretrain.fingerprint}
    data |= {"train_split": train.split, "train_images": train.fingerprint}
    pipeline = Pipeline(output / "stages.json", base, data)
    images = baselines.Images(pretrain, train, test)
    comparison = baselines.Comparison(base, images, output, pipeline)
    plan = comparison.plan(compare_request, FLAGS.calibration_rounds, FLAGS.calibration_seconds)
    print(baselines.describe_plan(plan), flush=True)
    comparison.pretrain(plan)
    results = comparison.probe(plan, LINEAR[FLAGS.protocol])
    comparison_report.write(results, output)
    print_result(f"\n{comparison_report.markdown(results)}\nwritten to {output}")


def define_flags() -> None:
    """Define the flags of this binary."""
    pretraining_flags.define_flags("runs/compare")
    flags.DEFINE_float(
        "budget_minutes", None, "training time of each method, without compiling", lower_bound=0, required=True
    )
    flags.DEFINE_list("baselines", list(baselines.BASELINES), "methods next to ours, see METHODS in baselines.py")
    flags.DEFINE_float("autoencoder_share", baselines.AUTOENCODER_SHARE, "part of our budget for the autoencoder")
    for name, fields in baselines.SETTINGS.items():
        default = f"{fields['learning_rate']:g}"
        flags.DEFINE_float(f"{name}_learning_rate", None, f"learning rate of {name}; none: {default}", lower_bound=0)
    flags.DEFINE_integer("calibration_rounds", 3, "turns in which each training is timed", lower_bound=1)
    flags.DEFINE_float("calibration_seconds", 15, "seconds of a turn", lower_bound=0)
    flags.DEFINE_string("train_split", None, "labelled images to train on; none: the data set's training split")
    flags.DEFINE_string("test_split", None, "labelled images to test on; none: the data set's test split")


def console() -> None:
    """Run the command."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
