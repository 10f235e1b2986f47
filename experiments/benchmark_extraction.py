"""Time feature extraction against the forward pass.

    python -m experiments.benchmark_extraction --model=runs/features --dataset=folder:PHOTOS --images=10000

Each round times the forward pass on one batch, repeated for the number of images. Then it times the extraction into a
file, from the listing of the images to the renamed file. It writes results.json and results.md into --output.
"""

import contextlib
import dataclasses
import io
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from lts.bin import common, paths
from lts.export import choices

FLAGS = flags.FLAGS


@dataclasses.dataclass
class Times:
    """Wall-clock and CPU seconds of some work."""

    wall: float
    cpu: float


def timed(work: Callable[[], None]) -> Times:
    """Return the time of one call."""
    wall_start = time.perf_counter()
    cpu_start = time.process_time()
    work()
    return Times(time.perf_counter() - wall_start, time.process_time() - cpu_start)


def drop_cached_pages(root: pathlib.Path, names: Sequence[str]) -> None:
    """Drop files from the page cache."""
    for name in names:
        descriptor = os.open(root / name, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def main() -> None:
    """Measure every pooling and report."""
    kind, _, root = FLAGS.dataset.partition(":")
    if kind != "folder":
        raise common.UsageError(
            f"only files of a folder can be dropped from the page cache. Received: --dataset={FLAGS.dataset}. "
            "Use --dataset=folder:PATH."
        )
    for pool in FLAGS.pool:
        choices.check_pool(pool)
    description = choices.read_description(FLAGS.model)
    layer = FLAGS.layer or choices.layer_geometry(description)[-1].name
    choices.choose_layers(description, [layer])
    common.import_tensorflow()
    from experiments.reporting import results as result_files
    from experiments.reporting import speed
    from lts.export import saved_model

    result_files.check_output(FLAGS.output)
    model = saved_model.load(FLAGS.model)
    rows = [measure(model, pathlib.Path(root), layer, pool) for pool in FLAGS.pool]
    results = {"kind": "extraction_speed", **speed.describe_machine("benchmark_extraction"), "rows": rows}
    speed.write(results, FLAGS.output)


def measure(model, root: pathlib.Path, layer: str, pool: str) -> dict[str, Any]:
    """Return the row of one pooling."""
    # The rounds are interleaved, so that other load of the machine falls on both alike.
    bare = []
    extraction = []
    for _ in range(FLAGS.rounds):
        bare_times, extraction_times = run_round(model, root, layer, pool)
        bare.append(bare_times)
        extraction.append(extraction_times)
    pairs = list(zip(bare, extraction, strict=True))
    ratios = [bare_times.wall / times.wall for bare_times, times in pairs]
    return {
        "model": pathlib.Path(FLAGS.model).name,
        "layer": layer,
        "pool": pool,
        "batch_size": FLAGS.batch_size,
        "images": FLAGS.images,
        "rounds": FLAGS.rounds,
        "bare_images_per_second": FLAGS.images / statistics.median(times.wall for times in bare),
        "extraction_images_per_second": FLAGS.images / statistics.median(times.wall for times in extraction),
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
        # Rates say little on a machine that other work shares. The ratio of CPU seconds is that of one with busy cores.
        "cpu_ratio": statistics.median(bare_times.cpu / times.cpu for bare_times, times in pairs),
    }


def run_round(model, root: pathlib.Path, layer: str, pool: str) -> tuple[Times, Times]:
    """Return the times of forward pass and extraction."""
    import tensorflow as tf

    from lts.extraction import extract as extraction
    from lts.extraction.stream import open_stream

    size = model.image_size
    number = FLAGS.images
    split = f"{FLAGS.split}[:{number}]"
    names = open_stream(FLAGS.dataset, split).names
    if len(names) != number:
        raise common.UsageError(
            f"split {FLAGS.split} has too few images. Received: --images={number}. Use --images={len(names)}."
        )
    forward = extraction.forward_pass(model, [layer], pool, "float32", size)
    noise = tf.random.uniform([FLAGS.batch_size, size, size, 3], 0, 256, tf.int32, seed=1)
    images = tf.cast(noise, tf.uint8)
    forward(images)  # compiles

    def run_bare() -> None:
        for _ in range(0, number, FLAGS.batch_size):
            forward(images)[layer].numpy()

    # The listing of the images counts as part of the extraction.
    def run_extraction() -> None:
        stream = open_stream(FLAGS.dataset, split)
        extraction.extract(model, stream, output, [layer], pool, batch_size=FLAGS.batch_size)

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        output = pathlib.Path(folder) / f"X.{FLAGS.format}"
        # Images are read from the disk, as in the first extraction of a data set.
        drop_cached_pages(root, names)
        return timed(run_bare), timed(run_extraction)


def define_flags() -> None:
    """Define the flags of this binary."""
    paths.define("model", None, "folder of the SavedModel", required=True)
    paths.define_dataset("dataset", "images, folder:PATH", required=True)
    flags.DEFINE_string("split", "all", "split")
    flags.DEFINE_integer("images", 10_000, "number of images", lower_bound=1)
    flags.DEFINE_string("layer", None, "layer to extract; none: the last one")
    flags.DEFINE_list("pool", ["avg", "none"], "poolings, measured one after another")
    flags.DEFINE_enum("format", "npz", ["npz", "tfrecord", "parquet"], "format of the feature file")
    flags.DEFINE_integer("batch_size", 128, "images per forward pass", lower_bound=1)
    flags.DEFINE_integer("rounds", 3, "interleaved rounds", lower_bound=1)
    paths.define("output", "runs/benchmark_extraction", "folder of the results")


def console() -> None:
    """Run the command."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
