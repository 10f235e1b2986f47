"""Tables from results files.

A table is a list of rows of cells, the header first. `TABLES` says which kinds of results share a table.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from experiments.reporting import comparison, speed
from experiments.reporting.markdown import bold, fraction_interval, percent, percent_interval
from experiments.reporting.results import ReportError, Results, naming_files
from lts import config as configs
from lts.config.stages import STAGES
from lts.utils.markdown import Markup, code, escape
from lts.utils.text import printable

Rows = list[list[str]]
Values = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class TableType:
    """How results become a table."""

    kinds: tuple[str, ...]  # of results that it can hold
    build: Callable[[Sequence[Values]], Rows]  # makes the rows
    title: Callable[[Values], str]  # makes the line above the table
    # What must be the same for all results in a table. None: a table holds one file.
    setting: Callable[[Values], list[Any]] | None = None


def table_type(results: Results) -> str:
    """Return the name in `TABLES` for results."""
    return next(name for name, candidate in TABLES.items() if results.kind in candidate.kinds)


def groups(results: Iterable[Results]) -> list[list[Results]]:
    """Return results in groups that share a table."""
    grouped: dict[str, list[Results]] = {}
    for result in results:
        name = table_type(result)
        setting = TABLES[name].setting
        # NB: accuracies may stand in one table only if images, protocol and baselines are the same.
        with naming_files([result]):
            shared = setting(result.values) if setting else [result.name]
            key = json.dumps([name, shared], sort_keys=True)
        grouped.setdefault(key, []).append(result)
    return list(grouped.values())


def table(results: Sequence[Results]) -> Rows:
    """Return the table of one group of results."""
    if len(groups(results)) != 1:
        names = ", ".join(result.name for result in results)
        raise ReportError(f"one table cannot hold results of different models, images or baselines. Received: {names}")
    with naming_files(results):
        return TABLES[table_type(results[0])].build([result.values for result in results])


def title(results: Sequence[Results]) -> str:
    """Return the line above a group's table."""
    with naming_files(results):
        return TABLES[table_type(results[0])].title(results[0].values)


def probe_table(probes: Sequence[Values]) -> Rows:
    """Return accuracies by layer and paired differences.

    The rows are the baselines' mean, then each model and its difference to the mean. The first model is set in bold.
    """
    layers = list(probes[0]["model"]["layers"])
    rows = [["", *layers]]
    if probes[0]["baselines"]:
        means = probes[0].get("baseline_mean", {})
        rows.append([_baselines_name(probes[0]["baselines"]), *_accuracies(means, layers)])
    for index, probe in enumerate(probes):
        row = [model_name(probe["model"]), *_accuracies(probe["model"]["layers"], layers)]
        rows.append(bold(row) if index == 0 else row)
        if probe["baselines"]:
            rows.append(["difference (paired)", *comparison.layer_cells(probe.get("difference", {}), layers, "+")])
    return rows


def semi_supervised_table(values: Values) -> Rows:
    """Return accuracies by share of the labels: fine-tuned baselines, then labels in pre-training."""
    shares = list(values["model"]["layers"])
    rows = [["", *shares]]
    for baseline in values["baselines"]:
        rows.append([Markup(f"{model_name(baseline)}, fine-tuned"), *_accuracies(baseline["layers"], shares)])
    rows.append(bold(["labels in pre-training", *_accuracies(values["model"]["layers"], shares)]))
    if values["baselines"]:
        rows.append(["difference (paired)", *comparison.layer_cells(values["difference"], shares, "+")])
    return rows


def _accuracies(records: Values, layers: Sequence[str]) -> list[str]:
    return [percent(records[layer]["accuracy"]) if layer in records else "" for layer in layers]


def _probe_title(values: Values) -> str:
    dataset = values["dataset"]
    protocol = values["protocol"]
    return (
        f"Accuracy, percent ({protocol.get('name') or protocol['classifier']} on {printable(dataset['name'])}: "
        f"{dataset['train_images']:,} training, {dataset['test_images']:,} test images, "
        f"{len(dataset['classes'])} classes)"
    )


def _probe_setting(values: Values) -> list[Any]:
    baselines = [model["fingerprint"] for model in values["baselines"]]
    return [*_images(values), values["protocol"], list(values["model"]["layers"]), baselines]


def _images(values: Values) -> list[str]:
    return [values["dataset"][field] for field in ("name", "train_fingerprint", "test_fingerprint")]


def few_shot_table(results: Sequence[Values]) -> Rows:
    """Return a `probe_table` per share of labels."""
    shares = list(next(iter(results[0]["model"]["layers"].values())))
    # One header for all; the first row of each share names it.
    rows = []
    for share in shares:
        header, first, *rest = probe_table([_at_share(result, share) for result in results])
        if not rows:
            rows.append(header)
        rows.append([Markup(f"{share} of the labels: {escape(first[0])}"), *first[1:]])
        rows.extend(rest)
    return rows


def _at_share(results: Values, share: str) -> dict[str, Any]:
    """Return few-shot results at one share."""
    # The result has the form of a linear probe's.
    values = dict(results)
    for name in ("baseline_mean", "difference"):
        values[name] = {layer: records[share] for layer, records in results.get(name, {}).items()}
    model_layers = {layer: records[share] for layer, records in results["model"]["layers"].items()}
    values["model"] = dict(results["model"], layers=model_layers)
    return values


def model_name(model: Values) -> str:
    """Return a model's training, preset and changed flags.

    For example "ours, preset `small`, `--seed=2`"; or the folder where the configuration is not known.
    """
    description = model["description"]
    config = description.get("config")
    if not config:
        return code(model["path"])
    name = description.get("stage", "gan")
    stage = STAGES.get(name)  # None: of a later version
    flags = _changed_flags(config, stage.unused if stage else ())
    if description.get("seed", 1) != 1:
        flags.append(code(f"--seed={description['seed']}"))
    if description.get("averaged"):
        flags.append(code("--weights=averaged"))
    untrained = {"random": "random initialisation", "from scratch": "supervised from scratch"}
    origin = untrained.get(description.get("weights"), stage.title if stage else name)
    return Markup(", ".join([origin, f"preset {code(config['preset'])}", *flags]))


def _changed_flags(config: Values, unused: Sequence[str]) -> list[str]:
    """Return the flags that change the preset, set as code, without those that have no effect."""
    if config["preset"] not in configs.PRESETS:
        return []
    preset = json.loads(configs.preset(config["preset"]).to_json())
    flags = []
    for section in (*configs.SECTIONS, *configs.SCHEDULES):
        for name, value in config.get(section, {}).items():
            # A field that the preset does not have is of an older version, and no flag.
            if name in unused or value == preset[section].get(name, value):
                continue
            if isinstance(value, bool):
                flags.append(f"--{name}" if value else f"--no{name}")
            elif isinstance(value, list):
                flags.append(f"--{name}={','.join(map(str, value))}")
            else:
                flags.append(f"--{name}={value}")
    # Both stages may have the same flag. Where its values differ, the first is that of stage 1.
    flags = list(dict.fromkeys(flags))
    names = [flag.partition("=")[0] for flag in flags]
    in_stage_1 = [name in names[index + 1 :] for index, name in enumerate(names)]
    return [code(flag) + " in stage 1" * first for flag, first in zip(flags, in_stage_1, strict=True)]


def _baselines_name(baselines: Sequence[Values]) -> str:
    if len(baselines) == 1:
        return model_name(baselines[0])
    random = all(model["description"].get("weights") == "random" for model in baselines)
    return f"mean of {len(baselines)} {'random initialisations' if random else 'baselines'}"


def voc_table(results: Sequence[Values]) -> Rows:
    """Return the table of a VOC task, as `probe_table`."""
    # Only the measure has an interval, so differences of single classes stay blank.
    first = results[0]
    blank = [""] * len(first["classes"])
    rows = [["", first["measure"], *first["classes"]]]
    baselines = [model for model in first["models"] if model["baseline"]]
    if baselines:
        rows.append(_voc_row(_baselines_name(baselines), first["baseline_mean"]))
    for index, result in enumerate(results):
        model = result["models"][0]
        row = _voc_row(model_name(model), model)
        rows.append(bold(row) if index == 0 else row)
        if baselines:
            difference = model["difference"]
            rows.append(
                ["difference (paired)", percent_interval(difference["value"], difference["interval"], "+"), *blank]
            )
    return rows


def _voc_row(name: str, record: Values) -> list[str]:
    classes = [percent(value) for value in record["per_class"].values()]
    return [name, percent_interval(record["value"], record["interval"]), *classes]


def _voc_title(values: Values) -> str:
    dataset = values["dataset"]
    return (
        f"{values['measure']}, percent ({values['task']}, {values['protocol']['name']} on "
        f"{printable(dataset['name'])}: {dataset['train_images']:,} training, {dataset['test_images']:,} test images, "
        f"{len(values['classes'])} classes)"
    )


def _voc_setting(values: Values) -> list[Any]:
    baselines = [model["fingerprint"] for model in values["models"] if model["baseline"]]
    return [values["task"], *_images(values), values["protocol"], values["classes"], baselines]


def spotting_table(evaluations: Sequence[Values]) -> Rows:
    """Return spotting, a column per amount of damage."""
    # From much damage to little.
    evaluations = sorted(evaluations, key=lambda values: values["protocol"]["keep_probability"])
    threshold = evaluations[0]["mask_map"]["iou"].get("threshold", 0.5)
    names = [
        "cells kept",
        "reconstruction or repaired, AUROC",
        "photograph or repaired, AUROC",
        "dropped cells among those of repaired images: AUROC of the map",
        "average precision (a guess: the share of dropped cells)",
        f"IoU at threshold {threshold:g} (all cells called dropped)",
        "dropped cells among those of both: AUROC of the map",
        "untouched photographs called repaired",
    ]
    columns = [_spotting_column(values) for values in evaluations]
    return [list(row) for row in zip(names, *columns, strict=True)]


def _spotting_column(values: Values) -> list[str]:
    """Return the cells of one evaluation."""
    cell_map = values["mask_map"]
    # Two figures depend on the share of dropped cells, so the figure of a guess stands next to them.
    guess = f"({cell_map['base_rate']:.3f})"
    return [
        f"{100 * values['protocol']['keep_probability']:g} %",
        _pair_auroc(values, "reconstruction"),
        _pair_auroc(values, "photograph"),
        _figure(cell_map["auroc"]),
        f"{_figure(cell_map['average_precision'])} {guess}",
        f"{_figure(cell_map['iou'])} {guess}",
        _figure(values["mask_map_of_both"]["auroc"]),
        f"{percent(values['kinds']['photograph']['called_repaired'])} %",
    ]


def _pair_auroc(values: Values, untouched: str) -> str:
    """Return AUROC against repaired images, or a blank."""
    for pair in values["pairs"]:
        if (pair["untouched"], pair["changed"]) == (untouched, "repaired"):
            return fraction_interval(pair["auroc"], pair["interval"])
    return ""


def _figure(record: Values) -> str:
    return fraction_interval(record["value"], record.get("interval"))


def _spotting_title(values: Values) -> str:
    return f"Spotting artifacts ({values['images']['number']:,} images)"


def _spotting_setting(values: Values) -> list[Any]:
    return [values["model"]["fingerprint"], values["images"]["fingerprint"]]


def shortcuts_table(results: Sequence[Values]) -> Rows:
    """Return what the discriminator looks at, a column per model."""
    columns = [_shortcuts_column(values) for values in results]
    header = ["AUROC, reconstruction or repaired", *(model_name(values["model"]) for values in results)]
    return [header, *([name, *(column[name] for column in columns)] for name in columns[0])]


def _shortcuts_column(values: Values) -> dict[str, str]:
    """Return the cells of one model by the name of their row."""
    column = {
        "the discriminator's score": _auroc(values["score"]["all"]),
        "the same, on the images that test the probes": _auroc(values["score"]["tested"]),
    }
    for layer, record in values["layers"].items():
        column[f"linear probe of {layer} alone (a cell sees {record['receptive_field']} pixels)"] = _auroc(record)
    for record in values["filters"]:
        column[f"score: {record['label']}"] = _auroc(record)
    for record in values["cells"]:
        column[f"score: {record['dropped']} of {record['cells']} cells dropped"] = _auroc(record)
    found = values["occlusion"]["dropped_cells"]
    column["dropped cells of repaired images, by the occlusion map"] = _auroc(found) if found else ""
    return column


def _auroc(record: Values) -> str:
    return fraction_interval(record["auroc"], record["interval"])


def _shortcuts_title(values: Values) -> str:
    return f"What the discriminator looks at ({values['images']['number']:,} images)"


def _shortcuts_setting(values: Values) -> list[Any]:
    fields = [record["receptive_field"] for record in values["layers"].values()]
    cells = [record["dropped"] for record in values["cells"]]
    return [values["images"]["fingerprint"], values["protocol"], list(values["layers"]), fields, cells]


def _single(build: Callable[[Values], Rows]) -> Callable[[Sequence[Values]], Rows]:
    """Return `build` for a list of one."""
    return lambda results: build(results[0])


PROBES = ("linear_probe", "sgd_probe", "knn_probe", "finetune")
TABLES: Mapping[str, TableType] = {
    "probe": TableType(PROBES, probe_table, _probe_title, _probe_setting),
    "semi_supervised": TableType(("semi_supervised",), _single(semi_supervised_table), _probe_title),
    "few_shot": TableType(("few_shot",), few_shot_table, _probe_title, _probe_setting),
    "spotting": TableType(("spotting",), spotting_table, _spotting_title, _spotting_setting),
    "shortcuts": TableType(("shortcuts",), shortcuts_table, _shortcuts_title, _shortcuts_setting),
    "voc": TableType(("voc",), voc_table, _voc_title, _voc_setting),
    "compare": TableType(("compare",), _single(comparison.compare_table), comparison.title),
    "ablate": TableType(("ablate",), _single(comparison.ablate_table), comparison.title),
    "step_speed": TableType(("step_speed",), _single(speed.step_table), speed.title),
    "step_profile": TableType(("step_profile",), _single(speed.profile_table), speed.title),
    "step_comparison": TableType(("step_comparison",), _single(speed.comparison_table), speed.title),
    "step_cost": TableType(("step_cost",), _single(speed.cost_table), speed.title),
    "step_estimate": TableType(("step_estimate",), _single(speed.estimate_table), speed.title),
    "loop_speed": TableType(("loop_speed",), _single(speed.loop_table), speed.title),
    "extraction_speed": TableType(("extraction_speed",), _single(speed.extraction_table), speed.title),
    "photograph_speed": TableType(("photograph_speed",), _single(speed.photograph_table), speed.title),
}
