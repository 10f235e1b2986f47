"""Times both training steps against the machine's convolution peak, in one interleaved run.

    python -m experiments.benchmark_step --preset=release --batch_size=32
    python -m experiments.benchmark_step --loop --preset=small --dataset=folder:PHOTOS

Counts the operations of every convolution and fully connected layer in the traced step that something
depends on (2 for a multiply-add), measures what a large 3x3 convolution reaches
in the same rounds, and prints images/s, GFLOP/s and the fraction of that peak.

With --loop: the whole training loop (data, steps, monitoring at its defaults) against the bare step on a fixed batch,
each stage in turns of --turn_steps steps; and what each kind of monitoring and a checkpoint take of the time between
two of them.
"""

import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable

from absl import flags

from lts import config as configs
from lts.bin import common

FLAGS = flags.FLAGS
PRECISIONS = ("float32", "bfloat16")
PEAK_SHAPE = (16, 56, 56, 128)  # of the convolution that stands for the peak: 3x3, 128 to 128 channels
PEAK_CALLS = 8


def layer_gflop(graph) -> float:
    """10 ** 9 operations of the layers in a graph that its outputs or its side effects depend on."""
    needed, waiting = set(), [op for op in graph.get_operations() if op._is_stateful] + [t.op for t in graph.outputs]
    while waiting:
        op = waiting.pop()
        if op.name not in needed:
            needed.add(op.name)
            waiting += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
    total = 0
    for op in graph.get_operations():
        if op.name not in needed:
            continue
        if op.type == "MatMul":
            inner = op.inputs[0].shape[0 if op.get_attr("transpose_a") else 1]
            total += 2 * op.outputs[0].shape.num_elements() * inner
            continue
        if op.type == "Conv2D":
            kernel, pixels = op.inputs[1].shape, op.outputs[0].shape
        elif op.type == "Conv2DBackpropInput":
            kernel, pixels = op.inputs[1].shape, op.inputs[2].shape
        elif op.type == "Conv2DBackpropFilter":
            kernel, pixels = op.outputs[0].shape, op.inputs[2].shape
        else:
            continue
        height, width, channels, _ = kernel.as_list()
        total += 2 * pixels.num_elements() * height * width * channels
    return total / 1e9


def peak(precision: str) -> tuple[Callable, float]:
    """A call that runs large convolutions, and its GFLOP."""
    import tensorflow as tf

    x = tf.cast(tf.random.normal(PEAK_SHAPE), precision)
    kernel = tf.cast(tf.random.normal([3, 3, PEAK_SHAPE[-1], PEAK_SHAPE[-1]]) * 0.03, precision)

    @tf.function
    def convolutions(x):
        for _ in range(PEAK_CALLS):
            x = tf.nn.conv2d(x, kernel, 1, "SAME")
        return tf.reduce_sum(x)

    graph = convolutions.get_concrete_function(x).graph
    return lambda: convolutions(x).numpy(), layer_gflop(graph)


def step(preset: str, stage: str, precision: str, batch_size: int) -> tuple[Callable, float]:
    """A call that runs one training step on a fixed batch, and its GFLOP."""
    import tensorflow as tf

    from lts.training.train import build_model, steps_done

    section = "autoencoder_training" if stage == "autoencoder" else "gan_training"
    config = configs.preset(preset, section, precision=precision, batch_size=batch_size)
    model = build_model(config, stage, 1000)
    size = config.image.image_size
    images = tf.random.uniform([batch_size, size, size, 3], -1, 1)
    function = tf.function(model.train_step)
    graph = function.get_concrete_function(images).graph

    def call():
        function(images)
        return steps_done(model)

    return call, layer_gflop(graph)


def loop(stage: str, source, folder: pathlib.Path) -> None:
    """Prints two rows: the bare step and the whole loop of a stage, in turns."""
    import tensorflow as tf

    from experiments.pretraining import timing
    from lts.training.loop import steps_done
    from lts.training.train import build_model

    config = configs.preset(FLAGS.preset)
    settings = config.autoencoder_training if stage == "autoencoder" else config.gan_training
    size, turn = config.image.image_size, FLAGS.turn_steps
    bare = build_model(config, stage, 10**6)
    images = tf.random.uniform([settings.batch_size, size, size, 3], -1, 1)
    function = tf.function(bare.train_step)
    whole = timing.endless_loop(config, stage, source, folder / stage)

    def bare_turn():
        for _ in range(turn):
            function(images)
        steps_done(bare)

    def loop_turn():
        timing.advance(whole, turn)

    bare_turn(), loop_turn()  # compiles
    seconds = {"bare step": [], "whole loop": []}
    for _ in range(FLAGS.rounds):
        for name, work in (("bare step", bare_turn), ("whole loop", loop_turn)):
            began = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - began)
    totals = {name: sum(values) for name, values in seconds.items()}
    for name, total in totals.items():
        ratios = [one / other for one, other in zip(seconds["bare step"], seconds[name], strict=True)]
        spread = f"{min(ratios):.1%} to {max(ratios):.1%}"
        rate = FLAGS.rounds * turn * settings.batch_size / total
        ratio, middle = totals["bare step"] / total, statistics.median(ratios)
        print(f"| {stage} | {name} | {rate:.1f} | {ratio:.1%} | {middle:.1%} | {spread} |", flush=True)
    _print_costs(stage, whole, totals["bare step"] / (FLAGS.rounds * turn))
    whole.close()


def _print_costs(stage: str, whole, step_seconds: float) -> None:
    """Prints a row for each thing that happens between steps: seconds, and percent of the time at its interval."""
    from lts.training.loop import steps_done

    options, monitor, step = whole.options, whole.monitor, steps_done(whole.model)
    every = 60 * options.checkpoint_minutes
    works = {
        "scalars": (lambda: monitor.log(step, whole.scalars()), options.log_steps * step_seconds),
        "pictures": (lambda: whole.show_pictures(step), options.picture_steps * step_seconds),
        "histograms": (lambda: whole.show_histograms(step), options.histogram_steps * step_seconds),
        "checkpoint": (lambda: whole.checkpoints.save(step + 1), every),
    }
    whole.show_histograms(step)  # compiles
    for name, (work, interval) in works.items():
        began = time.perf_counter()
        work()
        seconds = time.perf_counter() - began
        print(f"| {stage} | {name} | {seconds:.2f} s | {seconds / interval:.2%} of the time | | |", flush=True)


def main() -> None:
    """Runs the rounds and prints the table."""
    common.import_tensorflow()
    if FLAGS.loop:
        print("| stage | what | images/s | of the bare step | median of the turns | single turns |")
        print("|---|---|---|---|---|---|")
        source = common.open_source()
        with tempfile.TemporaryDirectory() as folder:
            for stage in ("autoencoder", "gan"):
                loop(stage, source, pathlib.Path(folder))
        return
    runs = {("peak", precision): peak(precision) for precision in PRECISIONS}
    for stage in ("autoencoder", "gan"):
        for precision in PRECISIONS:
            runs[stage, precision] = step(FLAGS.preset, stage, precision, FLAGS.batch_size)
    seconds = {key: [] for key in runs}
    for turn in range(FLAGS.rounds + 1):
        for key, (call, _) in runs.items():
            began = time.perf_counter()
            call()
            if turn:  # the first round compiles
                seconds[key].append(time.perf_counter() - began)
    rates = {key: runs[key][1] / statistics.median(seconds[key]) for key in runs}
    print(f"preset {FLAGS.preset}, batch {FLAGS.batch_size}, median of {FLAGS.rounds} interleaved rounds")
    print("| what | precision | images/s | GFLOP/image | GFLOP/s | of the peak | x float32 |")
    print("|---|---|---|---|---|---|---|")
    for (what, precision), (_, gflop) in runs.items():
        rate = rates[what, precision]
        ratio = f"{rate / rates[what, 'float32']:.2f}"
        if what == "peak":
            print(f"| convolution peak | {precision} | | | {rate:.0f} | | {ratio} |")
            continue
        images = FLAGS.batch_size / statistics.median(seconds[what, precision])
        fraction = f"{rate / rates['peak', precision]:.0%}"
        each = gflop / FLAGS.batch_size
        print(f"| {what} step | {precision} | {images:.1f} | {each:.2f} | {rate:.0f} | {fraction} | {ratio} |")


def console() -> None:
    """Entry point."""
    flags.DEFINE_string("preset", "release", "named configuration")
    flags.DEFINE_integer("batch_size", 32, "images a step", lower_bound=1)
    flags.DEFINE_integer("rounds", 5, "interleaved rounds after the one that compiles", lower_bound=1)
    flags.DEFINE_bool("loop", False, "time the whole training loop instead")
    flags.DEFINE_integer("turn_steps", 500, "with --loop: steps in a row", lower_bound=1)
    common.define_data_flags(required=False)
    common.run(main)


if __name__ == "__main__":
    console()
