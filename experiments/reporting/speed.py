"""Tables of the programs in `experiments` that measure speed.

A results file holds the rows of one table, the date, the hardware and the command. Ratios and shares of time are
fractions.
"""

import datetime
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.reporting import results as result_files
from experiments.reporting.markdown import number, percent
from lts.utils.markdown import table
from lts.utils.streams import print_result

Rows = list[list[str]]
COSTS = ("scalars", "pictures", "histograms", "checkpoint")  # shares of the time at default intervals


def describe_machine(program: str) -> dict[str, Any]:
    """Return the fields of every benchmark `experiments.PROGRAM`."""
    from lts.utils import provenance  # NB: imports TensorFlow, which `experiments.report` must not wait for

    return {
        "date": datetime.date.today().isoformat(),
        "hardware": provenance.hardware(),
        "commit": provenance.commit(),
        "command": " ".join([f"python -m experiments.{program}", *sys.argv[1:]]),
    }


def write(results: Mapping[str, Any], output: str) -> None:
    """Write results.md and results.json; print the table."""
    text = markdown(results)
    result_files.write(output, results, markdown)
    print_result(f"\n{text}\nwritten to {output}")


def markdown(results: Mapping[str, Any]) -> str:
    """Return title and table as Markdown."""
    return f"{title(results)}:\n\n{table(TABLES[results['kind']](results))}\n"


def title(results: Mapping[str, Any]) -> str:
    """Return one line: the benchmark and its date."""
    names = {
        "step_speed": "Training steps against the convolution peak",
        "step_profile": "Kinds of operation in a training step",
        "step_comparison": "Training steps against those of another commit",
        "loop_speed": "The training loop against the bare step",
        "extraction_speed": "Extraction against the bare forward pass",
        "photograph_speed": "Photographs of 12 megapixels against small files",
    }
    return f"{names[results['kind']]} ({results['date']})"


def step_table(results: Mapping[str, Any]) -> Rows:
    """Return a row per work and precision."""
    rows = [["", "precision", "images/s", "GFLOP/image", "GFLOP/s", "of the peak", "× float32"]]
    # The convolution peak has no images, so some of its cells are blank.
    for row in results["rows"]:
        rows.append(
            [
                row["work"],
                row["precision"],
                number(row["images_per_second"]),
                _digits(row["gflop_per_image"], 2),
                _digits(row["gflop_per_second"], 0),
                "" if row["share_of_peak"] is None else f"{100 * row['share_of_peak']:.0f} %",
                _digits(row["times_float32"], 2),
            ]
        )
    return rows


def profile_table(results: Mapping[str, Any]) -> Rows:
    """Return a row per kind of operation: its share and milliseconds."""
    columns = results["rows"]
    rows = [["", *[f"{column['stage']}, {column['precision']}" for column in columns]]]
    for kind in columns[0]["kinds"]:
        cells = []
        for column in columns:
            seconds = column["kinds"][kind]
            cells.append(f"{100 * seconds / column['seconds']:.1f} % ({1000 * seconds:.1f} ms)")
        rows.append([kind, *cells])
    rows.append(["step", *[f"{1000 * column['seconds']:.0f} ms" for column in columns]])
    return rows


def comparison_table(results: Mapping[str, Any]) -> Rows:
    """Return a row per preset, stage and precision."""
    rows = [["preset", "step", "precision", "images/s", "× the other commit", "single rounds", "× in CPU seconds"]]
    for row in results["rows"]:
        low, high = row["speedup_range"]
        rows.append(
            [
                row["preset"],
                row["stage"],
                row["precision"],
                number(row["images_per_second"]),
                _digits(row["speedup"], 2),
                f"{low:.2f} to {high:.2f}",
                _digits(row["cpu_speedup"], 2),
            ]
        )
    return rows


def loop_table(results: Mapping[str, Any]) -> Rows:
    """Return a row per stage, with monitoring costs."""
    rows = [["stage", "bare step, images/s", "loop, images/s", "ratio", "median of turns", "single turns", *COSTS]]
    for row in results["rows"]:
        rows.append(
            [
                row["stage"],
                number(row["bare_images_per_second"]),
                number(row["loop_images_per_second"]),
                f"{percent(row['ratio'])} %",
                f"{percent(row['median_ratio'])} %",
                _range(row["ratio_range"]),
                *[f"{100 * row['costs'][name]:.2f} %" for name in COSTS],
            ]
        )
    return rows


def extraction_table(results: Mapping[str, Any]) -> Rows:
    """Return a row per run of the benchmark."""
    columns = ["bare, images/s", "extraction, images/s", "ratio, median", "single rounds", "ratio of CPU seconds"]
    rows = [["model", "layer, pool", "images", "rounds", *columns]]
    for row in results["rows"]:
        rows.append(
            [
                row["model"],
                f"{row['layer']}, {row['pool']}",
                f"{row['images']:,}",
                str(row["rounds"]),
                _digits(row["bare_images_per_second"], 0),
                _digits(row["extraction_images_per_second"], 0),
                f"{percent(row['ratio'])} %",
                _range(row["ratio_range"]),
                f"{percent(row['cpu_ratio'])} %",
            ]
        )
    return rows


def photograph_table(results: Mapping[str, Any]) -> Rows:
    """Return a row per pass, training loop and extraction."""
    rows = [["work", "images per CPU second", "ratio, median", "single rounds", "cosine of features, median", "range"]]
    # Opening is measured once, so it has no ratio.
    for row in results["rows"]:
        low, high = row.get("cosine_range", (None, None))
        rows.append(
            [
                row["work"],
                number(row["images_per_cpu_second"]),
                f"{percent(row['ratio'])} %" if "ratio" in row else "",
                _range(row["ratio_range"]) if "ratio" in row else "",
                _digits(row.get("cosine"), 4),
                "" if low is None else f"{low:.4f} to {high:.4f}",
            ]
        )
    return rows


TABLES = {
    "step_speed": step_table,
    "step_profile": profile_table,
    "step_comparison": comparison_table,
    "loop_speed": loop_table,
    "extraction_speed": extraction_table,
    "photograph_speed": photograph_table,
}


def _range(ends: Sequence[float]) -> str:
    low, high = ends
    return f"{percent(low)} to {percent(high)} %"


def _digits(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
