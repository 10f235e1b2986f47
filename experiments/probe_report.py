"""What a probe run leaves: results.json, results.md (a table) and results.png (a plot with intervals)."""

import io
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from lts import files


def write(results: Mapping[str, Any], output: str | os.PathLike) -> None:
    """Writes the three files into the folder, each whole or absent; results.json is the last."""
    output, picture = pathlib.Path(output), io.BytesIO()
    plot(results).savefig(picture, format="png", dpi=150)
    files.write_bytes(output / "results.png", picture.getvalue())
    files.write_text(output / "results.md", markdown(results))
    files.write_json(output / "results.json", results)


def title(results: Mapping[str, Any]) -> str:
    """One line: which probe, which images."""
    dataset, protocol = results["dataset"], results["protocol"]
    return (
        f"{protocol['classifier']} probe on {dataset['name']}: {dataset['train_images']:,} training, "
        f"{dataset['test_images']:,} test images, {len(dataset['classes'])} classes"
    )


def label(model: Mapping[str, Any]) -> str:
    """A model's name in tables: its folder, and that it is untrained if it is."""
    random = model["description"].get("weights") == "random"
    return model["path"] + (" (random)" if random else "")


def mean_label(results: Mapping[str, Any]) -> str:
    """Name of the baselines' mean."""
    random = all(model["description"].get("weights") == "random" for model in results["baselines"])
    return f"mean of {len(results['baselines'])} {'random' if random else 'baselines'}"


def rows(results: Mapping[str, Any]) -> list[list[str]]:
    """The table, header first: a row for the model, each baseline, their mean and the difference; in percent."""
    layers = results["layers"]

    def cells(record: Mapping[str, Any], sign: str = "") -> list[str]:
        values = [(record[layer]["accuracy"], *record[layer]["interval"]) for layer in layers]
        return [f"{100 * mean:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]" for mean, low, high in values]

    table = [["accuracy, %", *layers]]
    table += [[label(model), *cells(model["layers"])] for model in (results["model"], *results["baselines"])]
    if results["baselines"]:
        table.append([mean_label(results), *cells(results["baseline_mean"])])
        table.append(["difference to the mean", *cells(results["difference"], "+")])
    return table


def markdown(results: Mapping[str, Any]) -> str:
    """The table with its caption as Markdown."""
    table = [[cell.replace("|", "\\|") for cell in row] for row in rows(results)]
    table.insert(1, ["---"] * len(table[0]))
    lines = [f"| {' | '.join(row)} |" for row in table]
    return f"{title(results)}\n\n" + "\n".join(lines) + f"\n\n{caption(results)}\n"


def caption(results: Mapping[str, Any]) -> str:
    """What the numbers are, in two sentences."""
    protocol = results["protocol"]
    return (
        f"Test accuracy of a linear classifier ({protocol['classifier']}) on frozen features, "
        f"{protocol['pool']}-pooled to about {protocol['dimensions']:,} dimensions and standardised; regularisation "
        f"chosen on {100 * protocol['validation']:g} % of the training images. In brackets: "
        f"{100 * protocol['confidence']:g} % bootstrap interval over the test images (paired for the difference); "
        "it does not hold the spread over pre-training seeds."
    )


def plot(results: Mapping[str, Any]) -> Figure:
    """Accuracy by layer with intervals: the model in colour, baselines in grey, chance dotted."""
    layers = results["layers"]
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()

    def line(record: Mapping[str, Any], name: str, **style) -> None:
        means = [100 * record[layer]["accuracy"] for layer in layers]
        intervals = [[100 * end for end in record[layer]["interval"]] for layer in layers]
        errors = [
            [mean - low for mean, (low, _) in zip(means, intervals, strict=True)],
            [high - mean for mean, (_, high) in zip(means, intervals, strict=True)],
        ]
        axes.errorbar(layers, means, yerr=errors, label=name, capsize=3, marker="o", markersize=4, **style)

    line(results["model"]["layers"], label(results["model"]), color="C0", linewidth=2, zorder=3)
    for model in results["baselines"]:
        values = [100 * model["layers"][layer]["accuracy"] for layer in layers]
        axes.plot(layers, values, label=label(model), color="0.65", linewidth=1, linestyle="--")
    if len(results["baselines"]) > 1:
        line(results["baseline_mean"], mean_label(results), color="0.35", linewidth=2)
    axes.axhline(100 / len(results["dataset"]["classes"]), color="0.5", linestyle=":", linewidth=1, label="chance")
    axes.set_ylabel("test accuracy, %")
    axes.set_title(title(results).replace(": ", "\n", 1), fontsize=10)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    handles, names = axes.get_legend_handles_labels()
    order = sorted(range(len(names)), key=lambda i: names[i] != label(results["model"]))  # the model first
    axes.legend([handles[i] for i in order], [names[i] for i in order], fontsize=8, frameon=False)
    return figure
