"""Tables of `experiments.compare` and `experiments.ablate`, as rows of text, header first."""

from collections.abc import Mapping, Sequence
from typing import Any

Rows = list[list[str]]


def compare_table(results: Mapping[str, Any]) -> Rows:
    """Accuracies of the rivals by layer, each with its paired difference to random initialisation.

    Args:
      results: of `experiments.compare`.

    Returns:
      The table, in percent with intervals; blank where a network has no such layer. Minutes are those of training.
    """
    layers = results["layers"]
    rows = [["", "minutes", *layers], [random_name(results), "0", *cells(results["random_mean"], layers)]]
    for name, rival in results["rivals"].items():
        row = [rival["title"], f"{sum(rival['seconds'].values()) / 60:.1f}", *cells(rival["layers"], layers)]
        rows.append([f"**{cell}**" if cell else "" for cell in row] if name == "ours" else row)
        rows.append(["difference to random (paired)", "", *cells(rival["difference"], layers, "+")])
    for name, difference in results["ours_minus"].items():
        title = f"ours minus {results['rivals'][name]['title']} (paired)"
        rows.append([title, "", *cells(difference, layers, "+")])
    return rows


def ablate_table(results: Mapping[str, Any]) -> Rows:
    """Accuracies of the base by layer, and each variant's paired difference to it.

    Args:
      results: of `experiments.ablate`.

    Returns:
      The table, in percent and points with intervals.
    """
    layers = results["layers"]
    rows = [["", "changed", *layers], ["base: accuracy", "", *cells(results["base"]["layers"], layers)]]
    for name, variant in results["variants"].items():
        rows.append([name, changed(variant), *cells(variant["difference"], layers, "+")])
    return rows


def changed(variant: Mapping[str, Any]) -> str:
    """What a variant changes, without the sections' names."""
    return ", ".join(line.split(".", 1)[1].replace(" -> ", " → ") for line in variant["changed"])


def random_name(results: Mapping[str, Any]) -> str:
    """Name of the mean of the untrained networks."""
    return f"mean of {len(results['random'])} random initialisations"


def cells(records: Mapping[str, Any], layers: Sequence[str], sign: str = "") -> list[str]:
    """A cell for each layer: percent with the interval in brackets, or blank."""
    return [_cell(records[layer], sign) if layer in records else "" for layer in layers]


def _cell(record: Mapping[str, Any], sign: str) -> str:
    mean, low, high = (round(100 * value, 1) + 0.0 for value in (record["accuracy"], *record["interval"]))
    return f"{mean:{sign}.1f} [{low:.1f}, {high:.1f}]"


def title(results: Mapping[str, Any]) -> str:
    """One line over the table: what was done, on which images."""
    dataset, protocol = results["dataset"], results["protocol"]
    what, images = {"compare": ("Rivals", "test"), "ablate": ("Ablations", "validation")}[results["kind"]]
    return (
        f"{what} ({protocol['name']} on {dataset['name']}: {dataset['train_images']:,} training, "
        f"{dataset['test_images']:,} {images} images, {len(dataset['classes'])} classes)"
    )


def caption(results: Mapping[str, Any]) -> str:
    """What the numbers are and are not."""
    return {"compare": _compare_caption, "ablate": _ablate_caption}[results["kind"]](results)


def _ablate_caption(results: Mapping[str, Any]) -> str:
    dataset = results["dataset"]
    return (
        f"Accuracy on validation images ({dataset['test_split']}), never on test images: choices are made with these "
        f"figures. {_probe(results)}, trained on {dataset['train_split']}; {_pretraining(results)}. Variants: paired "
        f"differences to the base, in points. {_intervals(results, 'validation')}"
    )


def _compare_caption(results: Mapping[str, Any]) -> str:
    plan, dataset = results["plan"], results["dataset"]
    batches = ", ".join(f"{stage} {rate['batch_size']}" for stage, rate in plan["rates"].items())
    return (
        f"Accuracy on test images ({dataset['test_split']}). {_probe(results)}, trained on {dataset['train_split']}; "
        f"{_pretraining(results)}, of supervised training {dataset['train_split']}. Each was trained for as many steps "
        f"as fit into {plan['budget_minutes']:g} minutes at rates that were measured in turns before, ours with "
        f"{100 * plan['autoencoder_share']:g} % of the time for stage 1; minutes are what the training then took. "
        f"Images a step: {batches}. The encoder's layers are its own and stand beside the backbone's of the same number. "
        f"{_intervals(results, 'test')}"
    )


def _probe(results: Mapping[str, Any]) -> str:
    protocol = results["protocol"]
    return (
        f"Linear classifier ({protocol['classifier']}) on frozen features, {protocol['pool']}-pooled to about "
        f"{protocol['dimensions']:,} dimensions and standardised, regularisation chosen on "
        f"{100 * protocol['validation']:g} % of the training images"
    )


def _pretraining(results: Mapping[str, Any]) -> str:
    seen = results["pretraining"]
    among = f", {seen['test_images']:,} of those that are tested among them" if seen["test_images"] else ""
    return f"images of pre-training {seen['split']} ({seen['images']:,}, without labels{among})"


def _intervals(results: Mapping[str, Any], images: str) -> str:
    return (
        f"In brackets the {100 * results['protocol']['confidence']:g} % bootstrap interval over {images} images. "
        "One pre-training seed each: another seed's figures may differ by more than the intervals say."
    )
