"""The whole of it in minutes: both stages of training, export and linear probes on the synthetic set, and one page.

    python -m experiments.quickstart --output=runs/quickstart

Ends with report.html in --output: one file with everything to look at. The same command goes on with a run that was
stopped.
"""

import os
import pathlib
import time
from collections.abc import Mapping, Sequence

from absl import flags

from experiments.pretraining.pipeline import Pipeline, train_stage
from lts import config as configs
from lts.bin import common

SPLITS = {"pretrain": "unlabelled", "train": "train", "test": "test"}
RANDOM_SEEDS = (1, 2, 3)


def run(config: configs.Config, output: str | os.PathLike, splits: Mapping[str, str] = SPLITS) -> pathlib.Path:
    """Trains, exports, probes and reports on the synthetic set.

    Args:
      config: both stages' configuration.
      output: folder of the run.
      splits: of the synthetic set, by role: "pretrain", "train", "test".

    Returns:
      Path of the report.
    """
    from experiments.reporting import quickstart as quickstart_report
    from lts import data, training

    output = pathlib.Path(output)
    stages = Pipeline(output / "stages.json", config)
    sources = {role: data.open_source("synthetic", split, role=role) for role, split in splits.items()}

    def train(stage: str, **options) -> None:
        train_stage(config, stage, sources["pretrain"], output / stage, **options)

    stages.run("autoencoder", lambda: train("autoencoder"))
    stages.run("damage and repair", lambda: train("gan", autoencoder=output / "autoencoder"))
    stages.run("export", lambda: training.export_run(output / "gan", output / "features", source=sources["pretrain"]))
    random = [output / f"random_{seed}" for seed in RANDOM_SEEDS]
    for seed, path in zip(RANDOM_SEEDS, random, strict=True):
        stages.run(
            f"random weights, seed {seed}",
            lambda seed=seed, path=path: training.export_random(config, sources["pretrain"], seed, path),
        )
    stages.run(
        "linear probes", lambda: probe(output / "features", random, sources["train"], sources["test"], output / "probe")
    )
    path = output / "report.html"
    quickstart_report.write(path, config, sources, output, stages.seconds)
    return path


def probe(features: pathlib.Path, baselines: Sequence[pathlib.Path], train, test, output: pathlib.Path) -> None:
    """As `experiments.linear_probe --protocol=ridge` does."""
    from experiments.probing import projector
    from experiments.probing import run as probe_run
    from experiments.probing.protocols import Protocol
    from experiments.reporting import probe as probe_report
    from lts.export import saved_model

    model, *others = (saved_model.load(path) for path in (features, *baselines))
    results = probe_run.run(model, others, train, test, (), Protocol(), output, batch_size=100)
    probe_report.write(results, output)
    projector.write(model, results["layers"], test, output)
    probe_run.clear_cache(output)


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Adds this binary's flags; a function, so that importing the module has no effect on other binaries."""
    text = flags.DEFINE_string
    text("output", "runs/quickstart", "folder of the run; a run that is in it goes on", flag_values=values)
    text("precision", None, "of both stages: float32 | bfloat16; none: the preset's, float32", flag_values=values)


def main(values: flags.FlagValues = flags.FLAGS) -> None:
    """Runs the tiny preset and says where the report is."""
    began = time.monotonic()
    config = configs.preset("tiny")
    if values.precision is not None:
        config = config.replace(precision=values.precision)
    common.import_tensorflow()
    path = run(config, values.output)
    print(f"\n{(time.monotonic() - began) / 60:.1f} minutes; open {path.resolve()} in a browser")


def console() -> None:
    """Entry point of the command."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
