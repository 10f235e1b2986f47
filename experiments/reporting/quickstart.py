"""The page that ends the quickstart."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from experiments.reporting import probe as probe_report
from experiments.reporting import results as result_files
from lts import data
from lts.config import SCHEDULES, SECTIONS, Config, ImageConfig
from lts.export import saved_model
from lts.training import run_dir
from lts.training.train import build_model
from lts.utils.json_files import NUMBER, read_json_lines
from lts.utils.patterns import plain_path
from lts.visualization.html import Report
from lts.visualization.montage import filter_montage, montage
from lts.visualization.overlay import blend

STRIP_IMAGES = 6  # test images in the picture strip and the artifact maps
IMAGES_PER_CLASS = 10
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
    """Write the page of a finished run.

    Args:
      path: the HTML file.
      config: the run's configuration.
      sources: "train" and "test" of `lts.data`.
      output: the run's folder, with autoencoder/, gan/, features/ and probe/.
      seconds: stage to seconds.
    """
    page = Report("Learning to spot artifacts: quickstart")
    page.paragraph(
        "An autoencoder is trained and frozen. Cells of its feature map are dropped, and a repair network fills the "
        "damage. A discriminator learns to tell repaired images from intact ones, and which cells were kept. Its "
        "layers are the result. This page shows what they look like and what they are worth."
    )
    _add_probes(page, result_files.load(output / "probe" / result_files.RESULTS).values)
    _add_images(page, config.image, sources["train"])
    _add_test_images(page, config, sources["test"], output)
    page.heading("First-layer filters")
    kernel = first_kernel(output / "features")
    page.picture(filter_montage(kernel), "Filters of conv_1, each scaled to its own range", scale=6)
    for stage, heading in (("autoencoder", "Training the autoencoder"), ("gan", "Training repair and discriminator")):
        page.heading(heading)
        steps, curves = _read_curves(output / stage, CURVES[stage])
        page.picture(curves_figure(steps, curves), "Metrics over the training steps")
    page.heading("Time")
    total = f"{sum(seconds.values()) / 60:.1f} min"
    page.table([("stage", "time"), *[(stage, f"{value:.0f} s") for stage, value in seconds.items()], ("all", total)])
    page.heading("Configuration")
    page.preformatted(_settings(config))
    page.write(path)


def first_kernel(export: pathlib.Path) -> np.ndarray:
    """Return conv_1's kernel [k, k, 3, n]."""
    # conv_1 has the only weights that see three channels.
    with plain_path(export) as folder:
        weights = tf.saved_model.load(str(folder)).variables
    return next(weight.numpy() for weight in weights if len(weight.shape) == 4 and weight.shape[2] == 3)


def repaired_images(config: Config, workdir: pathlib.Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return what the trained networks make of images.

    Args:
      config: the run's configuration.
      workdir: folder of the damage and repair run.
      images: uint8 [B, H, W, 3].

    Returns:
      Name ("image", "reconstruction", "damaged", "repaired", "keep mask", "predicted mask") to uint8 [B, H, W, 3].
    """
    model = build_model(config, "gan")
    networks = {}
    for name in ("encoder", "decoder", "repair", "discriminator"):
        network = getattr(model, name)
        if network is not None:  # there is no repair network with --norepair
            networks[name] = network
    run_dir.restore_networks(workdir, **networks)
    pictures = {}
    for name, values in model.pictures(data.as_signed(images)).items():
        pixels = data.as_bytes(tf.cast(values, tf.float32)).numpy()
        pictures[name] = np.broadcast_to(pixels, images.shape)  # masks have one channel
    return pictures


def _add_probes(page: Report, results: Mapping[str, Any]) -> None:
    """Add the accuracies of the linear probes."""
    page.heading("What the features are worth")
    page.paragraph(probe_report.caption(results))
    page.picture(probe_report.plot(results), probe_report.title(results))
    page.table(probe_report.rows(results))


def _add_images(page: Report, image: ImageConfig, source) -> None:
    """Add images of each class, row by row."""
    classes = range(len(source.class_names))
    rows = np.concatenate([np.flatnonzero(source.labels == label)[:IMAGES_PER_CLASS] for label in classes])
    page.heading("The images")
    page.picture(
        montage(_test_views(source, image)[rows], IMAGES_PER_CLASS, gap=1),
        f"Training images, a row per class: {', '.join(source.class_names)}",
        scale=2,
    )


def _add_test_images(page: Report, config: Config, source, output: pathlib.Path) -> None:
    """Add repaired test images and their artifact maps."""
    views = _test_views(source, config.image)
    # Evenly spaced images, so that several classes appear.
    images = views[:: max(1, len(views) // STRIP_IMAGES)][:STRIP_IMAGES]
    pictures = repaired_images(config, output / "gan", images)
    page.heading("Damage and repair of test images")
    # A row per image, a column per kind of picture.
    strip = np.stack(list(pictures.values()), axis=1).reshape(-1, *images.shape[1:])
    caption = f"{', '.join(pictures)}. Kept cells are white in the masks. The reconstruction counts as intact."
    page.picture(montage(strip, len(pictures), gap=1), caption, scale=2)
    model = saved_model.load(output / "features")
    page.heading("Artifact maps")
    captions = {"repaired": "Repaired test images", "reconstruction": "The same images, reconstructed without damage"}
    for name, caption in captions.items():
        spotted = model.spot(pictures[name])
        maps = spotted["artifact_map"].numpy()
        probability = spotted["probability"].numpy()
        figure = artifact_figure(pictures[name], maps, probability)
        page.picture(figure, f"{caption}: bright where the exported model finds dropped cells")


def artifact_overlay(images: np.ndarray, dropped: np.ndarray) -> np.ndarray:
    """Return images under maps of dropped cells.

    Args:
      images: uint8 [B, H, W, 3].
      dropped: float [B, h, w], the predicted probability that a cell was dropped.

    Returns:
      uint8 [B, H, W, 3].
    """
    # Each pixel takes the value of its cell, so that the grid stays visible.
    _, height, width, _ = images.shape
    rows = np.arange(height) * dropped.shape[1] // height
    columns = np.arange(width) * dropped.shape[2] // width
    return blend(images, np.asarray(dropped, np.float32)[:, rows][:, :, columns])


def artifact_figure(images: np.ndarray, dropped: np.ndarray, probability: np.ndarray) -> Figure:
    """Return images with maps and probabilities.

    Arguments are those of `artifact_overlay`, and the probability [B] that an image was repaired.
    """
    figure = Figure(figsize=(1.35 * len(images), 3.2), layout="constrained")
    axes = figure.subplots(2, len(images), squeeze=False)
    overlays = artifact_overlay(images, dropped)
    for column, (image, overlay) in enumerate(zip(images, overlays, strict=True)):
        axes[0, column].imshow(image)
        axes[1, column].imshow(overlay)
        axes[1, column].set_title(f"repaired: {100 * probability[column]:.0f} %", fontsize=8)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure


def curves_figure(steps: Sequence[float], curves: Mapping[str, Sequence[float]], columns: int = 3) -> Figure:
    """Return a small plot per metric."""
    # matplotlib leaves a gap where a value is not finite.
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.2 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[len(curves) :]:
        axis.set_axis_off()
    for axis, (name, values) in zip(axes[: len(curves)], curves.items(), strict=True):
        axis.plot(steps, values, linewidth=1.2)
        axis.set_title(name, fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def _test_views(source, image: ImageConfig) -> np.ndarray:
    """Return all test views, uint8 [N, H, W, 3]."""
    return np.concatenate([batch.numpy() for batch in data.test_batches(source, image, batch_size=100)])


def _read_curves(workdir: pathlib.Path, names: tuple[str, ...]) -> tuple[list[int], dict[str, list[float]]]:
    """Return steps and values of named metrics."""
    path = workdir / "metrics.jsonl"
    first = next(iter(read_json_lines(path)), {})
    # A run writes only the metrics that its configuration has.
    existing = [name for name in names if name in first]
    lines = read_json_lines(path, {"step": int, **dict.fromkeys(existing, NUMBER)})
    curves = {name: [line[name] for line in lines] for name in existing}
    return [line["step"] for line in lines], curves


def _settings(config: Config) -> str:
    """Return all fields of a configuration, a line for each section."""
    lines = []
    for section in (*SECTIONS, *SCHEDULES):
        fields = vars(getattr(config, section)).items()
        values = [f"{name}={value}".replace(" ", "") for name, value in fields]
        lines.append(f"{section}: {' '.join(values)}")
    return "\n".join(lines)
