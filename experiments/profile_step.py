"""Measure which kinds of operation a training step spends its time on.

    python -m experiments.profile_step --preset=release --batch_size=32

Operations run one after another, each on all cores. Writes results.json and results.md into --output.
"""

import collections
import pathlib
import tempfile
import time
from typing import Any

from absl import flags

from experiments.pretraining import steps
from lts import config as configs
from lts.bin import common, paths

FLAGS = flags.FLAGS
STAGES = ("autoencoder", "gan")
PRECISIONS = ("float32", "bfloat16")
WARM_UP_STEPS = 2  # the first compiles
OPTIMIZER = "optimizer"
ELEMENTWISE = "element-wise and other"
HOST = "between operations"
# Types of operation without oneDNN's prefixes. The others count as element-wise.
KINDS = {
    "convolution": ("Conv2D", "FusedConv2D"),
    "convolution, input gradient": ("Conv2DBackpropInput",),
    "convolution, kernel gradient": ("Conv2DBackpropFilter", "Conv2DBackpropFilterWithBias"),
    "matrix product": ("MatMul", "FusedMatMul"),
    "bilinear doubling": ("BatchMatMulV2",),
    "batch norm": ("FusedBatchNormV3", "FusedBatchNormEx", "FusedBatchNormGradV3"),
    "activation and pooling": (
        *("LeakyRelu", "LeakyReluGrad", "Relu", "ReluGrad", "Tanh", "TanhGrad"),
        *("MaxPool", "MaxPoolGrad", "BiasAdd", "BiasAddGrad"),
    ),
    "layout": (
        *("ConcatV2", "Slice", "Split", "StridedSlice", "StridedSliceGrad", "Pack", "Unpack", "Pad", "Tile"),
        *("Transpose", "SpaceToDepth", "DepthToSpace", "TensorScatterAdd", "GatherNd"),
    ),
    "cast": ("Cast",),
}


def operation_kind(event: str, optimizers: tuple[str, ...]) -> str | None:
    """Return the kind of a profiler's event, or None for other events than operations.

    Args:
      event: such as "gan/conv_1/Conv2D:_MklNativeConv2D".
      optimizers: names of the model's optimizers, under which their operations are.
    """
    path, separator, operation = event.partition(":")
    if not separator or not operation.isidentifier():
        return None
    if operation.startswith("ResourceApply") or path.split("/")[0] in optimizers:
        return OPTIMIZER
    operation = operation.removeprefix("_Mkl").removeprefix("Native")
    for kind, operations in KINDS.items():
        if operation in operations:
            return kind
    return ELEMENTWISE


def profile(stage: str, precision: str) -> dict[str, Any]:
    """Return the row of one stage in one precision."""
    import tensorflow as tf

    step = steps.build_step(FLAGS.preset, stage, precision, FLAGS.batch_size)
    for _ in range(WARM_UP_STEPS):
        step.run()
    with tempfile.TemporaryDirectory() as folder:
        # Level 2 records every operation.
        tf.profiler.experimental.start(folder, tf.profiler.experimental.ProfilerOptions(2, 0))
        started = time.perf_counter()
        for _ in range(FLAGS.steps):
            step.run()
        seconds = (time.perf_counter() - started) / FLAGS.steps
        tf.profiler.experimental.stop()
        events = read_events(folder)
    optimizers = [step.model.optimizer]
    if stage == "gan":
        optimizers.append(step.model.g_optimizer)
    names = tuple(optimizer.name for optimizer in optimizers)
    return {"stage": stage, "precision": precision, "seconds": seconds, "kinds": by_kind(events, names, seconds)}


def read_events(folder: str) -> dict[str, float]:
    """Return the seconds of a step by name of the event."""
    # NB: a private module of TensorFlow. No public one reads the profiler's files.
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    seconds = collections.Counter()
    for path in pathlib.Path(folder).rglob("*.xplane.pb"):
        for plane in xplane_pb2.XSpace.FromString(path.read_bytes()).planes:
            for line in plane.lines:
                for event in line.events:
                    name = plane.event_metadata[event.metadata_id].name
                    seconds[name] += event.duration_ps / 1e12 / FLAGS.steps
    return seconds


def by_kind(events: dict[str, float], optimizers: tuple[str, ...], step_seconds: float) -> dict[str, float]:
    """Return the seconds of a step by kind of operation."""
    seconds = dict.fromkeys([*KINDS, ELEMENTWISE, OPTIMIZER], 0.0)
    for name, duration in events.items():
        kind = operation_kind(name, optimizers)
        if kind is not None:
            seconds[kind] += duration
    return {**seconds, HOST: step_seconds - sum(seconds.values())}


def main() -> None:
    """Measure and report."""
    common.import_tensorflow()
    import tensorflow as tf

    from experiments.reporting import results as result_files
    from experiments.reporting import speed

    result_files.check_output(FLAGS.output)
    # The seconds of operations at the same time would not add up to the step's.
    tf.config.threading.set_inter_op_parallelism_threads(1)
    rows = [profile(stage, precision) for stage in STAGES for precision in PRECISIONS]
    settings = {"preset": FLAGS.preset, "batch_size": FLAGS.batch_size, "steps": FLAGS.steps}
    results = {"kind": "step_profile", **speed.describe_machine("profile_step"), **settings, "rows": rows}
    speed.write(results, FLAGS.output)


def define_flags() -> None:
    """Define the flags of this binary."""
    flags.DEFINE_enum("preset", "release", list(configs.PRESETS), "named configuration")
    flags.DEFINE_integer("batch_size", 32, "images per step", lower_bound=1)
    flags.DEFINE_integer("steps", 5, "profiled steps of each stage and precision", lower_bound=1)
    paths.define("output", "runs/profile_step", "folder of the results")


def console() -> None:
    """Run the command."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
