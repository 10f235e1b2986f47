"""What a probe run leaves: results.json, results.md (a table) and results.png (a plot with intervals)."""

import os
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from experiments.reporting import results as result_files


def write(results: Mapping[str, Any], output: str | os.PathLike) -> None:
    """Writes the three files into the folder, each whole or absent; results.json is the last."""
    result_files.write(output, results, markdown(results), plot(results))


def title(results: Mapping[str, Any]) -> str:
    """One line: which probe, which images."""
    dataset, protocol = results["dataset"], results["protocol"]
    return (
        f"{_kind(protocol)} on {dataset['name']}: {dataset['train_images']:,} training, "
        f"{dataset['test_images']:,} test images, {len(dataset['classes'])} classes"
    )


def _kind(protocol: Mapping[str, Any]) -> str:
    """What a protocol is called in titles."""
    if "train_layers" in protocol:
        return "fine-tuning" if protocol["pretrained"] else "training from scratch"
    if protocol.get("name") == "knn":
        return "nearest neighbours"
    if "training_batch_size" in protocol:
        return f"linear heads, protocol {protocol['name']},"
    few = " with few labels" if protocol.get("name") == "few_shot" else ""
    return f"{protocol['classifier']} probe{few}"


def label(model: Mapping[str, Any]) -> str:
    """A model's name in tables: its folder, and that its weights are random or left out if they are."""
    weights = model["description"].get("weights")
    return model["path"] + (f" ({weights})" if weights in ("random", "from scratch") else "")


def mean_label(results: Mapping[str, Any]) -> str:
    """Name of the baselines' mean."""
    random = all(model["description"].get("weights") == "random" for model in results["baselines"])
    return f"mean of {len(results['baselines'])} {'random' if random else 'baselines'}"


def rows(results: Mapping[str, Any]) -> list[list[str]]:
    """The table, header first: a row for the model, each baseline, their mean and the difference; in percent."""
    layers = results["layers"]

    def cells(record: Mapping[str, Any], sign: str = "") -> list[str]:
        return [_cell(record[layer], sign, results["protocol"].get("name") == "stl10_folds") for layer in layers]

    table = [["accuracy, %", *layers]]
    table += [[label(model), *cells(model["layers"])] for model in (results["model"], *results["baselines"])]
    if results["baselines"]:
        table.append([mean_label(results), *cells(results["baseline_mean"])])
        table.append(["difference to the mean", *cells(results["difference"], "+")])
    return table


def _cell(record: Mapping[str, Any], sign: str, over_folds: bool) -> str:
    """An accuracy in percent with its interval; over folds with its deviation, where there is one."""
    mean, low, high = (f"{100 * value:{sign}.1f}" for value in (record["accuracy"], *record["interval"]))
    if over_folds and "deviation" in record:
        return f"{mean} ± {100 * record['deviation']:.1f}"
    return f"{mean} [{low}, {high}]"


def tables(results: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What goes into tables of its own, by heading: results whose records are single accuracies.

    Results with several records a layer (shares of the labels) become a table for each layer, in which those take the
    place of the layers; others are one table without a heading.
    """
    model, baselines = results["model"], results["baselines"]
    if all("accuracy" in record for record in model["layers"].values()):
        return {"": results}
    chosen = {}
    for layer in results["layers"]:
        chosen[layer] = {
            **results,
            "layers": list(model["layers"][layer]),
            "model": {**model, "layers": model["layers"][layer]},
            "baselines": [{**baseline, "layers": baseline["layers"][layer]} for baseline in baselines],
            **{name: results[name][layer] for name in ("baseline_mean", "difference") if name in results},
        }
    return chosen


def markdown(results: Mapping[str, Any]) -> str:
    """The tables with their caption as Markdown."""
    parts = [title(results)]
    for heading, part in tables(results).items():
        table = [[cell.replace("|", "\\|") for cell in row] for row in rows(part)]
        table.insert(1, ["---"] * len(table[0]))
        parts += [f"**{heading}**"] * bool(heading) + ["\n".join(f"| {' | '.join(row)} |" for row in table)]
    return "\n\n".join([*parts, caption(results)]) + "\n"


def caption(results: Mapping[str, Any]) -> str:
    """What the numbers are, in two sentences."""
    protocol = results["protocol"]
    if "train_layers" in protocol:
        return _finetune_caption(protocol)
    sure = f"{100 * protocol['confidence']:g} %"
    over_images = (
        f"In brackets: {sure} bootstrap interval over the test images (paired for the difference); "
        "it does not hold the spread over pre-training seeds."
    )
    if "training_batch_size" in protocol:
        return f"{_of_online_heads(protocol)} {over_images}"
    pooled = f"frozen features, {protocol['pool']}-pooled to about {protocol['dimensions']:,} dimensions"
    if protocol.get("name") == "knn":
        return (
            f"Test accuracy of nearest neighbours by cosine similarity on {pooled}; k chosen on "
            f"{100 * protocol['validation']:g} % of the training images. {over_images}"
        )
    if protocol.get("name") == "few_shot":
        return (
            f"Mean test accuracy of linear classifiers ({protocol['classifier']}) from a share of the labels of each "
            f"class, {protocol['draws']} draws, on {pooled} and standardised; regularisation chosen by "
            f"cross-validation in {protocol['parts']} parts inside each draw. In brackets: {sure} Student interval "
            "over the draws (paired for the difference); it does not hold the spread over test images and "
            "pre-training seeds."
        )
    if protocol.get("name") == "stl10_folds":
        return (
            f"Test accuracy of a linear classifier ({protocol['classifier']}) on {pooled} and standardised, fitted to "
            f"each of STL-10's folds of training images; regularisation chosen on {100 * protocol['validation']:g} % "
            "of the fold. Mean and standard deviation over the folds; in brackets, paired, and as bars in the plot: "
            f"{sure} Student interval of the mean over the folds, too short where folds share images."
        )
    return (
        f"Test accuracy of a linear classifier ({protocol['classifier']}) on {pooled} and standardised; "
        f"regularisation chosen on {100 * protocol['validation']:g} % of the training images. {over_images}"
    )


def _finetune_caption(protocol: Mapping[str, Any]) -> str:
    """`caption` of fine-tuning and of training from scratch."""
    heads = {
        "fc": "fc_1, dropout, fc_2",
        "linear": "a linear map of conv_5",
        "pooled": "a linear map of conv_5's mean",
    }
    layers = {0: "the head alone trained on the frozen backbone", 5: "all layers fine-tuned"}
    trained = layers.get(protocol["train_layers"], f"the last {protocol['train_layers']} convolutions fine-tuned")
    if not protocol["pretrained"]:
        trained = "all layers trained from random weights"
    seeds, sure = len(protocol["seeds"]), f"{100 * protocol['confidence']:g} %"
    over_images = (
        f"Seed {protocol['seeds'][0]}. In brackets: {sure} bootstrap interval over the test images (paired for the "
        "difference); it does not hold the spread over seeds of training and pre-training."
    )
    over_seeds = (
        f"Mean over {seeds} seeds. In brackets: {sure} Student interval over them (paired for the difference); it does "
        "not hold the spread over test images and pre-training seeds."
    )
    return (
        f"Test accuracy of the backbone with a new head ({heads[protocol['head']]}), {trained}, on labels and augmented "
        f"images: {protocol['epochs']} epochs, batch {protocol['batch_size']}, Adam at {protocol['learning_rate']:g} "
        f"with linear decay, weight decay {protocol['weight_decay']:g}. {over_images if seeds == 1 else over_seeds}"
    )


def _of_online_heads(protocol: Mapping[str, Any]) -> str:
    """What the numbers of heads are that were trained over augmented images."""
    pooled = "whole maps"
    if protocol["windows"]:
        windows = "/".join(str(kernel) for _, kernel, _ in protocol["windows"])
        pooled = f"{protocol['pool']}-pooled maps (kernel and stride {windows})"
    elif protocol["dimensions"]:
        pooled = f"maps {protocol['pool']}-pooled to about {protocol['dimensions']:,} dimensions"
    norm = ", batch norm before them" if protocol["norm_decay"] is not None else ""
    backbone = " in training mode (the release's trap)" if protocol["backbone_training"] else ""
    return (
        f"Top-1 test accuracy of linear heads on {pooled} of the frozen backbone{backbone}{norm}, trained over augmented "
        f"images: {protocol['epochs']} epochs, batch {protocol['training_batch_size']}; "
        f"{'mean of ten crops' if protocol['views'] == 10 else 'central crop'}."
    )


def plot(results: Mapping[str, Any]) -> Figure:
    """A panel for each table: the model in colour, baselines in grey, intervals, chance dotted."""
    parts = tables(results)
    width = 7 if len(parts) == 1 else 1 + 3.2 * len(parts)
    figure = Figure(figsize=(width, 4.2), layout="constrained")
    panels = figure.subplots(1, len(parts), sharey=True, squeeze=False)[0]
    for axes, (heading, part) in zip(panels, parts.items(), strict=True):
        _draw(axes, part)
        axes.set_title(heading, fontsize=10)
    panels[0].set_ylabel("test accuracy, %")
    figure.suptitle(title(results).replace(": ", "\n", 1), fontsize=10)
    handles, names = panels[0].get_legend_handles_labels()
    order = sorted(range(len(names)), key=lambda i: names[i] != label(results["model"]))  # the model first
    panels[0].legend([handles[i] for i in order], [names[i] for i in order], fontsize=8, frameon=False)
    return figure


def _draw(axes, part: Mapping[str, Any]) -> None:
    """Accuracy by layer, or by share of the labels, into one panel."""
    layers = part["layers"]

    def line(record: Mapping[str, Any], name: str, **style) -> None:
        means = [100 * record[layer]["accuracy"] for layer in layers]
        intervals = [[100 * end for end in record[layer]["interval"]] for layer in layers]
        errors = [
            [mean - low for mean, (low, _) in zip(means, intervals, strict=True)],
            [high - mean for mean, (_, high) in zip(means, intervals, strict=True)],
        ]
        axes.errorbar(layers, means, yerr=errors, label=name, capsize=3, marker="o", markersize=4, **style)

    line(part["model"]["layers"], label(part["model"]), color="C0", linewidth=2, zorder=3)
    for model in part["baselines"]:
        values = [100 * model["layers"][layer]["accuracy"] for layer in layers]
        axes.plot(layers, values, label=label(model), color="0.65", linewidth=1, linestyle="--", marker=".")
    if len(part["baselines"]) > 1:
        line(part["baseline_mean"], mean_label(part), color="0.35", linewidth=2)
    axes.axhline(100 / len(part["dataset"]["classes"]), color="0.5", linestyle=":", linewidth=1, label="chance")
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
