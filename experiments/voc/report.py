"""What a run of a VOC task leaves: results.json, results.md (a table) and results.png (a plot with intervals)."""

import os
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from experiments.reporting import results as result_files

KINDS = {"voc_classification": "classification", "voc_detection": "detection", "voc_segmentation": "segmentation"}


def write(results: Mapping[str, Any], output: str | os.PathLike) -> None:
    """Writes the three files into the folder, each whole or absent; results.json is the last."""
    result_files.write(output, results, markdown(results), plot(results))


def title(results: Mapping[str, Any]) -> str:
    """One line: which task, which images."""
    dataset = results["dataset"]
    return (
        f"{KINDS[results['task']]} on {dataset['name']}: {dataset['train_images']:,} training, "
        f"{dataset['test_images']:,} test images, {len(results['classes'])} classes"
    )


def label(model: Mapping[str, Any]) -> str:
    """A model's name: its folder, and that its weights are random if they are."""
    return model["path"] + (" (random)" if model["description"].get("weights") == "random" else "")


def mean_label(results: Mapping[str, Any]) -> str:
    """Name of the baselines' mean."""
    baselines = [model for model in results["models"] if model["baseline"]]
    random = all(model["description"].get("weights") == "random" for model in baselines)
    return f"mean of {len(baselines)} {'random' if random else 'baselines'}"


def percent(value: float | None, sign: str = "") -> str:
    """A fraction in percent, one digit after the point; blank for None."""
    return "" if value is None else f"{round(100 * value, 1) + 0.0:{sign}.1f}"


def bracketed(record: Mapping[str, Any], sign: str = "") -> str:
    """A value in percent with its interval."""
    low, high = (percent(end, sign) for end in record["interval"])
    return f"{percent(record['value'], sign)} [{low}, {high}]"


def rows(results: Mapping[str, Any]) -> list[list[str]]:
    """The table, header first: a row for each model, the baselines' mean and the difference to it; in percent."""
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
    """Table and caption as Markdown."""
    table = [[cell.replace("|", "\\|") for cell in row] for row in rows(results)]
    table.insert(1, ["---"] * len(table[0]))
    return "\n\n".join([title(results), "\n".join(f"| {' | '.join(row)} |" for row in table), caption(results)]) + "\n"


def caption(results: Mapping[str, Any]) -> str:
    """How the numbers came to be, in a few sentences."""
    protocol, sure = results["protocol"], f"{100 * results['protocol']['confidence']:g} %"
    trained = f"all layers but the first {protocol['frozen']} convolutions" if protocol["frozen"] else "all layers"
    how = {"adam": "Adam", "sgd": "SGD"}[protocol["optimizer"]]
    schedule = f"{protocol['steps']:,} steps of {protocol['batch_size']} images, {how} at {protocol['learning_rate']:g}"
    if len(protocol["seeds"]) == 1:
        brackets = f"Seed {protocol['seeds'][0]}. In brackets: {sure} bootstrap interval over the test images"
    else:
        brackets = f"Mean over {len(protocol['seeds'])} seeds. In brackets: {sure} Student interval over them"
    seen = {"train": results["dataset"]["train_split"], "test": results["dataset"]["test_split"]}
    return (
        f"{results['measure']} on `{seen['test']}` after fine-tuning {trained} on `{seen['train']}`, protocol "
        f"`{protocol['name']}`: {schedule}. {brackets} (paired for the difference); it does not hold the spread over "
        "pre-training seeds."
    )


def plot(results: Mapping[str, Any]) -> Figure:
    """The headline of every model with its interval, and beside it the classes."""
    models, classes = results["models"], results["classes"]
    figure = Figure(figsize=(5 + 0.45 * len(classes), 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1 + 0.5 * len(models), 2 + 0.6 * len(classes)])
    for place, model in enumerate(models):
        colour = {"color": "0.6"} if model["baseline"] else {"color": "C0"}
        value, (low, high) = 100 * model["value"], (100 * end for end in model["interval"])
        errors = [[max(value - low, 0)], [max(high - value, 0)]]
        left.errorbar([place], [value], yerr=errors, marker="o", capsize=4, label=label(model), **colour)
        values = [float("nan") if v is None else 100 * v for v in model["per_class"].values()]
        right.plot(range(len(classes)), values, "o", markersize=5, **colour)
    left.set_xlim(-0.6, len(models) - 0.4)
    left.set_xticks([])
    left.set_ylabel(f"{results['measure']}, %")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", fontsize=7, frameon=False)
    right.set_xlim(-0.6, len(classes) - 0.4)
    right.set_xticks(range(len(classes)), classes, rotation=60, ha="right", fontsize=8)
    right.set_title("by class", fontsize=9)
    for axes in (left, right):
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title(results).replace(": ", "\n", 1), fontsize=10)
    return figure
