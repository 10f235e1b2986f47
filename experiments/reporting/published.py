"""Tables of published figures next to ours.

The figures are those of experiments/results/published.json. A blank cell is a figure that is not known.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.reporting.markdown import bold, number
from experiments.reporting.results import Results, naming_files
from experiments.reporting.tables import PROBES, model_name
from lts.utils.markdown import Markup

Columns = dict[str, float | None]


def matches_protocol(results: Results, published: Mapping[str, Any]) -> bool:
    """Return whether results follow a table's protocol."""
    with naming_files([results]):
        if results.kind == "voc":
            return _voc_column(results.values, published) is not None
        if results.kind not in PROBES or published["protocol"] is None:
            return False
        dataset = results.values["dataset"]
        name = dataset["name"].removeprefix("tfds:")
        ours = (results.values["protocol"].get("name"), name, dataset["test_split"])
        return ours == (published["protocol"], published["dataset"], published["test_split"])


def published_table(published: Mapping[str, Any], results: Sequence[Results] = ()) -> list[list[str]]:
    """Return published figures and ours.

    Results of other protocols or data sets are skipped. Without any, the row for ours is blank.
    """
    with naming_files(results):
        return _published_table(published, results)


def _published_table(published: Mapping[str, Any], results: Sequence[Results]) -> list[list[str]]:
    columns = published["columns"]
    rows = [["", *columns]]
    for method in published["rows"]:
        row = [method["method"], *_published_cells(method)]
        rows.append(bold(row) if method["method"] == published["paper"] else row)
    ours = _measured([result for result in results if matches_protocol(result, published)], published)
    if not ours:
        return [*rows, [Markup(f"ours, {published['ours']}"), *[""] * len(columns)]]
    # Differences are shown only where both sides are known.
    paper = next(method["values"] for method in published["rows"] if method["method"] == published["paper"])
    for name, by_column in ours:
        measured = [by_column.get(column) for column in columns]
        differences = []
        for our_value, paper_value in zip(measured, paper, strict=True):
            known = our_value is not None and paper_value is not None
            differences.append(number(our_value - paper_value, "+") if known else "")
        rows.append(bold([name, *map(number, measured)]))
        rows.append(["difference to the paper's", *differences])
    return rows


def _published_cells(method: Mapping[str, Any]) -> list[str]:
    """Return the cells of one method's figures."""
    # A figure from a paper that quotes another work is marked.
    deviations = method.get("deviations", [None] * len(method["values"]))
    mark = " (second-hand)" if "second_hand" in method else ""
    row = []
    for value, deviation in zip(method["values"], deviations, strict=True):
        spread = "" if deviation is None else f" ± {number(deviation)}"
        row.append("" if value is None else f"{number(value)}{spread}{mark}")
    return row


def _voc_column(values: Mapping[str, Any], published: Mapping[str, Any]) -> str | None:
    """Return the column of VOC results, or None."""
    # The name of the data set decides nothing, because VOC 2012's masks come in a folder of any name.
    dataset = values["dataset"]
    ours = {
        "task": values["task"],
        "protocol": values["protocol"]["name"],
        "classes": len(values["classes"]),
        "train_split": dataset["train_split"],
        "test_split": dataset["test_split"],
        "train_images": dataset["train_images"],
        "test_images": dataset["test_images"],
    }
    for column, wanted in published.get("voc_protocols", {}).items():
        if wanted == ours:
            return column
    return None


def _measured(results: Sequence[Results], published: Mapping[str, Any]) -> list[tuple[str, Columns]]:
    """Return each model's name and percentages."""
    rows: dict[Any, tuple[str, Columns]] = {}
    for index, result in enumerate(results):
        if result.kind == "voc":
            # The VOC tasks of a model come in three files and share a row.
            model = result.values["models"][0]
            _, columns = rows.setdefault(model["fingerprint"], (model_name(model), {}))
            columns[_voc_column(result.values, published)] = 100 * model["value"]
            continue
        model = result.values["model"]
        columns = {}
        for layer, record in model["layers"].items():
            columns[layer] = None if record["accuracy"] is None else 100 * record["accuracy"]
        rows[index] = (model_name(model), columns)
    return list(rows.values())
