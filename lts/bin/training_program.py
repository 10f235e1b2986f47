"""Flags and course of the training programs."""

import dataclasses
import os
import re
import shlex
from typing import Any

from absl import flags

from lts import config as configs
from lts.bin import common, config_flags, field_flags, paths
from lts.config.checks import task_weights
from lts.config.options import MonitoringOptions
from lts.config.registries import CORRUPTIONS, OPTIMIZERS, TASKS
from lts.config.stages import STAGES, section_of
from lts.utils import files, outputs
from lts.utils.text import warn

FLAGS = flags.FLAGS
DATA_FLAGS = ("dataset", "split", "data_dir", "skip_broken_images", "stored_size", "cache_dir")  # as stage 2 needs them
TASK_FIELDS = {  # read only where the weight is above 0
    "rotation_weight": ("rotation_turns", "rotation_images", "rotation_generator_weight"),
    "labels_weight": ("labels_share", "labels_batch_share"),
}
# Names of images of the split `test`: in a folder, and in any other data set.
TEST_IMAGE = re.compile(r"test/|(synthetic|tfds:\S+) test\[")


def define_training_flags() -> None:
    """Define --workdir, --replicas and the intervals of monitoring."""
    with field_flags.group("Training and monitoring"):
        paths.define("workdir", None, "folder of the run; a run in it is resumed", required=True)
        paths.define("init_from", None, "workdir of another run of this stage, whose weights a new run begins with")
        flags.DEFINE_string("replicas", "auto", "auto: all GPUs | N: N GPUs, or N logical CPU devices for tests")
        field_flags.define(dataclasses.fields(MonitoringOptions), MonitoringOptions)
        flags.DEFINE_string("probe_split", None, "images of --probe_steps, such as train[80%:]; none: see the guide")


def train(config: configs.Config, stage: str, **options: Any) -> int:
    """Open the images, train, and print what to do next.

    Arguments are those of `lts.training.train`.

    Returns:
      The exit status: 0, or 128 + signal when the run was stopped.
    """
    config_flags.check_schedule(getattr(config, section_of(stage)))
    monitoring = MonitoringOptions(**field_flags.given(dataclasses.fields(MonitoringOptions)))
    _check_probe_split(monitoring)
    common.import_tensorflow()
    _refuse_unused_fields(config, stage)
    from lts import training

    strategy = training.build_strategy(FLAGS.replicas)
    # A folder that cannot be written is reported before images are decoded.
    files.check_folder(FLAGS.workdir)
    outputs.check_outside(FLAGS.workdir, FLAGS.dataset)
    source = common.open_source(config.image)
    if not STAGES[stage].adversarial:
        _note_preset()
        _note_sizes(source, config.image.image_size)
    options.update(init_from=FLAGS.init_from, options=monitoring, strategy=strategy)
    if monitoring.probe_steps:
        options["probe_images"] = _probe_images(config.image)
    result = training.train(config, stage, source, FLAGS.workdir, extend=True, **options)
    common.print_broken(source.broken)
    if result.signal is None:
        print(_next_steps(stage), flush=True)
        return 0
    print(common.RESUME, flush=True)
    return 128 + result.signal


def _check_probe_split(monitoring: MonitoringOptions) -> None:
    """Refuse --probe_split without an evaluation, and test images.

    Raises:
      common.UsageError: see above.
    """
    if not monitoring.probe_steps:
        common.refuse(["probe_split"], "--probe_steps=0")
    names = [part.partition("[")[0].strip() for part in (FLAGS.probe_split or "").split("+")]
    if "test" in names:
        raise _test_images_error()


def _test_images_error() -> common.UsageError:
    return common.UsageError(
        "the online evaluation must not see test images, or choices made by it fit them. "
        f"Received: --probe_split={FLAGS.probe_split}. "
        "Hold out training images: --split=train[:80%] --probe_split=train[80%:]."
    )


def _probe_images(image: configs.ImageConfig) -> Any:
    """Return the images of the online evaluation; None: training images without labels."""
    from lts import data
    from lts.training.online_evaluation import DEFAULT_IMAGES, EvaluationImages

    options = common.data_options(image)
    if FLAGS.probe_split:
        source = data.open_source(FLAGS.dataset, FLAGS.probe_split, role="features", **options)
        # The split `all` holds the test split, too.
        if any(map(TEST_IMAGE.match, source.names)):
            raise _test_images_error()
    else:
        try:
            # The role of the probes' training images: they have labels, and none of them is a test image.
            source = data.open_source(FLAGS.dataset, role="train", limit=DEFAULT_IMAGES, **options)
        except data.DataError as error:
            print(f"the online evaluation has no labels: {error}", flush=True)
            return None
    # Only the views are kept in memory.
    return EvaluationImages.of_dataset(source, image)


def _refuse_unused_fields(config: configs.Config, stage: str) -> None:
    """Refuse constants that the chosen corruption or optimizer does not read."""
    settings = getattr(config, section_of(stage))
    chosen = {"corruption": (CORRUPTIONS, config.damage.corruption), "optimizer": (OPTIMIZERS, settings.optimizer)}
    for flag, (axis, name) in chosen.items():
        if name not in axis:
            continue  # `lts.training.train` tells which --import is missing
        fields = {field for entry in axis for field in axis[entry].FIELDS if field in FLAGS}
        common.refuse(sorted(fields.difference(axis[name].FIELDS)), f"--{flag}={name}")
    for weight, fields in TASK_FIELDS.items():
        if not getattr(config.loss, weight):
            if config.discriminator.joint_turns:
                fields = [name for name in fields if name != "rotation_turns"]
            common.refuse([name for name in fields if name in FLAGS], f"--{weight}=0")
    for name in task_weights(config.loss.task_weights):
        if name not in TASKS:
            raise common.UsageError(
                f"unknown task. Received: task_weights={name}. Known: {', '.join(TASKS)}. Give --import=MODULE for one "
                "of yours."
            )


def _note_preset() -> None:
    """Print a warning where the release's preset was not asked for and would take days."""
    import tensorflow as tf

    resumes = os.path.exists(os.path.join(FLAGS.workdir, "config.json"))
    if FLAGS.preset is None and not resumes and not tf.config.list_physical_devices("GPU"):
        warn(
            "no --preset was given, so it is release, which takes days on a CPU. For photographs on a CPU press Ctrl-C "
            "and give --preset=small."
        )


def _note_sizes(source: Any, image_size: int) -> None:
    """Print how many images are enlarged."""
    if source.shorter_sides is None:
        return
    smaller = int((source.shorter_sides < image_size).sum())
    if smaller:
        print(f"{smaller} of {source.num_examples} images are smaller than {image_size} pixels; they are enlarged")


def _next_steps(stage: str) -> str:
    """Return the next command of a finished run, and where its pictures and curves are."""
    workdir = FLAGS.workdir
    folder = os.path.dirname(os.path.normpath(workdir))
    if STAGES[stage].layers == "encoder":
        given = [name for name in (*DATA_FLAGS, "precision") if FLAGS[name].present]
        images = [f"--{name}={FLAGS[name].value}" for name in given]
        command = ["lts.bin.train_gan", f"--autoencoder={workdir}", *images]
        command.append(f"--workdir={os.path.join(folder, 'gan')}")
    else:
        command = ["lts.bin.export_features", f"--workdir={workdir}", f"--output={os.path.join(folder, 'features')}"]
    return (
        f"pictures: {os.path.join(workdir, 'pictures', 'latest.png')}\n"
        f"curves: {shlex.join(['tensorboard', f'--logdir={workdir}'])}\n"
        f"next: {shlex.join(['python', '-m', *command])}"
    )
