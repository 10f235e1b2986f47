"""Tables, captions and plots of a probe run.

A run writes results.json, results.md (a table) and results.png (a plot with intervals).
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.reporting import results as result_files
from experiments.reporting.comparison import draw_chance, error_bars
from experiments.reporting.markdown import number, percent, percent_interval
from lts.utils.markdown import escape
from lts.utils.markdown import table as markdown_table
from lts.utils.text import printable
from lts.visualization.figures import legend_label

Values = Mapping[str, Any]


def write(results: Values, output: str | os.PathLike) -> None:
    """Write results.json, results.md and results.png into a folder."""
    result_files.write(output, results, markdown, plot)


def title(results: Values) -> str:
    """Return one line: the probe and its images."""
    dataset = results["dataset"]
    return (
        f"{_experiment(results)} on {printable(dataset['name'])}: {dataset['train_images']:,} training, "
        f"{dataset['test_images']:,} test images, {len(dataset['classes'])} classes"
    )


def _experiment(results: Values) -> str:
    """Return the experiment's name in titles."""
    protocol = results["protocol"]
    kind = results["kind"]
    if kind == "finetune":
        return "fine-tuning" if protocol["pretrained"] else "training from scratch"
    if kind == "semi_supervised":
        return "labels in pre-training"
    if kind == "knn_probe":
        return "nearest neighbours"
    if kind == "sgd_probe":
        return f"linear heads, protocol {protocol['name']},"
    return f"{protocol['classifier']} probe" + (" with few labels" if kind == "few_shot" else "")


def label(model: Values) -> str:
    """Return a model's folder, marked if untrained."""
    weights = model["description"].get("weights")
    mark = f" ({weights})" if weights in ("random", "from scratch") else ""
    return printable(model["path"]) + mark


def mean_label(results: Values) -> str:
    """Return the name of the baselines' mean."""
    random = all(model["description"].get("weights") == "random" for model in results["baselines"])
    return f"mean of {len(results['baselines'])} {'random' if random else 'baselines'}"


def rows(results: Values) -> list[list[str]]:
    """Return the table in percent, the header first.

    The rows are the model, each baseline, the baselines' mean, and the difference to it.
    """
    layers = results["layers"]
    over_folds = results["protocol"].get("name") == "stl10_folds"

    def cells(records: Values, sign: str = "") -> list[str]:
        return [_cell(records[layer], sign, over_folds) for layer in layers]

    table = [["accuracy, %", *layers]]
    for model in (results["model"], *results["baselines"]):
        table.append([label(model), *cells(model["layers"])])
    if results["baselines"]:
        table.append([mean_label(results), *cells(results["baseline_mean"])])
        table.append(["difference to the mean", *cells(results["difference"], "+")])
    return table


def _cell(record: Values, sign: str, over_folds: bool) -> str:
    """Return an accuracy with its spread."""
    # The STL-10 protocol reports mean and deviation over its folds; its differences have intervals.
    if over_folds and "deviation" in record:
        return f"{percent(record['accuracy'], sign)} ± {number(100 * record['deviation'])}"
    return percent_interval(record["accuracy"], record["interval"], sign)


def parts(results: Values) -> dict[str, Values]:
    """Return the parts with their own table and panel.

    Other results than few-shot ones are one part without a heading.
    """
    # Few-shot results have several records per layer: shares of the labels take the place of layers in each part.
    if results["kind"] != "few_shot":
        return {"": results}
    chosen = {}
    for layer in results["layers"]:
        part = dict(results, layers=list(results["model"]["layers"][layer]))
        part["model"] = _at_layer(results["model"], layer)
        part["baselines"] = [_at_layer(baseline, layer) for baseline in results["baselines"]]
        for name in ("baseline_mean", "difference"):
            if name in results:
                part[name] = results[name][layer]
        chosen[layer] = part
    return chosen


def _at_layer(model: Values, layer: str) -> dict[str, Any]:
    """Return a model with one layer's records."""
    return dict(model, layers=model["layers"][layer])


def markdown(results: Values) -> str:
    """Return title, tables and caption as Markdown."""
    blocks = [escape(title(results))]
    for heading, part in parts(results).items():
        if heading:
            blocks.append(f"**{heading}**")
        blocks.append(markdown_table(rows(part)))
    return "\n\n".join([*blocks, escape(caption(results))]) + "\n"


def caption(results: Values) -> str:
    """Return the explanation of the numbers."""
    return _numbers(results) + result_files.seen_sentence(results)


def _numbers(results: Values) -> str:
    """Return how the numbers were measured."""
    protocol = results["protocol"]
    confidence = f"{100 * protocol['confidence']:g} %"
    over_images = (
        f"In brackets: {confidence} bootstrap interval over the test images (paired for the difference). It does not "
        "include the spread over pre-training seeds."
    )
    if results["kind"] == "finetune":
        return _finetune_caption(protocol)
    if results["kind"] == "semi_supervised":
        return (
            "Test accuracy from a share of each class's labels. The first row was pre-trained with them, and tells the "
            f"classes itself. For the baselines: {_finetune_caption(protocol)}"
        )
    if results["kind"] == "sgd_probe":
        return f"{_sgd_sentence(protocol)} {over_images}"
    features = f"frozen features, {protocol['pool']}-pooled to about {protocol['dimensions']:,} dimensions"
    if results["kind"] == "few_shot":
        return _few_shot_caption(protocol, features)
    held_out = f"{100 * protocol['validation']:g} %"
    if results["kind"] == "knn_probe":
        return (
            f"Test accuracy of nearest neighbours by cosine similarity on {features}. The number of neighbours is "
            f"chosen on {held_out} of the training images. {over_images}"
        )
    classifier = f"Test accuracy of a linear classifier ({protocol['classifier']}) on {features} and standardised"
    if protocol.get("name") == "stl10_folds":
        return (
            f"{classifier}, fitted to each of STL-10's folds of training images. Regularisation is chosen on "
            f"{held_out} of the fold. Mean and standard deviation over the folds. In brackets, paired, and as bars in "
            f"the plot: {confidence} Student interval of the mean over the folds. It is too short where folds share "
            "images."
        )
    return f"{classifier}. Regularisation is chosen on {held_out} of the training images. {over_images}"


def _few_shot_caption(protocol: Values, features: str) -> str:
    """Return the caption of classifiers from few labels."""
    return (
        f"Mean test accuracy of linear classifiers ({protocol['classifier']}) on {features} and standardised, from a "
        f"share of each class's labels, {protocol['draws']} draws. Regularisation is chosen by cross-validation in "
        f"{protocol['parts']} parts within each draw. In brackets: {100 * protocol['confidence']:g} % Student interval "
        "over the draws (paired for the difference). It does not include the spread over test images and pre-training "
        "seeds."
    )


def _finetune_caption(protocol: Values) -> str:
    """Return the caption of fine-tuning."""
    # The names of heads are the values of --head.
    heads = {
        "fc": "fc_1, dropout, fc_2",
        "linear": "a linear map of the last map",
        "pooled": "a linear map of its mean",
    }
    if not protocol["pretrained"]:
        trained = "all layers trained from random weights"
    elif protocol["train_layers"] == 0:
        trained = "the head alone trained on the frozen backbone"
    elif protocol["train_layers"] is None:
        trained = "all layers fine-tuned"
    else:
        trained = f"the last {protocol['train_layers']} layers fine-tuned"
    # One seed has no spread over seeds, so its interval is over images.
    seeds = protocol["seeds"]
    confidence = f"{100 * protocol['confidence']:g} %"
    if len(seeds) == 1:
        spread = (
            f"Seed {seeds[0]}. In brackets: {confidence} bootstrap interval over the test images (paired for the "
            "difference). It does not include the spread over seeds of training and pre-training."
        )
    else:
        spread = (
            f"Mean over {len(seeds)} seeds. In brackets: {confidence} Student interval over them (paired for the "
            "difference). It does not include the spread over test images and pre-training seeds."
        )
    return (
        f"Test accuracy of the backbone with a new head ({heads[protocol['head']]}), {trained}, on labels and "
        f"augmented images: {protocol['epochs']} epochs, batch {protocol['batch_size']}, Adam at "
        f"{protocol['learning_rate']:g} with linear decay, weight decay {protocol['weight_decay']:g}. {spread}"
    )


def _sgd_sentence(protocol: Values) -> str:
    """Return how heads were trained."""
    # Windows are the published kernels per layer; dimensions are this project's common size.
    maps = "complete maps"
    if protocol["windows"]:
        windows = "/".join(str(kernel) for _, kernel, _ in protocol["windows"])
        maps = f"{protocol['pool']}-pooled maps (kernel and stride {windows})"
    elif protocol["dimensions"]:
        maps = f"maps {protocol['pool']}-pooled to about {protocol['dimensions']:,} dimensions"
    norm = ", batch norm before them" if protocol["norm_decay"] is not None else ""
    backbone = " in training mode (the release's trap)" if protocol["backbone_training"] else ""
    views = "mean of ten crops" if protocol["views"] == 10 else "central crop"
    return (
        f"Top-1 test accuracy of linear heads on {maps} of the frozen backbone{backbone}{norm}, trained on augmented "
        f"images: {protocol['epochs']} epochs, batch {protocol['training_batch_size']}; {views}."
    )


def plot(results: Values) -> Figure:
    """Return a figure with a panel per table."""
    panels = parts(results)
    width = 7 if len(panels) == 1 else 1 + 3.2 * len(panels)
    figure = Figure(figsize=(width, 4.2), layout="constrained")
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    # All panels have the same lines, so one legend is enough.
    for axes, (heading, part) in zip(all_axes, panels.items(), strict=True):
        handles = _draw_panel(axes, part)
        axes.set_title(heading, fontsize=10)
    all_axes[0].set_ylabel("test accuracy, %")
    all_axes[0].legend(handles=handles, fontsize=8, frameon=False)
    figure.suptitle(title(results).replace(": ", "\n", 1), fontsize=10)
    return figure


def best_layer(results: Values) -> str:
    """Return the layer whose probe is the most accurate."""
    records = results["model"]["layers"]
    return max(results["layers"], key=lambda layer: records[layer]["accuracy"])


def confusion_figure(results: Values, layer: str) -> Figure | None:
    """Return the confusion matrix of the model's linear probe on a layer; None if there is none in the results."""
    record = results["model"]["layers"][layer]
    if "confusion" not in record:
        return None
    counts = np.array([row.split() for row in record["confusion"]], int)
    percent = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [printable(name) for name in results["dataset"]["classes"]]
    side = 1.6 + 0.37 * len(names)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    for row, values in enumerate(percent):
        for column, value in enumerate(values):
            colour = "white" if value > 55 else "0.15"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=9)
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.spines[:].set_visible(False)
    return figure


def _draw_panel(axes, part: Values) -> list:
    """Draw one part; return the legend's entries."""
    # The model is coloured. Baselines are dashed and grey, their mean is dark grey.
    layers = part["layers"]
    handles = [
        _draw_line(axes, layers, part["model"]["layers"], label(part["model"]), color="C0", linewidth=2, zorder=3)
    ]
    for model in part["baselines"]:
        values = [100 * model["layers"][layer]["accuracy"] for layer in layers]
        handles += axes.plot(
            layers, values, label=legend_label(label(model)), color="0.65", linewidth=1, linestyle="--", marker="."
        )
    if len(part["baselines"]) > 1:
        handles.append(_draw_line(axes, layers, part["baseline_mean"], mean_label(part), color="0.35", linewidth=2))
    handles.append(draw_chance(axes, part))
    return handles


def _draw_line(axes, layers: Sequence[str], records: Values, name: str, **style):
    """Draw accuracies with their intervals."""
    means, errors = error_bars([records[layer] for layer in layers])
    return axes.errorbar(
        layers, means, yerr=errors, label=legend_label(name), capsize=3, marker="o", markersize=4, **style
    )
