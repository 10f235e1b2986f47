"""The page that ends the quickstart."""

import dataclasses
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from experiments.probing import neighbours
from experiments.probing.protocols import NeighboursProtocol
from experiments.reporting import neighbours as neighbours_report
from experiments.reporting import probe as probe_report
from experiments.reporting import results as result_files
from lts import data
from lts.config import SCHEDULES, SECTIONS, Config, ImageConfig
from lts.export import saved_model
from lts.training import run_dir
from lts.training.train import build_model
from lts.utils.json_files import NUMBER, read_json_lines
from lts.utils.patterns import plain_path
from lts.visualization.html import Panel, Report, Tile
from lts.visualization.montage import filter_montage, montage
from lts.visualization.overlay import blend

STRIP_IMAGES = 6  # test images in the picture strip and the artifact maps
IMAGES_PER_CLASS = 10
ENLARGED = 3  # pixels per side of a pixel in the picture strip
NEIGHBOURS = NeighboursProtocol(shown=10)


@dataclasses.dataclass(frozen=True)
class Curve:
    """How a metric of metrics.jsonl is shown."""

    title: str
    text: str  # what it measures, and which direction is better
    percent: bool = False


CURVES: Mapping[str, Mapping[str, Curve]] = {
    "autoencoder": {
        "reconstruction": Curve(
            "Error of the reconstruction", "Mean squared error of the pixels, times its weight. Lower is better."
        ),
    },
    "gan": {
        "real_or_fake": Curve(
            "Discriminator's loss: intact or repaired",
            "Lower is better for the discriminator; a guess has 0.69. Both players improve, so it need not fall.",
        ),
        "mask": Curve(
            "Discriminator's loss: dropped cells", "Times its weight. Lower is better for the discriminator."
        ),
        "generator": Curve(
            "Repair network's loss: being found out",
            "Lower is better for the repair network: its images look intact to the discriminator.",
        ),
        "masked_reconstruction": Curve("Error of the repaired images' pixels", "Times its weight. Lower is better."),
        "accuracy_real": Curve(
            "Intact images called intact", "Share of the reconstructions. Higher is better; a guess has 50 %.", True
        ),
        "accuracy_repaired": Curve(
            "Repaired images called repaired", "Share of them. Higher is better; a guess has 50 %.", True
        ),
        "accuracy_mask": Curve(
            "Cells told apart, kept or dropped", "Share of the cells of repaired images. Higher is better.", True
        ),
    },
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
    model = saved_model.load(output / "features")
    results = result_files.load(output / "probe" / result_files.RESULTS).values
    _add_probes(page, results)
    _add_neighbours(page, model, output / "random_1", sources["test"], probe_report.best_layer(results))
    _add_images(page, config.image, sources["train"])
    _add_test_images(page, config, sources["test"], model, output)
    page.heading("First-layer filters")
    kernel = first_kernel(output / "features")
    page.picture(filter_montage(kernel), "Filters of conv_1, each scaled to its own range", scale=6)
    for stage, heading in (("autoencoder", "Training the autoencoder"), ("gan", "Training repair and discriminator")):
        page.heading(heading)
        steps, values = _read_curves(output / stage, tuple(CURVES[stage]))
        page.panels(curve_panels(steps, values, CURVES[stage]), width=21)
    page.heading("Time")
    total = f"{sum(seconds.values()) / 60:.1f} min"
    page.table([("stage", "time"), *[(stage, f"{value:.0f} s") for stage, value in seconds.items()], ("all", total)])
    page.heading("What to do next")
    page.paragraph(
        "Replace PHOTOS by a folder of images. The features of this run know drawn shapes alone: train on your own "
        "photographs before you judge the method."
    )
    page.preformatted(next_commands(output))
    page.heading("Configuration")
    page.preformatted(_settings(config))
    page.write(path)


def next_commands(output: pathlib.Path) -> str:
    """Return commands that use the run, and those that train on photographs."""
    model = shlex.quote(f"--model={output / 'features'}")
    data_flag = "--dataset=folder:PHOTOS"
    return "\n".join(
        [
            "# curves, pictures and the projector of this run",
            shlex.join(["tensorboard", f"--logdir={output}"]),
            "",
            "# this run's features of other images: a file, their neighbours, artifact maps",
            f"python -m lts.bin.extract_features {model} {data_flag} --output=features.npz",
            f"python -m experiments.neighbours {model} {data_flag} --output=runs/neighbours",
            f"python -m lts.bin.spot_artifacts {model} --images=PHOTOS --output=runs/spotted",
            "",
            "# training on photographs, about 40 minutes on two cores",
            f"python -m lts.bin.train_autoencoder --preset=small {data_flag} --workdir=runs/ae",
            f"python -m lts.bin.train_gan --autoencoder=runs/ae {data_flag} --workdir=runs/gan",
            "python -m lts.bin.export_features --workdir=runs/gan --output=runs/features",
        ]
    )


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
    layer = probe_report.best_layer(results)
    confusion = probe_report.confusion_figure(results, layer)
    if confusion is not None:  # results of an older version
        page.heading("Which classes are confused")
        page.picture(
            confusion, f"Percent of the test images of each class, by the probe of {layer}. Each row adds up to 100."
        )


def _add_neighbours(page: Report, model, random: pathlib.Path, source, layer: str) -> None:
    """Add the nearest neighbours of test images, next to those of an export of random weights."""
    image = ImageConfig(image_size=model.image_size, test_crop=model.test_crop)
    sides = [
        neighbours.centred_features(network, [layer], source, image, NEIGHBOURS.dimensions)[layer]
        for network in (model, saved_model.load(random))
    ]
    record = neighbours.compare(*sides, source, NEIGHBOURS)
    pictures = neighbours_report.thumbnails(
        source, model.description, neighbours_report.numbers_of(record["neighbours"])
    )
    shares = {side: f"{100 * share:.0f} %" for side, share in record["same_class"].items()}
    page.heading("Nearest neighbours")
    page.paragraph(
        f"The first picture of each row is a test image; the others are the test images whose features in {layer} are "
        "the most similar, the nearest first. A green line: it has the same class. Names and similarities appear under "
        f"the pointer. By chance {shares['chance']} of the neighbours would have the same class."
    )
    captions = {
        "model": f"Features of this run: {shares['model']} have the same class",
        "baseline": f"Random weights: {shares['baseline']} have the same class",
    }
    neighbours_report.add_neighbours(page, record["neighbours"], pictures, captions)


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


def _add_test_images(page: Report, config: Config, source, model, output: pathlib.Path) -> None:
    """Add repaired test images and their artifact maps."""
    views = _test_views(source, config.image)
    # Evenly spaced images, so that several classes appear.
    images = views[:: max(1, len(views) // STRIP_IMAGES)][:STRIP_IMAGES]
    pictures = repaired_images(config, output / "gan", images)
    page.heading("Damage and repair of test images")
    page.paragraph("Each column is an image. The reconstruction counts as intact. Kept cells are white in the masks.")
    panels = []
    for name, values in pictures.items():
        enlarged = values.repeat(ENLARGED, axis=1).repeat(ENLARGED, axis=2)
        title = f"{name[0].upper()}{name[1:]}"
        panels.append(Panel(title, [[Tile(picture, name) for picture in enlarged]]))
    page.panels(panels, width=40)
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


def curve_panels(
    steps: Sequence[float], values: Mapping[str, Sequence[float]], curves: Mapping[str, Curve]
) -> list[Panel]:
    """Return a small plot for each metric, with what it means.

    Args:
      steps: numbers of the training steps.
      values: metric to its values, one for each step.
      curves: metric to how it is shown.
    """
    panels = []
    for name, points in values.items():
        curve = curves[name]
        figure = Figure(figsize=(3.3, 2.1), layout="constrained")
        axes = figure.subplots()
        # matplotlib leaves a gap where a value is not finite.
        axes.plot(steps, points, linewidth=1.2)
        axes.set_xlabel("training step", fontsize=8)
        axes.tick_params(labelsize=8)
        if curve.percent:
            axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, symbol=" %"))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        panels.append(Panel(f"{curve.title}.", figure, curve.text))
    return panels


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
