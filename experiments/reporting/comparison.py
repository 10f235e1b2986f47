"""Tables, captions and plots of `experiments.compare` and `experiments.ablate`.

Both write results.json, results.md (a table) and results.png (a plot with intervals).
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from experiments.reporting import results as result_files
from experiments.reporting.markdown import bold, percent, percent_interval
from lts.utils.markdown import escape, table
from lts.utils.text import printable

Rows = list[list[str]]
COLOURS = {
    "autoencoder": "C2",
    "rotation": "C1",
    "lci": "C4",
    "turned": "C9",
    "joint": "C6",
    "photographs": "C5",
    "supervised": "C3",
    "ours": "C0",
    "random": "0.55",
}
LINE_SHIFT = 0.06  # horizontal distance between two lines, as a fraction of that between two layers


def write(results: Mapping[str, Any], output: str | os.PathLike) -> None:
    """Write results.json, results.md and results.png into a folder."""
    result_files.write(output, results, markdown, plot)


def markdown(results: Mapping[str, Any]) -> str:
    """Return title, table and caption as Markdown."""
    rows = {"compare": compare_table, "ablate": ablate_table}[results["kind"]](results)
    return "\n\n".join([escape(title(results)), table(rows), escape(caption(results))]) + "\n"


def plot(results: Mapping[str, Any]) -> Figure:
    """Return the figure of a run."""
    return {"compare": _plot_methods, "ablate": _plot_variants}[results["kind"]](results)


def compare_table(results: Mapping[str, Any]) -> Rows:
    """Return the accuracies of all methods by layer.

    In percent, with paired differences and intervals. A cell is blank where a network has no such layer.
    """
    layers = results["layers"]
    rows = [["", "minutes", *layers], [random_name(results), "0", *layer_cells(results["random_mean"], layers)]]
    for name, method in results["methods"].items():
        minutes = sum(method["seconds"].values()) / 60
        row = [method["title"], f"{minutes:.1f}", *layer_cells(method["layers"], layers)]
        rows.append(bold(row) if name == "ours" else row)
        rows.append(["difference to random (paired)", "", *layer_cells(method["difference"], layers, "+")])
    for name, difference in results["ours_minus"].items():
        baseline_title = results["methods"][name]["title"]
        rows.append([f"ours minus {baseline_title} (paired)", "", *layer_cells(difference, layers, "+")])
    return rows


def ablate_table(results: Mapping[str, Any]) -> Rows:
    """Return the base's accuracies and each variant's difference."""
    layers = results["layers"]
    rows = [["", "changed", *layers], ["base: accuracy", "", *layer_cells(results["base"]["layers"], layers)]]
    for name, variant in results["variants"].items():
        rows.append([name, _changes(variant), *layer_cells(variant["difference"], layers, "+")])
    return rows


def _changes(variant: Mapping[str, Any]) -> str:
    """Return a variant's changed fields."""
    # Each entry is "section.field: old -> new"; the section is dropped.
    fields = [line.split(".", 1)[1] for line in variant["changed"]]
    return ", ".join(fields).replace(" -> ", " → ")


def random_name(results: Mapping[str, Any]) -> str:
    """Return the name of the untrained networks' mean."""
    return f"mean of {len(results['random'])} random initialisations"


def layer_cells(records: Mapping[str, Any], layers: Sequence[str], sign: str = "") -> list[str]:
    """Return one cell per layer, blank without record."""
    row = []
    for layer in layers:
        record = records.get(layer)
        row.append(percent_interval(record["accuracy"], record["interval"], sign) if record else "")
    return row


def title(results: Mapping[str, Any]) -> str:
    """Return one line: experiment and images."""
    dataset = results["dataset"]
    titles = {"compare": ("Baselines", "test"), "ablate": ("Ablations", "validation")}
    experiment, images = titles[results["kind"]]
    return (
        f"{experiment} ({results['protocol']['name']} on {printable(dataset['name'])}: "
        f"{dataset['train_images']:,} training, {dataset['test_images']:,} {images} images, "
        f"{len(dataset['classes'])} classes)"
    )


def caption(results: Mapping[str, Any]) -> str:
    """Return the explanation of the numbers."""
    return {"compare": _compare_caption, "ablate": _ablate_caption}[results["kind"]](results)


def _ablate_caption(results: Mapping[str, Any]) -> str:
    dataset = results["dataset"]
    return (
        f"Accuracy on validation images ({dataset['test_split']}), never on test images, because hyper-parameters are "
        f"tuned on it. {_probe_sentence(results)} It was trained on {dataset['train_split']}. "
        f"{_pretraining_sentence(results)} Variants: paired differences to the base, in points. "
        f"{_interval_sentences(results, 'validation')}"
    )


def _compare_caption(results: Mapping[str, Any]) -> str:
    plan = results["plan"]
    dataset = results["dataset"]
    batches = ", ".join(f"{stage} {rate['batch_size']}" for stage, rate in plan["rates"].items())
    return (
        f"Accuracy on test images ({dataset['test_split']}). {_probe_sentence(results)} It was trained on "
        f"{dataset['train_split']}. {_pretraining_sentence(results)} {_supervised_sentence(results)}"
        f"Each method was trained for the steps that fit into {plan['budget_minutes']:g} minutes. The rates were "
        f"measured in turns beforehand. Ours spends {100 * plan['autoencoder_share']:g} % of the time on the "
        f"autoencoder. The column gives the minutes that the training took. Images per step: {batches}. The encoder's "
        f"layers stand in the columns of the backbone's layers with the same number. "
        f"{_interval_sentences(results, 'test')}"
    )


def _probe_sentence(results: Mapping[str, Any]) -> str:
    protocol = results["protocol"]
    return (
        f"Linear classifier ({protocol['classifier']}) on frozen features, {protocol['pool']}-pooled to about "
        f"{protocol['dimensions']:,} dimensions and standardised; regularisation chosen on "
        f"{100 * protocol['validation']:g} % of the training images."
    )


def _supervised_sentence(results: Mapping[str, Any]) -> str:
    """Return which labels were used, if a method used them; ends with a space."""
    if "supervised" not in results["methods"]:
        return ""
    return f"Supervised training used {results['dataset']['train_split']}. "


def _pretraining_sentence(results: Mapping[str, Any]) -> str:
    images = results["pretraining"]
    shared = f"; {images['test_images']:,} of them are also tested" if images["test_images"] else ""
    return f"Pre-training used {images['split']} ({images['images']:,} images, without labels{shared})."


def _interval_sentences(results: Mapping[str, Any], images: str) -> str:
    confidence = f"{100 * results['protocol']['confidence']:g} %"
    if "seeds" in results:
        return (
            f"Means over {len(results['seeds'])} pre-training seeds. In brackets: {confidence} Student interval over "
            "the seeds; differences are paired by seed."
        )
    return (
        f"In brackets: {confidence} bootstrap interval over {images} images. One pre-training seed each: figures of "
        "another seed may differ by more than the intervals say."
    )


def _plot_methods(results: Mapping[str, Any]) -> Figure:
    """Return accuracy by layer, a line per method."""
    layers = results["layers"]
    lines = {name: (method["title"], method["layers"]) for name, method in results["methods"].items()}
    lines["random"] = (random_name(results), results["random_mean"])
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    handles = []
    for number, (name, (label, records)) in enumerate(lines.items()):
        # Shift the lines sideways so that their intervals do not cover each other.
        shift = LINE_SHIFT * (number - (len(lines) - 1) / 2)
        # The autoencoder's encoder lacks some of the backbone's layers.
        present = [index for index, layer in enumerate(layers) if layer in records]
        means, errors = error_bars([records[layers[index]] for index in present])
        look = {"color": COLOURS.get(name), "linewidth": 2.2 if name == "ours" else 1.4}
        look |= {"marker": "o", "markersize": 4, "capsize": 2}
        positions = [index + shift for index in present]
        handles.append(axes.errorbar(positions, means, yerr=errors, label=label, **look))
    handles.append(draw_chance(axes, results))
    axes.set_xticks(range(len(layers)), layers)
    axes.set_ylabel("test accuracy, %")
    budget = f"{results['plan']['budget_minutes']:g} minutes of training each"
    axes.set_title(f"{title(results)}\n{budget}".replace(": ", "\n", 1), fontsize=9)
    figure.legend(handles=handles, loc="outside right center", fontsize=8, frameon=False)
    return figure


def plot_budgets(runs: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the accuracy of the best layer against the minutes of training, a line per method.

    Args:
      runs: results of `experiments.compare` with the same images and probe.

    Raises:
      ReportError: no run, or runs with other images or another probe.
    """
    settings = [[run["dataset"], run["protocol"]] for run in runs]
    if not runs or any(setting != settings[0] for setting in settings):
        raise result_files.ReportError(
            f"a picture of budgets needs runs of compare with the same images and probe. Received: {len(runs)} runs"
        )
    lines: dict[str, tuple[str, dict[float, Mapping[str, Any]]]] = {}
    for run in sorted(runs, key=lambda run: run["plan"]["budget_minutes"]):
        for name, method in run["methods"].items():
            _, points = lines.setdefault(name, (method["title"], {}))
            points[run["plan"]["budget_minutes"]] = _best(method["layers"])
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, (name, (label, points)) in enumerate(lines.items()):
        means, errors = error_bars(list(points.values()))
        # Factors, so that the intervals of a budget do not cover each other on the logarithmic axis.
        minutes = [budget * (1 + LINE_SHIFT * (number - (len(lines) - 1) / 2) / 2) for budget in points]
        look = {"color": COLOURS.get(name), "linewidth": 2.2 if name == "ours" else 1.4}
        axes.errorbar(minutes, means, yerr=errors, label=label, marker="o", markersize=4, capsize=2, **look)
    random = 100 * _best(runs[0]["random_mean"])["accuracy"]
    axes.axhline(random, color=COLOURS["random"], linestyle="--", label=random_name(runs[0]))
    budgets = sorted({run["plan"]["budget_minutes"] for run in runs})
    axes.set_xscale("log")
    axes.set_xticks(budgets, [f"{budget:g}" for budget in budgets])
    axes.minorticks_off()
    axes.set_xlabel("minutes of training")
    axes.set_ylabel("test accuracy of the best layer, %")
    axes.set_title(title(runs[0]).replace(": ", "\n", 1), fontsize=9)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", fontsize=8, frameon=False)
    return figure


def _best(records: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the record of the most accurate layer."""
    return max(records.values(), key=lambda record: record["accuracy"])


def draw_chance(axes, results: Mapping[str, Any]):
    """Draw the accuracy of chance, and the grid."""
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    chance = 100 / len(results["dataset"]["classes"])
    return axes.axhline(chance, color="0.5", linestyle=":", linewidth=1, label="chance")


def _plot_variants(results: Mapping[str, Any]) -> Figure:
    """Return differences to the base, a panel per layer."""
    layers = results["layers"]
    variants = results["variants"]
    # Inches: a margin for the names, then a fixed width per layer and height per variant.
    size = (2.2 + 1.9 * len(layers), 1.5 + 0.28 * max(1, len(variants)))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(layers), sharex=True, sharey=True, squeeze=False)[0]
    for axes, layer in zip(panels, layers, strict=True):
        for row, variant in enumerate(variants.values()):
            record = variant["difference"].get(layer)
            if record is None:
                continue
            means, errors = error_bars([record])
            look = {"color": _sign_colour(record), "marker": "o", "markersize": 5, "capsize": 2, "linestyle": ""}
            axes.errorbar(means, [row], xerr=errors, **look)
        axes.axvline(0, color="0.3", linewidth=1)
        base_accuracy = percent(results["base"]["layers"][layer]["accuracy"])
        axes.set_title(f"{layer}\nbase {base_accuracy} %", fontsize=9)
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(variants)), list(variants))
    # The limits are reversed, so that the first variant stands on top.
    panels[0].set_ylim(len(variants) - 0.5, -0.5)
    colours = "blue: better, red: worse, grey: the interval contains zero"
    figure.supxlabel(f"difference to the base, points of validation accuracy ({colours})", fontsize=9)
    figure.suptitle(title(results), fontsize=9)
    return figure


def _sign_colour(record: Mapping[str, Any]) -> str:
    """Return the colour of a difference's sign."""
    # Blue: better, red: worse, grey: the interval contains zero.
    low, high = record["interval"]
    if low > 0:
        return "C0"
    return "C3" if high < 0 else "0.55"


def error_bars(records: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[list[float]]]:
    """Return means and interval arms, in percent."""
    # matplotlib's `errorbar` takes the distances to the interval's ends as [below, above].
    means = [100 * record["accuracy"] for record in records]
    below = [100 * (record["accuracy"] - record["interval"][0]) for record in records]
    above = [100 * (record["interval"][1] - record["accuracy"]) for record in records]
    return means, [below, above]
