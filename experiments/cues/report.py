"""Report of `experiments.shortcuts`: results.*, occlusion.png and positions.png."""

import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.cues.run import KINDS, Examples
from experiments.reporting import results as result_files
from experiments.reporting import tables
from lts.spotting.evaluation_report import warnings
from lts.utils import files
from lts.utils.markdown import escape
from lts.utils.markdown import table as markdown_table
from lts.utils.text import printable
from lts.visualization import figures
from lts.visualization.html import Panel, Report
from lts.visualization.overlay import overlay, signed_overlay

Values = Mapping[str, Any]
TITLE = "What the discriminator looks at"
CHANCE = {"color": "0.6", "linewidth": 1, "linestyle": ":"}
SCORE = {"color": "C1", "linewidth": 1.2, "linestyle": "--"}
FILTER_TITLES = {
    "low-pass": "low-pass, sigma in pixels",
    "jpeg": "JPEG, quality",
    "resampling": "reduced and enlarged by",
}
STRONG = 98  # percentile of the absolute changes that gets the strongest colour

LAYERS_TEXT = (
    "How much context does the answer need? A linear probe sees the map of one layer, averaged over all positions. It "
    "can only count local patterns of the size that a cell of the layer sees. If an early layer alone is nearly as "
    "good as the score, the task needs texture, not objects."
)
FILTERS_TEXT = (
    "Which frequencies does the answer need? Both versions of each image are filtered before the score. A score that "
    "falls to 0.5 under a mild low-pass filter or JPEG compression rests on fine noise. The model was not trained on "
    "filtered images, so a part of the fall is due to their unusual look."
)
CELLS_TEXT = (
    "How much damage does it need? Exactly this number of cells is dropped, in the order of the run's own corruption. "
    'The AUROC compares different images; "same image" is the share of images whose repaired version has a higher '
    "score than its reconstruction. Figures near 1 for one cell mean that repaired cells carry a mark."
)
OCCLUSION_TEXT = (
    "Where does it look? A square of the image's mean colour covers each place. Red: the covered pixels speak for "
    "repaired (the log-odds fall without them). Blue: they speak for real. All maps share one scale. Below each image: "
    "the probability of having been repaired. If the score comes from the repaired cells, red places lie on the "
    "dropped cells."
)
POSITIONS_TEXT = (
    "Mean absolute change of the log-odds by position, over all covered images. A bright border means that the score "
    "rests on the edges of the image, where convolutions see padding."
)


def write(results: Values, examples: Examples, output: str | os.PathLike) -> None:
    """Write all files, each atomically and results.json first."""
    result_files.write(output, results, markdown, plot)
    output = pathlib.Path(output)
    report = Report(TITLE)
    for paragraph in (*warnings(results), setting(results)):
        report.paragraph(paragraph)
    report.heading("Context, frequencies, amount of damage")
    report.paragraph("AUROC with intervals. Dashed: the score on unfiltered images. Dotted: a guess.")
    with figures.optional_picture("results.png"):
        report.panels(panels(results), width=21)
    report.heading("Where it looks")
    for name, draw, text in (
        ("occlusion.png", lambda: occlusion_figure(examples), OCCLUSION_TEXT),
        ("positions.png", lambda: positions_figure(results), POSITIONS_TEXT),
    ):
        with figures.optional_picture(name):
            figure = draw()
            files.write_bytes(output / name, figures.png(figure, dpi=120))
            report.picture(figure, text)
    report.heading("All figures")
    header, *rows = tables.shortcuts_table([results])
    report.table([[header[0], "AUROC"], *rows])
    report.paragraph(caption(results))
    report.write(output / "results.html")


def markdown(results: Values) -> str:
    """Return title, table and caption as Markdown."""
    texts = [escape(text) for text in (TITLE, *warnings(results), setting(results))]
    table = markdown_table(tables.shortcuts_table([results]))
    return "\n\n".join([*texts, table, escape(caption(results))]) + "\n"


def setting(results: Values) -> str:
    """Return model, run and images as text."""
    images = results["images"]
    run = results["run"]
    protocol = results["protocol"]
    place = printable(run["workdir"])
    return (
        f"Model {printable(results['model']['path'])} on {images['number']:,} images of "
        f"{printable(images['dataset'])}, split {images['split']}. Step {run['step']:,} of {place} reconstructs and "
        f"repairs them ({protocol['corruption']}; a cell is kept with probability {protocol['keep_probability']:g}; "
        f"seed {protocol['seed']})."
    )


def caption(results: Values) -> str:
    """Return how the numbers were measured."""
    protocol = results["protocol"]
    return (
        "AUROC of telling reconstructions (the untouched images of the task) from repaired images; a guess has 0.5. "
        f"In brackets: {100 * protocol['confidence']:g} % bootstrap interval over images. The probes are trained on "
        f"{100 * (1 - protocol['test_share']):g} % of the images and tested on the others; both versions of an image "
        f"are in the same part. They read the exported features, {protocol['pool']}-pooled. The occlusion maps are of "
        f"{results['occlusion']['images']} images, with a square of {results['occlusion']['side']} pixels."
        f"{result_files.seen_sentence(results)}"
    )


def summary(results: Values) -> str:
    """Return the warnings and the table as text for terminals."""
    _, *rows = tables.shortcuts_table([results])
    width = max(len(name) for name, _ in rows)
    lines = [*warnings(results), "AUROC, reconstruction or repaired:"]
    for name, cell in rows:
        lines.append(f"  {name:<{width}}  {cell}")
    return "\n".join(lines)


def plot(results: Values) -> Figure:
    """Return the figure with a panel per question."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    all_axes = figure.subplots(1, len(QUESTIONS), sharey=True, width_ratios=[1, 1.7, 1.2])
    for axes, (title, (draw, _)) in zip(all_axes, QUESTIONS.items(), strict=True):
        _draw_question(axes, draw, results)
        axes.set_title(title)
    all_axes[0].set_ylabel("AUROC")
    return figure


def panels(results: Values) -> list[Panel]:
    """Return a panel per question for a page, with its explanation."""
    made = []
    for title, (draw, text) in QUESTIONS.items():
        figure = Figure(figsize=(3.4, 3.0), layout="constrained")
        axes = figure.subplots()
        _draw_question(axes, draw, results)
        axes.set_ylabel("AUROC")
        made.append(Panel(f"{title[0].upper()}{title[1:]}.", figure, text))
    return made


def _draw_question(axes: Axes, draw: Callable[[Axes, Values], None], results: Values) -> None:
    """Draw one of `QUESTIONS`."""
    draw(axes, results)
    axes.axhline(0.5, **CHANCE)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, frameon=False)


def _draw_layers(axes: Axes, results: Values) -> None:
    layers = results["layers"]
    axes.set_xticks(*_places(f"{name}\n{record['receptive_field']} px" for name, record in layers.items()))
    _draw_line(axes, 0, list(layers.values()), color="C0")
    axes.axhline(results["score"]["tested"]["auroc"], **SCORE)
    axes.set_xlabel("layer, pixels that a cell sees")


def _draw_filters(axes: Axes, results: Values) -> None:
    filters = results["filters"]
    axes.set_xticks(*_places(f"{record['value']:g}" for record in filters))
    kinds = [record["kind"] for record in filters]
    for number, kind in enumerate(dict.fromkeys(kinds)):
        first = kinds.index(kind)
        records = filters[first : first + kinds.count(kind)]
        _draw_line(axes, first, records, color=f"C{number}", label=FILTER_TITLES[kind])
    axes.axhline(results["score"]["all"]["auroc"], **SCORE)


def _draw_cells(axes: Axes, results: Values) -> None:
    cells = results["cells"]
    axes.set_xticks(*_places(str(record["dropped"]) for record in cells))
    paired = [{"auroc": record["paired"]["share"], **record["paired"]} for record in cells]
    _draw_line(axes, 0, cells, color="C0", label="AUROC")
    _draw_line(axes, 0, paired, color="0.5", label="same image: repaired scores higher", linewidth=1)
    axes.axhline(results["score"]["all"]["auroc"], **SCORE)
    axes.set_xlabel(f"dropped cells of {cells[0]['cells']}")


QUESTIONS = {  # title to drawing and explanation
    "one layer alone, linear probe": (_draw_layers, LAYERS_TEXT),
    "score on filtered images": (_draw_filters, FILTERS_TEXT),
    "score by number of dropped cells": (_draw_cells, CELLS_TEXT),
}


def _places(names: Iterable[str]) -> tuple[range, list[str]]:
    """Return the ticks of names and the names."""
    names = list(names)
    return range(len(names)), names


def _draw_line(axes: Axes, first: int, records: Sequence[Values], **style: Any) -> None:
    """Draw figures with intervals from the tick `first` on."""
    values = [record["auroc"] for record in records]
    low = [max(0, record["auroc"] - record["interval"][0]) for record in records]
    high = [max(0, record["interval"][1] - record["auroc"]) for record in records]
    places = range(first, first + len(records))
    axes.errorbar(places, values, yerr=[low, high], marker="o", markersize=4, capsize=3, **style)


def occlusion_figure(examples: Examples) -> Figure:
    """Return a row per image: both versions, what was dropped, and the maps."""
    limit = float(np.percentile(np.abs(examples.occlusion), STRONG))
    titles = ("reconstruction", "occlusion", "repaired", "dropped cells", "artifact map", "occlusion")
    count = len(examples.dropped)
    figure = Figure(figsize=(1.7 * len(titles), 1.8 * count + 0.7), layout="constrained")
    grid = figure.subplots(count, len(titles), squeeze=False)
    for row, axes in enumerate(grid):
        real, repaired = examples.images[:, row]
        pictures = (
            real,
            signed_overlay(real, examples.occlusion[0, row], limit),
            repaired,
            overlay(repaired, _enlarged(examples.dropped[row], repaired)),
            overlay(repaired, _enlarged(examples.artifact_map[row], repaired)),
            signed_overlay(repaired, examples.occlusion[1, row], limit),
        )
        for axis, picture in zip(axes, pictures, strict=True):
            axis.imshow(picture)
        for axis, probability in zip(axes[[0, 2]], examples.probability[:, row], strict=True):
            axis.text(0.5, -0.03, f"{probability:.3f}", transform=axis.transAxes, ha="center", va="top", fontsize=8)
    for axis, name in zip(grid[0], titles, strict=True):
        axis.set_title(name, fontsize=9)
    for axis in grid.flat:
        axis.set_axis_off()
    return figure


def _enlarged(cells: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Return cells at the resolution of an image, not interpolated."""
    rows = np.arange(image.shape[0]) * len(cells) // image.shape[0]
    columns = np.arange(image.shape[1]) * cells.shape[1] // image.shape[1]
    return np.asarray(cells, np.float32)[rows][:, columns]


def positions_figure(results: Values) -> Figure:
    """Return the mean strength of the occlusion maps by position."""
    positions = results["occlusion"]["positions"]
    largest = max(np.max(positions[kind]) for kind in KINDS)
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    all_axes = figure.subplots(1, len(KINDS))
    for axes, kind in zip(all_axes, KINDS, strict=True):
        picture = axes.imshow(positions[kind], cmap="viridis", vmin=0, vmax=largest)
        axes.set_title(kind, fontsize=10)
        axes.set_axis_off()
    figure.colorbar(picture, ax=list(all_axes), label="mean change of the log-odds")
    return figure
