"""Tables made of results files and of published figures; what was not measured stays blank.

A table is a list of rows of text, header first.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.reporting import comparison_tables
from experiments.reporting.results import ReportError, Results
from lts import config as configs

Rows = list[list[str]]
COMPARISONS = {"compare": comparison_tables.compare_table, "ablate": comparison_tables.ablate_table}


def markdown(rows: Rows) -> str:
    """The table as Markdown, without a line break at its end."""
    lines = ["|" + "".join(f" {cell} |" if cell else " |" for cell in _escaped(row)) for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _escaped(row: Sequence[str]) -> list[str]:
    return [cell.replace("|", "\\|") for cell in row]


def groups(results: Iterable[Results]) -> list[list[Results]]:
    """Results that one table can hold, together: of one kind, on the same images, against the same."""
    found: dict[str, list[Results]] = {}
    for each in results:
        found.setdefault(json.dumps([each.kind, _setting(each)], sort_keys=True), []).append(each)
    return list(found.values())


def table(results: Sequence[Results]) -> Rows:
    """One table of one group.

    Raises:
      ReportError: results that one table cannot hold.
    """
    if len(groups(results)) != 1:
        names = ", ".join(each.name for each in results)
        raise ReportError(f"one table cannot hold results of different models, images or baselines: {names}")
    if results[0].kind in COMPARISONS:
        return COMPARISONS[results[0].kind](results[0].values)
    makers = {"probe": probe_table, "few_shot": few_shot_table, "spotting": spotting_table, "voc": voc_table}
    make = makers[results[0].kind]
    return make([each.values for each in results])


def title(results: Sequence[Results]) -> str:
    """A line over the table of one group."""
    values = results[0].values
    if results[0].kind == "spotting":
        return f"Spotting artifacts ({values['images']['number']:,} images)"
    if results[0].kind in COMPARISONS:
        return comparison_tables.title(values)
    if results[0].kind == "voc":
        return _voc_title(values)
    dataset, protocol = values["dataset"], values["protocol"]
    name = protocol.get("name") or f"{protocol.get('classifier', 'linear')} probe"
    return (
        f"Accuracy, percent ({name} on {dataset['name']}: {dataset['train_images']:,} training, "
        f"{dataset['test_images']:,} test images, {len(dataset['classes'])} classes)"
    )


def _setting(results: Results) -> list[Any]:
    values = results.values
    if results.kind == "spotting":
        return [values["model"]["fingerprint"], values["images"]["fingerprint"]]
    if results.kind in COMPARISONS:
        return [results.name]  # a table of its own
    dataset = values["dataset"]
    images = [dataset[key] for key in ("name", "train_fingerprint", "test_fingerprint")]
    if results.kind == "voc":
        baselines = [model["fingerprint"] for model in values["models"] if model["baseline"]]
        return [values["task"], *images, values["protocol"], values["classes"], baselines]
    baselines = [model["fingerprint"] for model in values["baselines"]]
    return [*images, values["protocol"], list(values["model"]["layers"]), baselines]


def probe_table(probes: Sequence[Mapping[str, Any]]) -> Rows:
    """Accuracies by layer: the baselines' mean, then each model and its paired difference to it.

    Args:
      probes: results of `experiments.linear_probe` on the same images against the same baselines; the first one's
        model is set in bold.

    Returns:
      The table, in percent; differences with their interval.
    """
    layers = list(probes[0]["model"]["layers"])
    rows = [["", *layers]]
    if probes[0]["baselines"]:
        rows.append([_baselines_name(probes[0]["baselines"]), *_accuracies(probes[0].get("baseline_mean", {}), layers)])
    for index, probe in enumerate(probes):
        row = [model_name(probe["model"]), *_accuracies(probe["model"]["layers"], layers)]
        rows.append(_bold(row) if index == 0 else row)
        if probe["baselines"]:
            rows.append(["difference (paired)", *_differences(probe.get("difference", {}), layers)])
    return rows


def few_shot_table(results: Sequence[Mapping[str, Any]]) -> Rows:
    """As `probe_table`, once for each share of the labels, which stands before the first row.

    Args:
      results: of `experiments.few_shot` on the same images against the same baselines.
    """
    rows = []
    for share in next(iter(results[0]["model"]["layers"].values())):
        probes = []
        for each in results:
            of_share = {
                key: {layer: record[share] for layer, record in each.get(key, {}).items()}
                for key in ("baseline_mean", "difference")
            }
            layers = {layer: record[share] for layer, record in each["model"]["layers"].items()}
            probes.append({**each, **of_share, "model": {**each["model"], "layers": layers}})
        header, first, *rest = probe_table(probes)
        rows += [*([] if rows else [header]), [f"{share} of the labels: {first[0]}", *first[1:]], *rest]
    return rows


def model_name(model: Mapping[str, Any]) -> str:
    """A probed model in words: its preset and the flags in which it differs from it; its folder if that is not known.

    Args:
      model: "model" or one of "baselines" of a results file.
    """
    description = model["description"]
    config = description.get("config")
    if not config:
        return f"`{model['path']}`"
    flags = _changed_flags(config)
    if description.get("seed", 1) != 1:
        flags.append(f"--seed={description['seed']}")
    if description.get("averaged"):
        flags.append("--weights=averaged")
    untrained = {"random": "random initialisation", "from scratch": "supervised from scratch"}
    words = [untrained.get(description.get("weights"), "ours")]
    return ", ".join([*words, f"preset `{config['preset']}`", *(f"`{flag}`" for flag in flags)])


def _changed_flags(config: Mapping[str, Any]) -> list[str]:
    """Flags that make a preset this configuration."""
    if config["preset"] not in configs.PRESETS:
        return []
    usual = json.loads(configs.preset(config["preset"]).to_json())
    flags = []
    for section in (*configs.SECTIONS, *configs.STAGES):
        for name, value in config.get(section, {}).items():
            if value == usual[section].get(name, value):
                continue
            if isinstance(value, bool):
                flags.append(f"--{name}" if value else f"--no{name}")
            else:
                flags.append(f"--{name}={','.join(map(str, value)) if isinstance(value, list) else value}")
    return list(dict.fromkeys(flags))


def _baselines_name(baselines: Sequence[Mapping[str, Any]]) -> str:
    if len(baselines) == 1:
        return model_name(baselines[0])
    random = all(model["description"].get("weights") == "random" for model in baselines)
    return f"mean of {len(baselines)} {'random initialisations' if random else 'baselines'}"


def voc_table(results: Sequence[Mapping[str, Any]]) -> Rows:
    """Headline and classes of a VOC task: the baselines' mean, then each model and its paired difference to it.

    Args:
      results: of one of the VOC binaries, on the same images against the same baselines; the first one's model is set
        in bold.

    Returns:
      The table, in percent; the headlines with their interval.
    """
    first = results[0]
    rows = [["", first["measure"], *first["classes"]]]

    def row(name: str, record: Mapping[str, Any]) -> list[str]:
        return [name, _interval(record), *(_number(v if v is None else 100 * v) for v in record["per_class"].values())]

    baselines = [model for model in first["models"] if model["baseline"]]
    if baselines:
        rows.append(row(_baselines_name(baselines), first["baseline_mean"]))
    for index, each in enumerate(results):
        model = each["models"][0]
        rows.append(_bold(row(model_name(model), model)) if index == 0 else row(model_name(model), model))
        if baselines:
            rows.append(["difference (paired)", _interval(model["difference"], "+"), *[""] * len(first["classes"])])
    return rows


def _voc_title(values: Mapping[str, Any]) -> str:
    dataset = values["dataset"]
    return (
        f"{values['measure']}, percent ({values['task']}, {values['protocol']['name']} on {dataset['name']}: "
        f"{dataset['train_images']:,} training, {dataset['test_images']:,} test images, "
        f"{len(values['classes'])} classes)"
    )


def _interval(record: Mapping[str, Any], sign: str = "") -> str:
    """A value in percent with its interval."""
    return f"{_number(100 * record['value'], sign)} [{', '.join(_number(100 * end) for end in record['interval'])}]"


def spotting_table(evaluations: Sequence[Mapping[str, Any]]) -> Rows:
    """Figures of the evaluation of spotting, a column for each amount of damage.

    Args:
      evaluations: of one model on the same images, as in evaluation.json, in any order.

    Returns:
      The table; beside figures that depend on the share of dropped cells, what a guess would reach.
    """
    evaluations = sorted(evaluations, key=lambda each: each["protocol"]["keep_probability"])
    rows = [["cells kept", *(f"{100 * each['protocol']['keep_probability']:g} %" for each in evaluations)]]

    def add(name: str, cells: Iterable[str]) -> None:
        rows.append([name, *cells])

    for untouched in ("reconstruction", "photograph"):
        pairs = [_pair(each, untouched) for each in evaluations]
        add(f"{untouched} or repaired, AUROC", [_bracketed(p.get("auroc"), p.get("interval")) for p in pairs])
    maps = [each["mask_map"] for each in evaluations]
    add("dropped cells among those of repaired images: AUROC of the map", [_figure(m["auroc"]) for m in maps])
    guess = [f"({m['base_rate']:.3f})" for m in maps]
    add(
        "average precision (a guess: the share of dropped cells)",
        [f"{_figure(m['average_precision'])} {base}" for m, base in zip(maps, guess, strict=True)],
    )
    add(
        f"IoU at threshold {maps[0]['iou'].get('threshold', 0.5):g} (all cells called dropped)",
        [f"{_figure(m['iou'])} {base}" for m, base in zip(maps, guess, strict=True)],
    )
    both = [each["mask_map_of_both"]["auroc"] for each in evaluations]
    add("dropped cells among those of both: AUROC of the map", map(_figure, both))
    called = [each["kinds"]["photograph"]["called_repaired"] for each in evaluations]
    add("untouched photographs called repaired", [f"{100 * share:.1f} %" for share in called])
    return rows


def _pair(evaluation: Mapping[str, Any], untouched: str) -> Mapping[str, Any]:
    """The figures of telling one kind of untouched images from repaired ones; empty if they were not measured."""
    pairs = [pair for pair in evaluation["pairs"] if (pair["untouched"], pair["changed"]) == (untouched, "repaired")]
    return pairs[0] if pairs else {}


def matches_protocol(results: Results, published: Mapping[str, Any]) -> bool:
    """Whether a results file follows the protocol of a published table, on its test images."""
    if results.kind == "voc":
        return _voc_column(results.values, published) is not None
    if results.kind != "probe" or published["protocol"] is None:
        return False
    protocol, dataset = results.values["protocol"].get("name"), results.values["dataset"]
    ours = (protocol, dataset["name"].removeprefix("tfds:"), dataset["test_split"])
    return ours == (published["protocol"], published["dataset"], published["test_split"])


def _voc_column(values: Mapping[str, Any], published: Mapping[str, Any]) -> str | None:
    """The column of a published table that results of a VOC task belong to, by protocol, splits and numbers of images.

    The name of the data set decides nothing: VOC 2012's masks come in a folder that may be anywhere.
    """
    dataset = values["dataset"]
    ours = {"task": values["task"], "protocol": values["protocol"]["name"], "classes": len(values["classes"])}
    ours |= {key: dataset[key] for key in ("train_split", "test_split", "train_images", "test_images")}
    columns = published.get("voc_protocols", {})
    return next((column for column, wanted in columns.items() if wanted == ours), None)


def _measured(results: Sequence[Results], published: Mapping[str, Any]) -> list[tuple[str, dict[str, float | None]]]:
    """Name, and percent by column, of each model in results that belong to a table; a model's VOC tasks together."""
    found: dict[Any, tuple[str, dict[str, float | None]]] = {}
    for index, each in enumerate(results):
        if each.kind == "voc":
            model, column = each.values["models"][0], _voc_column(each.values, published)
            _, columns = found.setdefault(model["fingerprint"], (model_name(model), {}))
            columns[column] = 100 * model["value"]
        else:
            model = each.values["model"]
            layers = {layer: _percent(record) for layer, record in model["layers"].items()}
            found[index] = (model_name(model), layers)
    return list(found.values())


def published_table(published: Mapping[str, Any], results: Sequence[Results] = ()) -> Rows:
    """Published figures, and ours with the difference to the paper's where they were measured.

    Args:
      published: one table of `result_files.published`.
      results: files to put beside it; those of other protocols or data sets are passed over.

    Returns:
      The table, in percent; a blank row for ours when no results belong to it.
    """
    columns = published["columns"]
    rows = [["", *columns]]
    for row in published["rows"]:
        cells = [row["method"], *map(_number, row["values"])]
        rows.append(_bold(cells) if row["method"] == published["paper"] else cells)
    paper = next(row["values"] for row in published["rows"] if row["method"] == published["paper"])
    ours = _measured([each for each in results if matches_protocol(each, published)], published)
    for name, by_column in ours:
        measured = [by_column.get(column) for column in columns]
        pairs = zip(measured, paper, strict=True)
        differences = [None if None in pair else pair[0] - pair[1] for pair in pairs]
        rows.append(_bold([name, *map(_number, measured)]))
        rows.append(["difference to the paper's", *(_number(value, "+") for value in differences)])
    return rows if ours else [*rows, [f"ours, {published['ours']}", *[""] * len(columns)]]


def _percent(record: Mapping[str, Any] | None) -> float | None:
    return None if record is None or record["accuracy"] is None else 100 * record["accuracy"]


def _accuracies(records: Mapping[str, Any], layers: Sequence[str]) -> list[str]:
    return [_number(_percent(records.get(layer))) for layer in layers]


def _differences(records: Mapping[str, Any], layers: Sequence[str]) -> list[str]:
    cells = []
    for layer in layers:
        ends = [_number(100 * end) for end in records[layer]["interval"]] if layer in records else []
        cells.append(f"{_number(_percent(records[layer]), '+')} [{', '.join(ends)}]" if ends else "")
    return cells


def _number(value: float | None, sign: str = "") -> str:
    """One digit after the point, no minus before a zero; blank for None."""
    return "" if value is None else f"{round(value, 1) + 0.0:{sign}.1f}"


def _figure(figure: Mapping[str, Any]) -> str:
    return _bracketed(figure["value"], figure.get("interval"))


def _bracketed(value: float | None, ends: Sequence[float] | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else "")


def _bold(row: Sequence[str]) -> list[str]:
    return [f"**{cell}**" if cell else "" for cell in row]
