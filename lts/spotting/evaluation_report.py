"""Report of an evaluation, as Markdown and HTML."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lts.utils import markdown
from lts.visualization import figures
from lts.visualization.html import Panel, Report
from lts.visualization.overlay import overlay

TITLE = "How well artifacts are spotted"
CELLS = {"mask_map": "of repaired images", "mask_map_of_both": "of reconstructions and repaired images"}
EXAMPLE_TEXT = (
    "The first images. Below each: the probability of having been repaired. The last two columns are the repaired "
    "image under the cells that were dropped and under the artifact map."
)

# Line styles of the figures.
MAIN = {"color": "C0", "linewidth": 2}
OTHER = {"linewidth": 1, "linestyle": "--"}
GUESS = {"color": "0.6", "linewidth": 1, "linestyle": ":"}


def write(results: Mapping[str, Any], responses, folder: pathlib.Path) -> None:
    """Write evaluation.md, evaluation.html, curves.png and examples.png."""
    text = f"# {TITLE}\n\n{summary(results)}\n\n![curves](curves.png)\n\n![examples](examples.png)\n\n{EXAMPLE_TEXT}\n"
    (folder / "evaluation.md").write_text(text, encoding="utf-8")
    report = Report(TITLE)
    for paragraph in (*warnings(results), _setting(results)):
        report.paragraph(paragraph)
    for rows in _tables(results):
        report.table(rows)
    report.paragraph(_explanation(results))
    with figures.optional_picture("curves.png"):
        curves = curves_figure(results)
        (folder / "curves.png").write_bytes(figures.png(curves, dpi=120))
        report.heading("Curves")
        report.panels(curve_panels(results), width=21)
    with figures.optional_picture("examples.png"):
        examples = examples_figure(responses)
        (folder / "examples.png").write_bytes(figures.png(examples, dpi=120))
        report.heading("Examples")
        report.picture(examples, EXAMPLE_TEXT)
    report.write(folder / "evaluation.html")


def summary(results: Mapping[str, Any]) -> str:
    """Return the content of evaluation.json as Markdown."""
    texts = [markdown.escape(text) for text in (*warnings(results), _setting(results))]
    tables = [markdown.table(rows) for rows in _tables(results)]
    return "\n\n".join([*texts, *tables, _explanation(results)])


def _tables(results: Mapping[str, Any]) -> list[list[list[str]]]:
    """Return all tables, each with its header first."""
    return [_image_rows(results), *(_cell_rows(results, name) for name in CELLS), _kind_rows(results)]


def _image_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """Return a row for each pair of kinds."""
    rows = [["images told apart", "AUROC"]]
    for index, pair in enumerate(results["pairs"]):
        task = " (the task)" if index == 0 else ""
        auroc = _with_interval({"value": pair["auroc"], "interval": pair["interval"]})
        rows.append([f"{pair['untouched']} or {pair['changed']}{task}", auroc])
    return rows


def _cell_rows(results: Mapping[str, Any], name: str) -> list[list[str]]:
    """Return figures of a map and a guess."""
    cells = results[name]
    # With 70 % of the cells dropped, a guess has an average precision and an IoU of 0.70 already.
    iou = cells["iou"]
    best = cells["best_iou"]
    guess = f"{cells['base_rate']:.3f}"
    return [
        [f"dropped cells {CELLS[name]}", "artifact map", "guess"],
        ["average precision", _with_interval(cells["average_precision"]), guess],
        ["AUROC", _with_interval(cells["auroc"]), "0.500"],
        [f"IoU at threshold {iou['threshold']:g}", _with_interval(iou), guess],
        [f"IoU at the best threshold, {best['threshold']:.2f}", f"{best['value']:.3f}", guess],
    ]


def _kind_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """Return mean outputs by kind of image."""
    rows = [["kind of image", "mean probability", "called repaired", "mean of the map"]]
    for kind, values in results["kinds"].items():
        called = f"{100 * values['called_repaired']:.1f} %"
        rows.append([kind, f"{values['probability']:.3f}", called, f"{values['artifact_map']:.3f}"])
    return rows


def curves_figure(results: Mapping[str, Any]) -> Figure:
    """Return the figure with all curves."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    all_axes = figure.subplots(1, len(CURVES))
    for axes, (title, draw) in zip(all_axes, CURVES.items(), strict=True):
        _draw(axes, draw, results)
        axes.set_title(title)
    return figure


def curve_panels(results: Mapping[str, Any]) -> list[Panel]:
    """Return the curves for a page, each in a figure."""
    panels = []
    for title, draw in CURVES.items():
        figure = Figure(figsize=(3.4, 3.2), layout="constrained")
        _draw(figure.subplots(), draw, results)
        panels.append(Panel(title, figure))
    return panels


def _draw(axes: Axes, draw: Callable[[Axes, Mapping[str, Any]], None], results: Mapping[str, Any]) -> None:
    """Draw one of `CURVES`."""
    draw(axes, results)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=8, framealpha=0.85, edgecolor="none", loc="lower right" if draw is _plot_roc else "lower left")


def _plot_roc(axes: Axes, results: Mapping[str, Any]) -> None:
    for index, pair in enumerate(results["pairs"]):
        style = MAIN if index == 0 else {"color": f"C{index}", **OTHER}  # the first pair is the task
        curve = pair["curve"]
        label = f"{pair['untouched']} or {pair['changed']}: {pair['auroc']:.3f}"
        axes.plot(curve["false_positive_rate"], curve["true_positive_rate"], label=label, **style)
    axes.plot([0, 1], [0, 1], **GUESS)
    axes.set(xlabel="false positive rate", ylabel="true positive rate")


def _plot_precision(axes: Axes, results: Mapping[str, Any]) -> None:
    cells = results["mask_map"]
    base_rate = cells["base_rate"]
    label = f"average precision {cells['average_precision']['value']:.3f}"
    axes.plot(cells["curve"]["recall"], cells["curve"]["precision"], label=label, **MAIN)
    axes.axhline(base_rate, label=f"share of dropped cells {base_rate:.3f}", **GUESS)
    axes.set(xlabel="recall", ylabel="precision", ylim=(min(0.5, base_rate) - 0.02, 1.02))


def _plot_iou(axes: Axes, results: Mapping[str, Any]) -> None:
    cells = results["mask_map"]
    axes.plot(cells["curve"]["threshold"], cells["curve"]["iou"], **MAIN)
    for name, marker, figure in (("at", "o", cells["iou"]), ("best, at", "^", cells["best_iou"])):
        label = f"{name} {figure['threshold']:.2f}: {figure['value']:.3f}"
        axes.plot(figure["threshold"], figure["value"], marker, color="C0", label=label)
    axes.axhline(cells["base_rate"], label=f"all cells: {cells['base_rate']:.3f}", **GUESS)
    axes.set(ylabel="IoU", xlabel="threshold on the artifact map", xlim=(0, 1), ylim=(0, 1.02))


CURVES = {
    "Images told apart (AUROC)": _plot_roc,
    "Dropped cells of repaired images": _plot_precision,
    "The same cells, by threshold": _plot_iou,
}


def examples_figure(responses) -> Figure:
    """Return the figure of the first images' `Responses`."""
    # The columns of an image are its kinds with their probabilities, the dropped cells and the artifact map.
    kinds = [kind for kind in ("photograph", "reconstruction", "damaged", "repaired") if kind in responses.examples]
    repaired = responses.examples["repaired"]
    maps = {"dropped": responses.dropped, "artifact map": responses.cells["repaired"]}
    figure = Figure(figsize=(1.45 * (len(kinds) + 2), 1.6 * len(repaired) + 0.3), layout="constrained")
    grid = figure.subplots(len(repaired), len(kinds) + len(maps), squeeze=False)
    for row, axes in enumerate(grid):
        for axis, kind in zip(axes, kinds, strict=False):
            axis.imshow(responses.examples[kind][row])
            probability = f"{responses.probability[kind][row]:.2f}"
            axis.text(0.5, -0.03, probability, transform=axis.transAxes, ha="center", va="top", fontsize=8)
        for axis, cells in zip(axes[len(kinds) :], maps.values(), strict=True):
            axis.imshow(_overlay_cells(repaired[row], cells[row]))
    for axis, name in zip(grid[0], (*kinds, *maps), strict=True):
        axis.set_title(name, fontsize=9)
    for axis in grid.flat:
        axis.set_axis_off()
    return figure


def _overlay_cells(image: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Return an image under its cells."""
    factor = len(image) // len(cells)
    # Not interpolated, so that the map can be compared with the dropped cells.
    return overlay(image, np.asarray(cells, np.float32).repeat(factor, 0).repeat(factor, 1))


def warnings(results: Mapping[str, Any]) -> list[str]:
    """Return warnings about the figures."""
    run = results["run"]
    texts = []
    if run["may_hold_the_images"]:
        texts.append(
            f"These images may not be held out: the run was trained on {run['dataset']}, split {run['split']}, which "
            "may contain them. Then the figures are too good."
        )
    if not run["exported_from_it"]:
        texts.append(
            "The model is not the export of this run's last checkpoint: the repair network was not trained against it."
        )
    return texts


def _setting(results: Mapping[str, Any]) -> str:
    """Return model, images and damage as text."""
    images = results["images"]
    run = results["run"]
    protocol = results["protocol"]
    broken = f" ({len(images['broken'])} broken ones were skipped)" if images["broken"] else ""
    return (
        f"Model {results['model']['path']} on {images['number']:,} images of {images['dataset']}, split "
        f"{images['split']}{broken}, corrupted by step {run['step']:,} of {run['workdir']} "
        f"({protocol['corruption']}). A cell is kept with probability "
        f"{protocol['keep_probability']:g}; the seed is {protocol['seed']}."
    )


def _explanation(results: Mapping[str, Any]) -> str:
    return (
        f"In brackets: {100 * results['protocol']['confidence']:g} % bootstrap interval over images. Reconstructions "
        "are the autoencoder's: the untouched images of the task. In training the model never saw photographs, nor "
        'damage without repair. For the IoU a "guess" calls every cell dropped. The best threshold was chosen on these '
        "images."
    )


def _with_interval(figure: Mapping[str, Any]) -> str:
    low, high = figure["interval"]
    return f"{figure['value']:.3f} [{low:.3f}, {high:.3f}]"
