"""Run the complete method in minutes.

    python -m experiments.quickstart --output=runs/quickstart

The program trains both stages on the synthetic data set, exports the features and probes them. It ends with one page,
report.html in --output. The same command resumes a stopped run.
"""

import os
import pathlib
import time
from collections.abc import Mapping, Sequence

from absl import flags

from experiments.pretraining.pipeline import Pipeline, train_stage
from lts import config as configs
from lts.bin import common, field_flags, paths
from lts.config.fields import fields_named
from lts.utils import files, outputs
from lts.utils.streams import print_result

FLAGS = flags.FLAGS
FIELDS = fields_named(configs.TrainingConfig, "precision")  # of both stages
SPLITS = {"pretrain": "unlabelled", "train": "train", "test": "test"}
RANDOM_SEEDS = (1, 2, 3)
STAGES = "stages.json"
REPORT = "report.html"


def run(config: configs.Config, output: str | os.PathLike, splits: Mapping[str, str] = SPLITS) -> pathlib.Path:
    """Train, export, probe and report.

    Args:
      config: configuration of both stages.
      output: folder of the run.
      splits: by role ("pretrain", "train", "test"), of the synthetic data set.

    Returns:
      Path of the report.
    """
    from experiments.reporting import quickstart as quickstart_report
    from lts import data, training

    output = pathlib.Path(output)
    pipeline = Pipeline(output / STAGES, config)
    # The report needs the labelled sets again, so they are opened once.
    sources = {role: data.open_source("synthetic", split, role=role) for role, split in splits.items()}
    images = sources["pretrain"]
    autoencoder = output / "autoencoder"
    gan = output / "gan"
    features = output / "features"
    random = [output / f"random_{seed}" for seed in RANDOM_SEEDS]

    pipeline.run("autoencoder", lambda: train_stage(config, "autoencoder", images, autoencoder))
    pipeline.run("damage and repair", lambda: train_stage(config, "gan", images, gan, autoencoder=autoencoder))
    pipeline.run("export", lambda: training.export_run(gan, features, source=images))
    # Random weights are the baseline. NB: the lambda binds seed and path, or all three would export the last ones.
    for seed, path in zip(RANDOM_SEEDS, random, strict=True):
        pipeline.run(
            f"random weights, seed {seed}",
            lambda seed=seed, path=path: training.export_random(config, images, seed, path),
        )
    pipeline.run("linear probes", lambda: probe(features, random, sources["train"], sources["test"], output / "probe"))
    path = output / REPORT
    quickstart_report.write(path, config, sources, output, pipeline.seconds)
    return path


def probe(features: pathlib.Path, baselines: Sequence[pathlib.Path], train, test, output: pathlib.Path) -> None:
    """Probe the features as `experiments.linear_probe --protocol=ridge`."""
    from experiments.probing import projector
    from experiments.probing import run as probe_run
    from experiments.probing.cache import clear_cache
    from experiments.probing.linear import LinearProbe
    from experiments.probing.protocols import Protocol
    from experiments.reporting import probe as probe_report
    from experiments.reporting import results as result_files
    from lts.export import saved_model

    result_files.check_output(output)
    projector.check(output)
    model = saved_model.load(features)
    baseline_models = [saved_model.load(path) for path in baselines]
    linear_probe = LinearProbe(protocol=Protocol(), train=train, test=test, output=output)
    results = probe_run.run(linear_probe, model, baseline_models)
    probe_report.write(results, output)
    projector.write(model, results["layers"], test, output)
    clear_cache(output)  # the quickstart probes once, so nothing reads these features again


def check_output(output: pathlib.Path) -> None:
    """Raise `OutputError` if the folder cannot be written, or holds a page of another program."""
    files.check_folder(output)
    page = output / REPORT
    if page.exists() and not (output / STAGES).exists():
        raise files.OutputError(f"{page} would be replaced. Received: output={output}. Give another --output.")
    if page.exists():
        print(f"{page} will be replaced", flush=True)


def define_flags() -> None:
    """Define the flags of this binary."""
    paths.define("output", "runs/quickstart", "folder of the run; a run in it is resumed")
    field_flags.define(FIELDS, lambda: configs.preset("tiny").gan_training)


def main() -> None:
    """Run preset tiny; print the report's path."""
    started = time.monotonic()
    config = configs.preset("tiny", **field_flags.given(FIELDS))
    check_output(pathlib.Path(FLAGS.output))
    common.import_tensorflow()
    with outputs.locked(FLAGS.output):
        path = run(config, FLAGS.output)
    minutes = (time.monotonic() - started) / 60
    print_result(f"\nFinished in {minutes:.1f} minutes. Open this page in a browser:\n{path.resolve()}")


def console() -> None:
    """Run the command."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
