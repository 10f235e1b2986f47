"""What an evaluation leaves for people: a table as Markdown, curves, examples, a page with all of it."""

import io
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lts.visualization.html import Report
from lts.visualization.overlay import overlay

TITLE = "How well artifacts are spotted"
MAIN = {"color": "C0", "linewidth": 2}
CELLS = {"mask_map": "of repaired images", "mask_map_of_both": "of reconstructions and repaired images"}
OTHERS = ("C1", "C2", "C3")


def write(results: Mapping[str, Any], found: Mapping[str, Any], folder: pathlib.Path) -> None:
    """Writes evaluation.md, evaluation.html, curves.png and examples.png.

    Args:
      results: what evaluation.json holds.
      found: "probability", "cells", "dropped" and "examples" of `lts.spotting.evaluation`.
      folder: that is there.
    """
    curves, examples = curves_figure(results), examples_figure(found)
    for name, figure in (("curves.png", curves), ("examples.png", examples)):
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=120)
        (folder / name).write_bytes(stream.getvalue())
    markdown = (
        f"# {TITLE}\n\n{summary(results)}\n\n![curves](curves.png)\n\n![examples](examples.png)\n\n{_example_text()}\n"
    )
    (folder / "evaluation.md").write_text(markdown, encoding="utf-8")
    report = Report(TITLE)
    for text in (*_warnings(results), _what(results)):
        report.paragraph(text)
    report.table(image_rows(results))
    for which in CELLS:
        report.table(cell_rows(results, which))
    report.paragraph(_explained(results))
    report.heading("Curves")
    report.picture(curves, "Left: images. Middle and right: cells of repaired images.")
    report.heading("Examples")
    report.picture(examples, _example_text())
    report.heading("What the model says of each kind of image")
    report.table(kind_rows(results))
    report.write(folder / "evaluation.html")


def summary(results: Mapping[str, Any]) -> str:
    """The figures and what they are, as Markdown."""
    parts = [*_warnings(results), _what(results)]
    tables = [image_rows(results), *(cell_rows(results, which) for which in CELLS), kind_rows(results)]
    return "\n\n".join([*parts, *map(_markdown_table, tables), _explained(results)])


def image_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """A row for each pair of kinds, header first."""
    rows = [["images told apart", "AUROC"]]
    for index, pair in enumerate(results["pairs"]):
        name = f"{pair['untouched']} or {pair['changed']}"
        rows.append([name + (" (the task)" if index == 0 else ""), _number(pair["auroc"], pair["interval"])])
    return rows


def cell_rows(results: Mapping[str, Any], which: str) -> list[list[str]]:
    """Figures of the artifact map beside what a guess would reach, header first; `which` is one of CELLS."""
    cells = results[which]
    base, iou, best = cells["base_rate"], cells["iou"], cells["best_iou"]
    return [
        [f"dropped cells {CELLS[which]}", "artifact map", "without looking"],
        ["average precision", _figure(cells["average_precision"]), f"{base:.3f}"],
        ["AUROC", _figure(cells["auroc"]), "0.500"],
        [f"IoU at threshold {iou['threshold']:g}", _figure(iou), f"{base:.3f}"],
        [f"IoU at the best threshold, {best['threshold']:.2f}", f"{best['value']:.3f}", f"{base:.3f}"],
    ]


def kind_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """What the model says of each kind, header first."""
    rows = [["kind of image", "mean probability", "called repaired", "mean of the map"]]
    for kind, values in results["kinds"].items():
        called = f"{100 * values['called_repaired']:.1f} %"
        rows.append([kind, f"{values['probability']:.3f}", called, f"{values['artifact_map']:.3f}"])
    return rows


def curves_figure(results: Mapping[str, Any]) -> Figure:
    """ROC of images, precision and recall of cells, IoU by threshold."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for index, pair in enumerate(results["pairs"]):
        style = MAIN if index == 0 else {"color": OTHERS[index - 1], "linewidth": 1, "linestyle": "--"}
        label = f"{pair['untouched']} or {pair['changed']}: {pair['auroc']:.3f}"
        left.plot(pair["curve"]["false_positive_rate"], pair["curve"]["true_positive_rate"], label=label, **style)
    left.plot([0, 1], [0, 1], color="0.6", linestyle=":", linewidth=1)
    left.set(title="told apart (AUROC)", xlabel="false positive rate", ylabel="true positive rate")
    cells = results["mask_map"]
    curve, base = cells["curve"], cells["base_rate"]
    label = f"average precision {cells['average_precision']['value']:.3f}"
    middle.plot(curve["recall"], curve["precision"], label=label, **MAIN)
    middle.axhline(base, color="0.6", linestyle=":", linewidth=1, label=f"share of dropped cells {base:.3f}")
    middle.set(title="dropped cells", xlabel="recall", ylabel="precision", ylim=(min(0.5, base) - 0.02, 1.02))
    right.plot(curve["threshold"], curve["iou"], **MAIN)
    for name, which in (("at", cells["iou"]), ("best, at", cells["best_iou"])):
        label = f"{name} {which['threshold']:.2f}: {which['value']:.3f}"
        right.plot(which["threshold"], which["value"], "o" if name == "at" else "^", color="C0", label=label)
    right.axhline(base, color="0.6", linestyle=":", linewidth=1, label=f"all cells: {base:.3f}")
    right.set(title="dropped cells (IoU)", xlabel="threshold on the artifact map", xlim=(0, 1), ylim=(0, 1.02))
    for axes in (left, middle, right):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=7.5, frameon=False, loc="lower left" if axes is not left else "lower right")
    return figure


def examples_figure(found: Mapping[str, Any]) -> Figure:
    """A row for each of the first images: every kind with its probability, then dropped cells and artifact map."""
    examples = found["examples"]
    kinds = [kind for kind in ("photograph", "reconstruction", "damaged", "repaired") if kind in examples]
    repaired = examples["repaired"]
    masks = {"dropped": found["dropped"], "artifact map": found["cells"]["repaired"]}
    figure = Figure(figsize=(1.45 * (len(kinds) + 2), 1.6 * len(repaired) + 0.3), layout="constrained")
    axes = figure.subplots(len(repaired), len(kinds) + len(masks), squeeze=False)
    for row, image in enumerate(repaired):
        pictures = [(examples[kind][row], f"{found['probability'][kind][row]:.2f}") for kind in kinds]
        pictures += [(_over(image, mask[row]), "") for mask in masks.values()]
        for column, (picture, text) in enumerate(pictures):
            axes[row, column].imshow(picture)
            axes[row, column].text(
                0.5, -0.03, text, transform=axes[row, column].transAxes, ha="center", va="top", fontsize=8
            )
    for column, name in enumerate((*kinds, *masks)):
        axes[0, column].set_title(name, fontsize=9)
    for each in axes.flat:
        each.set_axis_off()
    return figure


def _over(image: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """The map over an image, cell by cell, so that it can be compared with the truth."""
    factor = len(image) // len(cells)
    return overlay(image, np.asarray(cells, np.float32).repeat(factor, 0).repeat(factor, 1))


def _warnings(results: Mapping[str, Any]) -> list[str]:
    run, lines = results["run"], []
    if run["may_hold_the_images"]:
        lines.append(
            f"Not surely held out: the run was trained on {run['dataset']}, split {run['split']}, which may hold these "
            "images; the figures are too good then."
        )
    if not run["exported_from_it"]:
        lines.append("The model is not the export of this run's last checkpoint: it is shown another's repairs.")
    return lines


def _what(results: Mapping[str, Any]) -> str:
    images, run, protocol = results["images"], results["run"], results["protocol"]
    broken = f" ({len(images['broken'])} broken ones were left out)" if images["broken"] else ""
    return (
        f"Model {results['model']['path']} on {images['number']:,} images of {images['dataset']}, split "
        f"{images['split']}{broken}, damaged by step {run['step']:,} of {run['workdir']}: a cell is kept with "
        f"probability {protocol['keep_probability']:g}, seed {protocol['seed']}."
    )


def _explained(results: Mapping[str, Any]) -> str:
    protocol = results["protocol"]
    return (
        f"In brackets: {100 * protocol['confidence']:g} % bootstrap interval over images. Reconstructions are the "
        "autoencoder's, the task's untouched images; the model never saw photographs as they are, nor damage without "
        'repair. "Without looking" is a guess, and for the IoU calling every cell dropped. The best threshold was '
        "chosen on these images."
    )


def _example_text() -> str:
    return (
        "The first images; below each the probability of having been repaired. The last two columns are the repaired "
        "image under the cells that were dropped and under the artifact map."
    )


def _number(value: float, ends) -> str:
    return f"{value:.3f} [{ends[0]:.3f}, {ends[1]:.3f}]"


def _figure(figure: Mapping[str, Any]) -> str:
    return _number(figure["value"], figure["interval"])


def _markdown_table(rows: list[list[str]]) -> str:
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)
