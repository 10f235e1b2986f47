"""Time training on photographs of 12 megapixels against small files.

    python -m experiments.benchmark_photographs --dataset=folder:PHOTOS --model=runs/features

The photographs are made of the images of --dataset, enlarged to 4000x3000 pixels with noise and saved as JPEG. The
training loop of stage 1 takes turns on the files of --dataset and on the photographs, shrunk in memory and in the cache
on disk. It is also timed on the photographs at full size, read from files. The passes that open them are timed, too.

With --model the extraction is timed at full size and shrunk, and the features of both are compared. Rates are images
per second of CPU time, so that other programs on the machine do not count. The command writes results.json and
results.md into --output.
"""

import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from absl import flags

from lts import config as configs
from lts.bin import common, paths
from lts.utils.errors import UserError

FLAGS = flags.FLAGS
SMALL = "the files of the data set, in memory"
FILES = "12 megapixels, from files at full size"
MEMORY = "12 megapixels, shrunk in memory"
DISK = "12 megapixels, shrunk on disk"
HEIGHT = 3000
WIDTH = 4000
NOISE = 6.0  # standard deviation, in values of 0 to 255
QUALITY = 88  # of the JPEG; gives about 3 MB
BATCH = 20  # images per forward pass of the extraction


def make_photographs(root: pathlib.Path, folder: pathlib.Path, count: int) -> None:
    """Write enlarged images of a folder as JPEG files of 12 megapixels.

    Raises:
      UserError: the folder has fewer images, or one that cannot be read.
    """
    from PIL import Image

    from lts.data.decoding import BrokenImage, decode_once, read_header
    from lts.data.folder import list_folder

    index, _ = list_folder(str(root), None, "pretrain")
    # NB: rates are computed from the number that was asked for.
    if len(index.names) < count:
        raise UserError(f"there are {len(index.names)} images in {root}. Received: photographs={count}. Give fewer.")
    random = np.random.RandomState(0)
    noise = random.normal(0, NOISE, [HEIGHT, WIDTH, 1]).astype(np.int16)
    for number, path in enumerate(index.paths()[:count]):
        try:
            image, _ = decode_once(path, read_header(path))
        except BrokenImage as error:
            raise UserError(f"{index.names[number]} is broken ({error}). Repair or remove it.") from None
        large = Image.fromarray(image).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        # Another shift of one noise: drawing it anew takes a second.
        shifted = np.roll(noise, random.randint(HEIGHT), axis=0)
        noisy = np.clip(np.asarray(large, np.int16) + shifted, 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{number:04d}.jpg", quality=QUALITY)


def open_all(photographs: pathlib.Path, cache: pathlib.Path, stored_size: int) -> tuple[Mapping[str, Any], list[dict]]:
    """Return the sources by name, and a row for each pass that opened them."""
    from lts import data

    dataset = f"folder:{photographs}"
    options = {"cache_gb": 0, "stored_size": stored_size, "cache_dir": str(cache)}
    passes = {
        SMALL: lambda: data.open_source(FLAGS.dataset, limit=FLAGS.photographs),
        FILES: lambda: data.open_source(dataset, cache_gb=0),
        MEMORY: lambda: data.open_source(dataset, stored_size=stored_size),
        f"{DISK}, first pass": lambda: data.open_source(dataset, **options),
        f"{DISK}, later": lambda: data.open_source(dataset, **options),
    }
    sources = {}
    rows = []
    for name, work in passes.items():
        seconds, sources[name] = timed(work)
        rows.append({"work": f"open: {name}", "images_per_cpu_second": FLAGS.photographs / seconds})
    sources[DISK] = sources.pop(f"{DISK}, later")
    del sources[f"{DISK}, first pass"]
    return sources, rows


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of CPU time and the result of one call."""
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def measure_training(sources: Mapping[str, Any], config: configs.Config) -> list[dict[str, Any]]:
    """Return a row for the training loop on each source."""
    from experiments.pretraining import timing

    trainings = {name: (config, "autoencoder", source) for name, source in sources.items()}
    # NB: a loop reads ahead while the others have their turns. Decoding at full size would count as their time.
    slow = {FILES: trainings.pop(FILES)}
    turns = timing.time_loops(trainings, FLAGS.rounds, FLAGS.turn_seconds, time.process_time)
    turns |= timing.time_loops(slow, FLAGS.rounds, FLAGS.turn_seconds, time.process_time)
    batch_size = config.autoencoder_training.batch_size
    rates = {name: [steps * batch_size / seconds for steps, seconds in turns[name]] for name in turns}
    return [row(f"train: {name}", rates[name], rates[SMALL]) for name in sources]


def row(work: str, rates: list[float], base: list[float]) -> dict[str, Any]:
    """Return a row of interleaved rates; ratios are those of single rounds."""
    ratios = [rate / base_rate for rate, base_rate in zip(rates, base, strict=True)]
    return {
        "work": work,
        "images_per_cpu_second": statistics.median(rates),
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
    }


def measure_extraction(model: Any, photographs: pathlib.Path, stored_size: int) -> list[dict[str, Any]]:
    """Return rows for the extraction at full size and shrunk, with the cosine of their features."""
    from lts.config import ImageConfig
    from lts.export.choices import default_layer
    from lts.extraction.extract import forward_pass
    from lts.extraction.stream import open_stream

    image = ImageConfig(image_size=model.image_size, test_crop=model.test_crop)
    layer = default_layer(model.description)
    forward = forward_pass(model, [layer], "avg", "float32", model.image_size)

    def extract(size: int) -> np.ndarray:
        stream = open_stream(f"folder:{photographs}", stored_size=size)
        return np.concatenate([forward(views.images)[layer].numpy() for views in stream.views(image, batch_size=BATCH)])

    rates: dict[int, list[float]] = {0: [], stored_size: []}
    features = {}
    for round_number in range(FLAGS.rounds + 1):
        for size in rates:
            seconds, features[size] = timed(lambda size=size: extract(size))
            if round_number > 0:  # the first round compiles
                rates[size].append(FLAGS.photographs / seconds)
    unit = {size: values / np.linalg.norm(values, axis=1, keepdims=True) for size, values in features.items()}
    cosines = (unit[0] * unit[stored_size]).sum(axis=1)
    full = row("extract: 12 megapixels at full size", rates[0], rates[0])
    shrunk = row("extract: 12 megapixels, shrunk", rates[stored_size], rates[0])
    shrunk["cosine"] = float(np.median(cosines))
    shrunk["cosine_range"] = [float(cosines.min()), float(cosines.max())]
    return [full, shrunk]


def main() -> None:
    """Measure and report."""
    kind, _, root = FLAGS.dataset.partition(":")
    if kind != "folder":
        raise common.UsageError(
            f"photographs are made of files. Received: --dataset={FLAGS.dataset}. Use --dataset=folder:PATH."
        )
    common.import_tensorflow()
    from experiments.reporting import results as result_files
    from experiments.reporting import speed

    result_files.check_output(FLAGS.output)
    config = configs.preset(FLAGS.preset)
    stored_size = config.image.stored_size
    with tempfile.TemporaryDirectory() as folder:
        photographs = pathlib.Path(folder, "photographs")
        photographs.mkdir()
        print(f"making {FLAGS.photographs} photographs", flush=True)
        make_photographs(pathlib.Path(root), photographs, FLAGS.photographs)
        megabytes = statistics.mean(os.path.getsize(path) for path in photographs.iterdir()) / 1e6
        sources, rows = open_all(photographs, pathlib.Path(folder, "cache"), stored_size)
        rows += measure_training(sources, config)
        if FLAGS.model:
            from lts.export import saved_model

            rows += measure_extraction(saved_model.load(FLAGS.model), photographs, stored_size)
    settings = {"preset": FLAGS.preset, "photographs": FLAGS.photographs, "megabytes": megabytes}
    settings |= {"rounds": FLAGS.rounds, "turn_seconds": FLAGS.turn_seconds, "stored_size": stored_size}
    results = {"kind": "photograph_speed", **speed.describe_machine("benchmark_photographs"), **settings, "rows": rows}
    speed.write(results, FLAGS.output)


def define_flags() -> None:
    """Define the flags of this binary."""
    paths.define_dataset("dataset", "small images, folder:PATH", required=True)
    paths.define("model", None, "SavedModel whose features are compared; none: no extraction")
    flags.DEFINE_enum("preset", "small", list(configs.PRESETS), "named configuration")
    flags.DEFINE_integer("photographs", 60, "number of photographs", lower_bound=1)
    flags.DEFINE_integer("rounds", 5, "interleaved turns", lower_bound=1)
    flags.DEFINE_float("turn_seconds", 2.0, "CPU seconds of a turn", lower_bound=0)
    paths.define("output", "runs/benchmark_photographs", "folder of the results")


def console() -> None:
    """Run the command."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
