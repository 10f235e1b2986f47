"""Times the extraction of features against the bare forward pass, in one interleaved run.

    python -m experiments.benchmark_extraction --model=runs/features --dataset=folder:PHOTOS --images=10000

Each round times the forward pass on one batch that is there already, over and over until as many images went through as
the set has, and then the whole extraction into a file, from the listing of the images to the renamed file. Before each
extraction the images' pages are dropped from the page cache (posix_fadvise), so that they are read from the disk again.

On a machine that other work shares, rates say little: beside them it prints the ratio of the CPU seconds, which is
what the ratio comes to when every core is busy all the time, and how many cores other processes kept busy.
"""

import contextlib
import dataclasses
import io
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable

import psutil
from absl import flags

from lts.bin import common

FLAGS = flags.FLAGS


@dataclasses.dataclass
class Times:
    """Seconds of one piece of work, by wall clock and of CPU in all threads, and the cores that others kept busy."""

    wall: float
    cpu: float
    others: float


def timed(work: Callable[[], None]) -> Times:
    """Runs `work` once."""
    wall, cpu, busy = time.perf_counter(), time.process_time(), busy_seconds()
    work()
    wall, cpu, busy = time.perf_counter() - wall, time.process_time() - cpu, busy_seconds() - busy
    return Times(wall, cpu, max(0.0, busy - cpu) / wall)


def busy_seconds() -> float:
    """CPU seconds of all processes of the machine since it started."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - times.iowait - times.guest - times.guest_nice


def drop_cached_pages(root: pathlib.Path, names: tuple[str, ...]) -> None:
    """Makes the system forget the contents of files."""
    for name in names:
        descriptor = os.open(root / name, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def main() -> None:
    """Runs the rounds and prints a row for each pooling."""
    kind, _, root = FLAGS.dataset.partition(":")
    if kind != "folder":
        raise common.UsageError("the dataset must be folder:PATH: the files of others cannot be dropped from the cache")
    common.import_tensorflow()
    from lts.export import saved_model

    model = saved_model.load(FLAGS.model)
    columns = "model", "layer, pool", "batch", "bare, images/s", "extraction", "ratio, median", "single rounds"
    print("|", " | ".join((*columns, "CPU ratio", "cores of others")), "|")
    print("|---" * 9 + "|")
    for pool in FLAGS.pool:
        rounds = [run_round(model, pathlib.Path(root), pool) for _ in range(FLAGS.rounds)]
        bare, whole = zip(*rounds, strict=True)
        ratios = [one.wall / other.wall for one, other in rounds]
        rates = [FLAGS.images / statistics.median(each.wall for each in times) for times in (bare, whole)]
        spread = f"{min(ratios):.1%} to {max(ratios):.1%}"
        cpu = statistics.median(one.cpu / other.cpu for one, other in rounds)
        others = statistics.median(each.others for each in (*bare, *whole))
        what = f"{pathlib.Path(FLAGS.model).name} | {FLAGS.layer}, {pool} | {FLAGS.batch_size}"
        speed = f"{rates[0]:.0f} | {rates[1]:.0f} | {statistics.median(ratios):.1%} | {spread}"
        print(f"| {what} | {speed} | {cpu:.1%} | {others:.1f} |", flush=True)


def run_round(model, root: pathlib.Path, pool: str) -> tuple[Times, Times]:
    """Times of the bare forward pass and of the extraction, for as many images."""
    import tensorflow as tf

    from lts.extraction import extract as extraction
    from lts.extraction.stream import open_stream

    size, number = model.image_size, FLAGS.images
    split = f"{FLAGS.split}[:{number}]"
    names = open_stream(FLAGS.dataset, split).names
    if len(names) != number:
        raise common.UsageError(f"split {FLAGS.split} has {len(names)} images only: give --images={len(names)}")
    forward = extraction.forward_pass(model, [FLAGS.layer], pool, "float32", size)
    noise = tf.random.uniform([FLAGS.batch_size, size, size, 3], 0, 256, tf.int32, seed=1)
    images = tf.cast(noise, tf.uint8)
    forward(images)

    def bare() -> None:
        for _ in range(0, number, FLAGS.batch_size):
            forward(images)[FLAGS.layer].numpy()

    def whole() -> None:
        stream = open_stream(FLAGS.dataset, split)
        extraction.extract(model, stream, output, [FLAGS.layer], pool, batch_size=FLAGS.batch_size)

    with tempfile.TemporaryDirectory(dir=FLAGS.folder) as folder, contextlib.redirect_stdout(io.StringIO()):
        output = pathlib.Path(folder) / f"X.{FLAGS.format}"
        drop_cached_pages(root, names)
        return timed(bare), timed(whole)


def console() -> None:
    """Entry point."""
    flags.DEFINE_string("model", None, "folder of the SavedModel", required=True)
    flags.DEFINE_string("dataset", None, "folder:PATH", required=True)
    flags.DEFINE_string("split", "all", "one split")
    flags.DEFINE_integer("images", 10_000, "so many of them", lower_bound=1)
    flags.DEFINE_string("layer", "conv_5", "layer")
    flags.DEFINE_list("pool", ["avg", "none"], "poolings, one after the other")
    flags.DEFINE_string("format", "npz", "npz | tfrecord | parquet")
    flags.DEFINE_integer("batch_size", 128, "images at a time", lower_bound=1)
    flags.DEFINE_integer("rounds", 3, "interleaved rounds", lower_bound=1)
    flags.DEFINE_string("folder", None, "where the features go, for the time being")
    common.run(main)


if __name__ == "__main__":
    console()
