"""Results files of a VOC task: results.json, results.md and results.png."""

import os
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from experiments.reporting import results as result_files
from lts.utils.markdown import code, escape
from lts.utils.markdown import table as markdown_table
from lts.utils.text import printable
from lts.visualization.figures import legend_label

KINDS = {"voc_classification": "classification", "voc_detection": "detection", "voc_segmentation": "segmentation"}


def write(results: Mapping[str, Any], output: str | os.PathLike) -> None:
    """Write the three files, each atomically and results.json first."""
    result_files.write(output, results, markdown, plot)


def title(results: Mapping[str, Any]) -> str:
    """Return one line with task and images."""
    dataset = results["dataset"]
    return (
        f"{KINDS[results['task']]} on {printable(dataset['name'])}: {dataset['train_images']:,} training, "
        f"{dataset['test_images']:,} test images, {len(results['classes'])} classes"
    )


def label(model: Mapping[str, Any]) -> str:
    """Return a model's folder, marked if its weights are random."""
    return printable(model["path"]) + (" (random)" if model["description"].get("weights") == "random" else "")


def mean_label(results: Mapping[str, Any]) -> str:
    """Return the name of the mean over the baselines."""
    baselines = [model for model in results["models"] if model["baseline"]]
    random = all(model["description"].get("weights") == "random" for model in baselines)
    return f"mean of {len(baselines)} {'random' if random else 'baselines'}"


def percent(value: float | None, sign: str = "") -> str:
    """Return a fraction in percent with one decimal; blank for None."""
    if value is None:
        return ""
    rounded = round(100 * value, 1) + 0.0  # + 0.0 turns -0.0 into 0.0
    return f"{rounded:{sign}.1f}"


def bracketed(record: Mapping[str, Any], sign: str = "") -> str:
    """Return a value in percent with its interval."""
    low, high = (percent(end, sign) for end in record["interval"])
    return f"{percent(record['value'], sign)} [{low}, {high}]"


def rows(results: Mapping[str, Any]) -> list[list[str]]:
    """Return the table in percent, header first.

    One row per model, then the mean of the baselines and the difference to it.
    """
    table = [["percent", results["measure"], *results["classes"]]]

    def add(name: str, record: Mapping[str, Any]) -> None:
        table.append([name, bracketed(record), *map(percent, record["per_class"].values())])

    for model in results["models"]:
        add(label(model), model)
    if "baseline_mean" in results:
        if len(results["models"]) > 2:
            add(mean_label(results), results["baseline_mean"])
        difference = bracketed(results["models"][0]["difference"], "+")
        table.append(["difference (paired)", difference, *[""] * len(results["classes"])])
    return table


def markdown(results: Mapping[str, Any]) -> str:
    """Return title, table and caption as Markdown."""
    parts = [escape(title(results)), markdown_table(rows(results)), caption(results)]
    return "\n\n".join(parts) + "\n"


def caption(results: Mapping[str, Any]) -> str:
    """Return how the numbers were measured, in a few sentences."""
    protocol = results["protocol"]
    dataset = results["dataset"]
    confidence = f"{100 * protocol['confidence']:g} %"
    trained = f"all layers but the first {protocol['frozen']} convolutions" if protocol["frozen"] else "all layers"
    optimizer = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}.get(protocol["optimizer"], protocol["optimizer"])
    schedule = (
        f"{protocol['steps']:,} steps of {protocol['batch_size']} images, {optimizer} at {protocol['learning_rate']:g}"
    )
    if len(protocol["seeds"]) == 1:
        brackets = f"Seed {protocol['seeds'][0]}. In brackets: {confidence} bootstrap interval over the test images"
    else:
        brackets = f"Mean over {len(protocol['seeds'])} seeds. In brackets: {confidence} Student interval over them"
    train_split = code(dataset["train_split"])
    test_split = code(dataset["test_split"])
    return (
        f"{results['measure']} on {test_split} after fine-tuning {trained} on {train_split}, protocol "
        f"{code(protocol['name'])}: {schedule}. {brackets} (paired for the difference). The interval does not cover "
        f"the spread over pre-training seeds.{escape(result_files.seen_sentence(results))}"
    )


def plot(results: Mapping[str, Any]) -> Figure:
    """Plot the headline of every model with its interval, and the classes."""
    models = results["models"]
    classes = results["classes"]
    figure = Figure(figsize=(5 + 0.45 * len(classes), 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1 + 0.5 * len(models), 2 + 0.6 * len(classes)])
    for place, model in enumerate(models):
        colour = {"color": "0.6"} if model["baseline"] else {"color": "C0"}
        value = 100 * model["value"]
        low, high = (100 * end for end in model["interval"])
        errors = [[max(value - low, 0)], [max(high - value, 0)]]
        left.errorbar([place], [value], yerr=errors, marker="o", capsize=4, label=legend_label(label(model)), **colour)
        values = [float("nan") if v is None else 100 * v for v in model["per_class"].values()]
        right.plot(range(len(classes)), values, "o", markersize=5, **colour)
    left.set_xlim(-0.6, len(models) - 0.4)
    left.set_xticks([])
    left.set_ylabel(f"{results['measure']}, %")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", fontsize=7, frameon=False)
    right.set_xlim(-0.6, len(classes) - 0.4)
    right.set_xticks(range(len(classes)), [printable(name) for name in classes], rotation=60, ha="right", fontsize=8)
    right.set_title("by class", fontsize=9)
    for axes in (left, right):
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title(results).replace(": ", "\n", 1), fontsize=10)
    return figure
