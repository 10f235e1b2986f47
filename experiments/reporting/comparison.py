"""What `compare` and `ablate` leave: results.json, results.md (a table) and results.png (a plot with intervals)."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from experiments.reporting import comparison_tables, tables
from experiments.reporting import results as result_files

COLOURS = {"autoencoder": "C2", "rotation": "C1", "supervised": "C3", "ours": "C0"}
APART = 0.06  # of the distance between two layers: so far lines stand beside each other


def write(results: Mapping[str, Any], output: str | os.PathLike) -> None:
    """Writes the three files into the folder, each whole or absent; results.json is the last."""
    result_files.write(output, results, markdown(results), plot(results))


def markdown(results: Mapping[str, Any]) -> str:
    """Title, table and caption as Markdown."""
    table = tables.COMPARISONS[results["kind"]]
    parts = [
        comparison_tables.title(results),
        tables.markdown(table(results)),
        comparison_tables.caption(results),
    ]
    return "\n\n".join(parts) + "\n"


def plot(results: Mapping[str, Any]) -> Figure:
    """The figure of results of either kind."""
    return {"compare": _plot_rivals, "ablate": _plot_variants}[results["kind"]](results)


def _plot_rivals(results: Mapping[str, Any]) -> Figure:
    """Accuracy by layer: a line for each rival, the mean of the random ones in grey."""
    layers, rivals = results["layers"], results["rivals"]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    lines = {name: (rival["title"], rival["layers"], COLOURS.get(name)) for name, rival in rivals.items()}
    lines["random"] = (comparison_tables.random_name(results), results["random_mean"], "0.55")
    for number, (name, (label, records, colour)) in enumerate(lines.items()):
        shift = APART * (number - (len(lines) - 1) / 2)
        x = [index + shift for index, layer in enumerate(layers) if layer in records]
        means, errors = _bars([records[layer] for layer in layers if layer in records])
        look = {"linewidth": 2.2 if name == "ours" else 1.4, "marker": "o", "markersize": 4, "capsize": 2}
        axes.errorbar(x, means, yerr=errors, label=label, color=colour, **look)
    axes.axhline(100 / len(results["dataset"]["classes"]), color="0.5", linestyle=":", linewidth=1, label="chance")
    axes.set_xticks(range(len(layers)), layers)
    axes.set_ylabel("test accuracy, %")
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    minutes = f"{results['plan']['budget_minutes']:g} minutes of training each"
    axes.set_title(f"{comparison_tables.title(results)}\n{minutes}".replace(": ", "\n", 1), fontsize=9)
    handles, names = axes.get_legend_handles_labels()
    order = sorted(range(len(names)), key=lambda i: names[i] == "chance")
    chosen = [handles[i] for i in order], [names[i] for i in order]
    figure.legend(*chosen, loc="outside right center", fontsize=8, frameon=False)
    return figure


def _plot_variants(results: Mapping[str, Any]) -> Figure:
    """A panel for each layer, a row for each variant: its difference to the base with the interval."""
    layers, variants = results["layers"], results["variants"]
    figure = Figure(figsize=(2.2 + 1.9 * len(layers), 1.5 + 0.28 * max(1, len(variants))), layout="constrained")
    panels = figure.subplots(1, len(layers), sharex=True, sharey=True, squeeze=False)[0]
    for axes, layer in zip(panels, layers, strict=True):
        shown = [
            (row, one["difference"][layer]) for row, one in enumerate(variants.values()) if layer in one["difference"]
        ]
        for row, record in shown:
            low, high = record["interval"]
            colour = "C0" if low > 0 else "C3" if high < 0 else "0.55"  # better, worse, or it cannot be told
            means, errors = _bars([record])
            axes.errorbar(means, [row], xerr=errors, color=colour, marker="o", markersize=5, capsize=2, linestyle="")
        axes.axvline(0, color="0.3", linewidth=1)
        axes.set_title(f"{layer}\nbase {100 * results['base']['layers'][layer]['accuracy']:.1f} %", fontsize=9)
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(variants)), list(variants))
    panels[0].set_ylim(len(variants) - 0.5, -0.5)
    colours = "blue: better, red: worse, grey: the interval holds zero"
    figure.supxlabel(f"difference to the base, points of validation accuracy ({colours})", fontsize=9)
    figure.suptitle(comparison_tables.title(results), fontsize=9)
    return figure


def _bars(records: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[list[float]]]:
    """(means, [distances to the lower ends, to the upper ends]) in percent."""
    means = [100 * record["accuracy"] for record in records]
    ends = [[100 * end for end in record["interval"]] for record in records]
    below = [mean - low for mean, (low, _) in zip(means, ends, strict=True)]
    return means, [below, [high - mean for mean, (_, high) in zip(means, ends, strict=True)]]
