"""Measure what a training step costs at several sizes of batch and image, and what GPUs should reach.

    python -m experiments.step_cost --preset=small --output=runs/step_cost
    python -m experiments.step_cost --count_only --preset=release --batch_sizes=128 --image_sizes=96

The first command trains a few steps at each size, each size in a process, and reports images/s and the peak memory of
the process. It writes results.json, results.md and results.png into --output.

The second command (--count_only) runs no step. It counts operations and bytes in the graph, and estimates the images/s
of some GPUs. Every operation counts as limited by the arithmetic units or by the memory. Nothing counts as fused.
"""

import concurrent.futures.process
import dataclasses
import itertools
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

from absl import flags

from experiments.pretraining import steps
from lts import config as configs
from lts.bin import common, field_flags, paths
from lts.config.fields import CheckedFields, field, fields_named
from lts.utils.errors import UserError

FLAGS = flags.FLAGS
STAGES = ("autoencoder", "gan")
PRECISIONS = ("float32", "bfloat16")
WARM_UP_STEPS = 2  # the first compiles
# Operations per second in float32 and bfloat16, then bytes per second: dense tensor cores in the data sheets of NVIDIA.
# TensorFlow's float32 on these GPUs is TF32.
GPUS = {
    "A100 SXM 80 GB": ((156e12, 312e12), 2.04e12),
    "H100 SXM": ((495e12, 989e12), 3.35e12),
    "H200 SXM": ((495e12, 989e12), 4.8e12),
    "RTX 4090": ((83e12, 165e12), 1.01e12),
}


@dataclasses.dataclass(frozen=True)
class Sizes(CheckedFields):
    """What a step is measured at."""

    image_sizes: tuple[int, ...] = field((48, 64, 96, 128), "pixels per side", minimum=1, distinct=True)
    batch_sizes: tuple[int, ...] = field((8, 16, 32, 64, 128), "images per step", minimum=1, distinct=True)


SIZES = fields_named(Sizes)


def measure_size(preset: str, stage: str, precision: str, image_size: int, batch_size: int, rounds: int) -> dict:
    """Return the row of one size; called in a new process, so that the peak of memory is that of this size.

    Args:
      preset: name of the configuration.
      stage: "autoencoder" or "gan".
      precision: "float32" or "bfloat16".
      image_size: pixels per side.
      batch_size: images per step.
      rounds: timed steps.
    """
    # The parent has silenced TensorFlow with this variable; from the start it means that messages are wanted.
    os.environ.pop("TF_CPP_MIN_LOG_LEVEL", None)
    common.import_tensorflow()
    step = steps.build_step(preset, stage, precision, batch_size, image_size)
    for _ in range(WARM_UP_STEPS):
        step.run()
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        step.run()
        seconds.append(time.perf_counter() - started)
    return {
        "stage": stage,
        "precision": precision,
        "image_size": image_size,
        "batch_size": batch_size,
        "images_per_second": batch_size / statistics.median(seconds),
        "peak_memory_gb": peak_memory_gb(),
        "gflop_per_image": steps.layer_gflop(step.graph) / batch_size,
    }


def peak_memory_gb() -> float:
    """Return the largest memory that this process has used, in GB."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used * (1 if sys.platform == "darwin" else 1024) / 1e9


def measure(sizes: Sizes) -> Iterator[dict[str, Any]]:
    """Iterate over the rows of all stages and sizes."""
    context = multiprocessing.get_context("spawn")
    for stage, image_size, batch_size in itertools.product(STAGES, sizes.image_sizes, sizes.batch_sizes):
        case = (FLAGS.preset, stage, FLAGS.precision, image_size, batch_size, FLAGS.rounds)
        size = f"{image_size} pixels, batch {batch_size}"
        with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
            try:
                row = pool.submit(measure_size, *case).result()
            except concurrent.futures.process.BrokenProcessPool:
                raise UserError(
                    f"a process was killed, perhaps for memory. Received: {stage}, {size}. "
                    "Give smaller --image_sizes or --batch_sizes."
                ) from None
        print(f"{stage}, {size}: {row['images_per_second']:.0f} images/s", flush=True)
        yield row


def count(sizes: Sizes) -> Iterator[dict[str, Any]]:
    """Iterate over the rows of arithmetic, without a step."""
    from lts.networks import convolutions

    for case in itertools.product(STAGES, PRECISIONS, sizes.image_sizes, sizes.batch_sizes):
        stage, precision, image_size, batch_size = case
        # Where no GPU is visible, the graph would hold the gradients for CPUs.
        with mock.patch.object(convolutions, "gpu_is_visible", return_value=True):
            step = steps.build_step(FLAGS.preset, stage, precision, batch_size, image_size)
        moved = sum(steps.moved_bytes(op) for op in steps.needed(step.graph))
        parameters = sum(variable.value.shape.num_elements() for variable in step.model.trainable_variables)
        estimates = {}
        for gpu, (flops, bandwidth) in GPUS.items():
            seconds = steps.estimated_seconds(step.graph, flops[PRECISIONS.index(precision)], bandwidth)
            estimates[gpu] = batch_size / seconds
        yield {
            "stage": stage,
            "precision": precision,
            "image_size": image_size,
            "batch_size": batch_size,
            "gflop_per_image": steps.layer_gflop(step.graph) / batch_size,
            "gigabytes_per_image": moved / batch_size / 1e9,
            "gradient_megabytes": 4 * parameters / 1e6,  # gradients are float32
            "estimated_images_per_second": estimates,
        }


def main() -> None:
    """Measure and report."""
    if FLAGS.count_only:
        common.refuse(["rounds", "precision"], "--count_only")
    common.import_tensorflow()
    from experiments.reporting import results as result_files
    from experiments.reporting import speed

    result_files.check_output(FLAGS.output)
    sizes = Sizes(**field_flags.given(SIZES))
    rows = list(count(sizes) if FLAGS.count_only else measure(sizes))
    kind = "step_estimate" if FLAGS.count_only else "step_cost"
    results = {"kind": kind, **speed.describe_machine("step_cost"), "preset": FLAGS.preset, "rows": rows}
    speed.write(results, FLAGS.output)


def define_flags() -> None:
    """Define the flags of this binary."""
    flags.DEFINE_enum("preset", "small", list(configs.PRESETS), "named configuration")
    field_flags.define(SIZES, Sizes)
    flags.DEFINE_enum("precision", "bfloat16", PRECISIONS, "of the measured steps")
    flags.DEFINE_integer("rounds", 5, "timed steps of each size", lower_bound=1)
    flags.DEFINE_bool("count_only", False, "count operations instead of running steps")
    paths.define("output", "runs/step_cost", "folder of the results")


def console() -> None:
    """Run the command."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
