"""Time training steps against the convolution peak.

    python -m experiments.benchmark_step --preset=release --batch_size=32
    python -m experiments.benchmark_step --loop --preset=small --dataset=folder:PHOTOS

The first command also measures what a large 3x3 convolution reaches, and reports images/s, GFLOP/s and the fraction of
that peak.

The second command (--loop) times the training loop (data, steps, monitoring at its defaults) against the bare step on a
fixed batch, in turns of --turn_steps steps. It also reports which share of the time each kind of monitoring and a
checkpoint take.

Both write results.json and results.md into --output.
"""

import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

from absl import flags

from experiments.pretraining import steps
from lts import config as configs
from lts.bin import common, paths
from lts.config.stages import section_of

FLAGS = flags.FLAGS
STAGES = ("autoencoder", "gan")
PRECISIONS = ("float32", "bfloat16")
PEAK_SHAPE = (16, 56, 56, 128)  # images of the convolution that stands for the peak: 3x3, 128 to 128 channels
PEAK_CALLS = 8


def peak_convolution(precision: str) -> tuple[Callable, float]:
    """Return a call of large convolutions, with GFLOP."""
    import tensorflow as tf

    images = tf.cast(tf.random.normal(PEAK_SHAPE), precision)
    channels = PEAK_SHAPE[-1]
    kernel = tf.cast(tf.random.normal([3, 3, channels, channels]) * 0.03, precision)

    @tf.function
    def convolutions(features):
        for _ in range(PEAK_CALLS):
            features = tf.nn.conv2d(features, kernel, 1, "SAME")
        return tf.reduce_sum(features)

    graph = convolutions.get_concrete_function(images).graph
    return lambda: convolutions(images).numpy(), steps.layer_gflop(graph)


def training_step(preset: str, stage: str, precision: str, batch_size: int) -> tuple[Callable, float]:
    """Return a call of one training step on a fixed batch, with GFLOP."""
    # Reading data does not count here, see `measure_loop`.
    step = steps.build_step(preset, stage, precision, batch_size)
    return step.run, steps.layer_gflop(step.graph)


def measure_steps() -> dict[str, Any]:
    """Return the results of steps and peak."""
    from experiments.reporting import speed

    works = {("convolution peak", precision): peak_convolution(precision) for precision in PRECISIONS}
    for stage in STAGES:
        for precision in PRECISIONS:
            works[f"{stage} step", precision] = training_step(FLAGS.preset, stage, precision, FLAGS.batch_size)
    # All works take turns, so that other load of the machine falls on them alike.
    seconds = {key: [] for key in works}
    for round_number in range(FLAGS.rounds + 1):
        for key, (call, _) in works.items():
            started = time.perf_counter()
            call()
            if round_number > 0:  # the first round compiles
                seconds[key].append(time.perf_counter() - started)
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    rates = {key: works[key][1] / medians[key] for key in works}
    rows = []
    for (work, precision), (_, gflop) in works.items():
        rate = rates[work, precision]
        is_peak = work == "convolution peak"
        rows.append(
            {
                "work": work,
                "precision": precision,
                "images_per_second": None if is_peak else FLAGS.batch_size / medians[work, precision],
                "gflop_per_image": None if is_peak else gflop / FLAGS.batch_size,
                "gflop_per_second": rate,
                "share_of_peak": None if is_peak else rate / rates["convolution peak", precision],
                "times_float32": rate / rates[work, "float32"],
            }
        )
    settings = {"preset": FLAGS.preset, "batch_size": FLAGS.batch_size, "rounds": FLAGS.rounds}
    return {"kind": "step_speed", **speed.describe_machine("benchmark_step"), **settings, "rows": rows}


def measure_loops(source) -> dict[str, Any]:
    """Return the results of both stages' loops."""
    from experiments.reporting import speed

    with tempfile.TemporaryDirectory() as folder:
        rows = [measure_loop(stage, source, pathlib.Path(folder) / stage) for stage in STAGES]
    settings = {"preset": FLAGS.preset, "turn_steps": FLAGS.turn_steps}
    return {"kind": "loop_speed", **speed.describe_machine("benchmark_step"), **settings, "rows": rows}


def measure_loop(stage: str, source, folder: pathlib.Path) -> dict[str, Any]:
    """Return the row of one stage's loop."""
    import tensorflow as tf

    from experiments.pretraining import timing
    from lts.training.loop import steps_done
    from lts.training.train import build_model

    config = configs.preset(FLAGS.preset)
    schedule = getattr(config, section_of(stage))
    size = config.image.image_size
    bare_model = build_model(config, stage, timing.ENDLESS)
    images = tf.random.uniform([schedule.batch_size, size, size, 3], -1, 1)
    train_step = tf.function(bare_model.train_step)
    loop = timing.endless_loop(config, stage, source, folder)

    def bare_turn():
        for _ in range(FLAGS.turn_steps):
            train_step(images)
        steps_done(bare_model)  # waits for the steps

    def loop_turn():
        timing.advance(loop, FLAGS.turn_steps)

    # Compile both.
    bare_turn()
    loop_turn()
    # The turns are interleaved, so that other load of the machine falls on both alike.
    bare = []
    complete = []
    for _ in range(FLAGS.rounds):
        bare.append(_seconds(bare_turn))
        complete.append(_seconds(loop_turn))
    ratios = [bare_seconds / seconds for bare_seconds, seconds in zip(bare, complete, strict=True)]
    step_count = FLAGS.rounds * FLAGS.turn_steps
    row = {
        "stage": stage,
        "rounds": FLAGS.rounds,
        "bare_images_per_second": step_count * schedule.batch_size / sum(bare),
        "loop_images_per_second": step_count * schedule.batch_size / sum(complete),
        "ratio": sum(bare) / sum(complete),
        "median_ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
        "costs": monitoring_costs(loop, sum(bare) / step_count),
    }
    loop.close()
    return row


def monitoring_costs(loop, step_seconds: float) -> dict[str, float]:
    """Return each kind of monitoring's share of time."""
    from lts.training.loop import steps_done

    options = loop.options
    step = steps_done(loop.model)
    loop.show_histograms(step)  # compiles
    seconds = {
        "scalars": _seconds(lambda: loop.monitor.log(step, loop.scalars())),
        "pictures": _seconds(lambda: loop.show_pictures(step)),
        "histograms": _seconds(lambda: loop.show_histograms(step)),
        "checkpoint": _seconds(lambda: loop.checkpoints.save(step + 1)),
    }
    # A share is the time of one call over the time between two calls at the default intervals.
    intervals = {
        "scalars": options.log_steps * step_seconds,
        "pictures": options.picture_steps * step_seconds,
        "histograms": options.histogram_steps * step_seconds,
        "checkpoint": 60 * options.checkpoint_minutes,
    }
    return {name: seconds[name] / intervals[name] for name in seconds}


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Measure and report."""
    if not FLAGS.loop:
        images = ("dataset", "split", "data_dir", "skip_broken_images", "cache_gb", "stored_size", "cache_dir")
        common.refuse(["turn_steps", *images], "a measurement of single steps (see --loop)")
    elif FLAGS.dataset is None:
        raise common.UsageError("--loop needs --dataset")
    common.import_tensorflow()
    from experiments.reporting import results as result_files
    from experiments.reporting import speed

    result_files.check_output(FLAGS.output)
    results = measure_loops(common.open_source(configs.preset(FLAGS.preset).image)) if FLAGS.loop else measure_steps()
    speed.write(results, FLAGS.output)


def define_flags() -> None:
    """Define the flags of this binary."""
    flags.DEFINE_enum("preset", "release", list(configs.PRESETS), "named configuration")
    flags.DEFINE_integer("batch_size", 32, "images per step", lower_bound=1)
    flags.DEFINE_integer("rounds", 5, "interleaved rounds after the one that compiles", lower_bound=1)
    flags.DEFINE_bool("loop", False, "time the training loop instead of the steps")
    flags.DEFINE_integer("turn_steps", 500, "steps in a turn of --loop", lower_bound=1)
    paths.define("output", "runs/benchmark_step", "folder of the results")
    common.define_data_flags(required=False)


def console() -> None:
    """Run the command."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
