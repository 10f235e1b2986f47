"""The page that the quickstart ends with."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from experiments.reporting import figures
from experiments.reporting import probe as probe_report
from lts import data
from lts.bin import common
from lts.config import Config, ImageConfig
from lts.export import saved_model
from lts.training import run_dir
from lts.training.train import build_model
from lts.visualization.montage import filter_montage, montage

HELD_OUT = 6  # images in the picture strip and the artifact maps
PER_CLASS = 10  # images of each class that are shown
CURVES = {
    "autoencoder": ("loss", "reconstruction"),
    "gan": (
        "real_or_fake",
        "mask",
        "generator",
        "masked_reconstruction",
        "accuracy_real",
        "accuracy_repaired",
        "accuracy_mask",
    ),
}


def write(
    path: pathlib.Path, config: Config, sources: Mapping[str, Any], output: pathlib.Path, seconds: Mapping[str, float]
) -> None:
    """Writes the report of a finished run.

    Args:
      path: the HTML file.
      config: the run's configuration.
      sources: "train" and "test" of `lts.data`.
      output: the run's folder, with autoencoder/, gan/, features/ and probe/.
      seconds: stage to seconds.
    """
    report = figures.Report("Learning to spot artifacts: quickstart")
    report.paragraph(
        "An autoencoder is trained and frozen. Its feature map is damaged, a repair network paints over the damage, "
        "and a discriminator learns to tell repaired images from untouched ones and to say which cells were kept. "
        "The discriminator's layers are the result; below is what they look like and what they are worth."
    )
    _probes(report, json.loads((output / "probe" / "results.json").read_text(encoding="utf-8")))
    _images(report, config.image, sources["train"])
    _held_out(report, config, sources["test"], output)
    report.heading("First-layer filters")
    report.picture(filter_montage(first_kernel(output / "features")), "conv_1; each filter has its own range", scale=6)
    for stage, name in (("autoencoder", "Training the autoencoder"), ("gan", "Training repair and discriminator")):
        report.heading(name)
        report.picture(figures.curves_figure(*_curves(output / stage, CURVES[stage])), "over the training steps")
    report.heading("Time")
    times = [(stage, f"{value:.0f} s") for stage, value in seconds.items()]
    report.table([("stage", "time"), *times, ("all", f"{sum(seconds.values()) / 60:.1f} min")])
    report.heading("Configuration")
    report.preformatted(common.describe(config))
    report.write(path)


def first_kernel(export: pathlib.Path) -> np.ndarray:
    """conv_1's kernel [k, k, 3, n] of an exported model: its only weights that see three channels."""
    weights = tf.saved_model.load(str(export)).variables
    return next(w.numpy() for w in weights if len(w.shape) == 4 and w.shape[2] == 3)


def repaired_images(config: Config, workdir: pathlib.Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """What the trained networks make of images.

    Args:
      config: the run's configuration.
      workdir: of the stage 2 run.
      images: uint8 [B, H, W, 3].

    Returns:
      Name ("image", "reconstruction", "damaged", "repaired", "keep mask", "predicted mask") to uint8 [B, H, W, 3].
    """
    model = build_model(config, "gan")
    names = ("encoder", "decoder", "repair", "discriminator")
    networks = {name: getattr(model, name) for name in names if getattr(model, name) is not None}
    run_dir.restore_networks(workdir, **networks)
    pictures = model.pictures(tf.cast(images, tf.float32) / 127.5 - 1)
    shape = images.shape
    return {
        name: np.broadcast_to(np.clip((np.asarray(values, np.float32) + 1) * 127.5, 0, 255).round(), shape).astype(
            np.uint8
        )
        for name, values in pictures.items()
    }


def _probes(report: figures.Report, results: Mapping[str, Any]) -> None:
    report.heading("What the features are worth")
    report.paragraph(probe_report.caption(results))
    report.picture(probe_report.plot(results), probe_report.title(results))
    report.table(probe_report.rows(results))


def _images(report: figures.Report, image: ImageConfig, source) -> None:
    """Rows of each class."""
    rows = np.concatenate([np.flatnonzero(source.labels == k)[:PER_CLASS] for k in range(len(source.class_names))])
    report.heading("The images")
    report.picture(
        montage(_test_views(source, image)[rows], PER_CLASS, gap=1),
        f"Training images; a row each: {', '.join(source.class_names)}",
        scale=2,
    )


def _held_out(report: figures.Report, config: Config, source, output: pathlib.Path) -> None:
    """Repaired test images, and what the exported model says of them."""
    views = _test_views(source, config.image)
    images = views[:: max(1, len(views) // HELD_OUT)][:HELD_OUT]
    columns = repaired_images(config, output / "gan", images)
    report.heading("Damage and repair of test images")
    report.picture(strip_figure(columns), "Kept cells are white in the masks. The reconstruction counts as untouched.")
    model = saved_model.load(output / "features")
    report.heading("Artifact maps")
    for name, what in (("repaired", "Repaired test images"), ("reconstruction", "The same, reconstructed undamaged")):
        found = {key: value.numpy() for key, value in model.spot(columns[name]).items()}
        figure = figures.artifact_figure(columns[name], found["artifact_map"], found["probability"])
        report.picture(figure, f"{what}: bright where the exported model finds cells that were dropped")


def strip_figure(columns: Mapping[str, np.ndarray]) -> Figure:
    """A column for each kind of picture with its name above: values uint8 [B, H, W, 3]."""
    count = len(next(iter(columns.values())))
    figure = Figure(figsize=(1.3 * len(columns), 1.3 * count), layout="constrained")
    axes = figure.subplots(count, len(columns), squeeze=False)
    for column, (name, images) in enumerate(columns.items()):
        axes[0, column].set_title(name, fontsize=9)
        for row, image in enumerate(images):
            axes[row, column].imshow(image)
            axes[row, column].set_axis_off()
    return figure


def _test_views(source, image: ImageConfig) -> np.ndarray:
    """All images of a source as they are tested: uint8 [N, H, W, 3]."""
    return np.concatenate([batch.numpy() for batch in data.test_batches(source, image, batch_size=100)])


def _curves(workdir: pathlib.Path, names: tuple[str, ...]) -> tuple[list[int], dict[str, list[float]]]:
    """Steps and values of the named metrics; those that the run did not write are left out."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    curves = {name: [line[name] for line in lines] for name in names if name in lines[0]}
    return [line["step"] for line in lines], curves
