"""Measure what a training step costs at several sizes of batch and image, and what GPUs should reach.

    python -m experiments.step_cost --preset=small --output=runs/step_cost
    python -m experiments.step_cost --count_only --preset=release --batch_sizes=128 --image_sizes=96

The first command trains a few steps at each size, one process for each image size, and reports images/s and the peak
memory of the process. It writes results.json, results.md and results.png into --output.

The second command (--count_only) runs no step. It counts operations and bytes in the graph, and reports how many
images/s the arithmetic units and the memory of some GPUs allow. Every operation counts as limited by one of the two.
Nothing counts as fused, so a measured rate can be higher where the memory is the limit.
"""

import concurrent.futures
import dataclasses
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

from absl import flags

from experiments.pretraining import steps
from lts import config as configs
from lts.bin import common, field_flags, paths
from lts.config.fields import CheckedFields, field, fields_named

FLAGS = flags.FLAGS
STAGES = ("autoencoder", "gan")
PRECISIONS = ("float32", "bfloat16")
WARM_UP_STEPS = 2  # the first compiles
# (float32, bfloat16) in 1e12 operations per second, bytes per second: dense tensor cores in the data sheets of NVIDIA.
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


def measure_size(case: tuple[str, str, str, int], batch_sizes: tuple[int, ...], rounds: int) -> list[dict[str, Any]]:
    """Return a row per batch size, in ascending order; called in a process of its own.

    Args:
      case: (preset, stage, precision, image size).
      batch_sizes: images per step.
      rounds: timed steps of each batch size.
    """
    preset, stage, precision, image_size = case
    # The parent has silenced TensorFlow with this variable; from the start it means that messages are wanted.
    os.environ.pop("TF_CPP_MIN_LOG_LEVEL", None)
    common.import_tensorflow()
    rows = []
    # Ascending, because the process's peak of memory never falls.
    for batch_size in sorted(batch_sizes):
        step = steps.build_step(preset, stage, precision, batch_size, image_size)
        seconds = []
        for round_number in range(WARM_UP_STEPS + rounds):
            started = time.perf_counter()
            step.run()
            if round_number >= WARM_UP_STEPS:
                seconds.append(time.perf_counter() - started)
        rows.append(
            {
                "stage": stage,
                "precision": precision,
                "image_size": image_size,
                "batch_size": batch_size,
                "images_per_second": batch_size / statistics.median(seconds),
                "peak_memory_gb": peak_memory_gb(),
                "gflop_per_image": steps.layer_gflop(step.graph) / batch_size,
            }
        )
    return rows


def peak_memory_gb() -> float:
    """Return the largest memory that this process has used, in GB."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used * (1 if sys.platform == "darwin" else 1024) / 1e9


def measure(sizes: Sizes) -> Iterator[dict[str, Any]]:
    """Iterate over the rows of all stages and sizes."""
    for stage in STAGES:
        for image_size in sizes.image_sizes:
            case = (FLAGS.preset, stage, FLAGS.precision, image_size)
            # A new process, so that its peak of memory is of this case.
            context = multiprocessing.get_context("spawn")
            with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
                rows = pool.submit(measure_size, case, sizes.batch_sizes, FLAGS.rounds).result()
            for row in rows:
                print(
                    f"{stage}, {image_size} pixels, batch {row['batch_size']}: {row['images_per_second']:.0f} images/s"
                )
                yield row


def count(sizes: Sizes) -> Iterator[dict[str, Any]]:
    """Iterate over the rows of arithmetic, without a step."""
    for stage in STAGES:
        for number, precision in enumerate(PRECISIONS):
            for image_size in sizes.image_sizes:
                for batch_size in sizes.batch_sizes:
                    step = steps.build_step(FLAGS.preset, stage, precision, batch_size, image_size)
                    moved = sum(steps.moved_bytes(op) for op in steps.needed(step.graph))
                    parameters = sum(variable.value.shape.num_elements() for variable in step.model.trainable_variables)
                    bounds = {}
                    for gpu, (flops, bandwidth) in GPUS.items():
                        bounds[gpu] = batch_size / steps.seconds_bound(step.graph, flops[number], bandwidth)
                    yield {
                        "stage": stage,
                        "precision": precision,
                        "image_size": image_size,
                        "batch_size": batch_size,
                        "gflop_per_image": steps.layer_gflop(step.graph) / batch_size,
                        "gigabytes_per_image": moved / batch_size / 1e9,
                        "gradient_megabytes": 4 * parameters / 1e6,  # gradients are float32
                        "images_per_second_bound": bounds,
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
    kind, rows = ("step_bound", list(count(sizes))) if FLAGS.count_only else ("step_cost", list(measure(sizes)))
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
