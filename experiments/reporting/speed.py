"""Tables of the programs in `experiments` that measure speed.

A results file holds the rows of one table, the date, the hardware and the command. Ratios and shares of time are
fractions.
"""

import datetime
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from experiments.reporting import results as result_files
from experiments.reporting.markdown import number, percent
from lts.utils.markdown import table
from lts.utils.streams import print_result

Rows = list[list[str]]
STAGE_TITLES = {"autoencoder": "stage 1: autoencoder", "gan": "stage 2: repair network and discriminator"}
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
    """Write results.json, results.md and, where there is one, results.png; print the table."""
    text = markdown(results)
    result_files.write(output, results, markdown, PLOTS.get(results["kind"]))
    print_result(f"\n{text}\nwritten to {output}")


def markdown(results: Mapping[str, Any]) -> str:
    """Return title and table as Markdown."""
    return f"{title(results)}:\n\n{table(TABLES[results['kind']](results))}\n"


def title(results: Mapping[str, Any]) -> str:
    """Return one line: the benchmark and its date."""
    names = {
        "step_speed": "Training steps against the convolution peak",
        "step_profile": "Kinds of operation in a training step",
        "step_comparison": "Training steps against those of another version",
        "step_cost": "Training steps at several sizes",
        "step_estimate": "What GPUs should reach, by arithmetic",
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
    other = {"checkout": "other commit", "release": "release, float32", "xla": "XLA"}[results["other"]]
    rows = [["preset", "step", "precision", "images/s", f"× the {other}", "single rounds", "× in CPU seconds"]]
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


def cost_table(results: Mapping[str, Any]) -> Rows:
    """Return a row per stage and image size, a column per batch size."""
    batch_sizes = sorted({row["batch_size"] for row in results["rows"]})
    rows = [["step", "precision", "pixels", "GFLOP/image", *[f"batch {size}" for size in batch_sizes]]]
    cells: dict[tuple, dict[int, str]] = {}
    for row in results["rows"]:
        head = (row["stage"], row["precision"], str(row["image_size"]), _digits(row["gflop_per_image"], 2))
        cell = f"{row['images_per_second']:.0f} images/s, {row['peak_memory_gb']:.1f} GB"
        cells.setdefault(head, {})[row["batch_size"]] = cell
    for head, by_batch_size in cells.items():
        rows.append([*head, *[by_batch_size.get(size, "") for size in batch_sizes]])
    return rows


def cost_plot(results: Mapping[str, Any]) -> Figure:
    """Draw images/s and memory against the batch size: a column per stage, a line per image size."""
    stages = list(dict.fromkeys(row["stage"] for row in results["rows"]))
    figure = Figure(figsize=(4 * len(stages), 6), layout="constrained")
    grid = figure.subplots(2, len(stages), sharex=True, sharey="row", squeeze=False)
    measures = (("images_per_second", "images/s"), ("peak_memory_gb", "peak memory of the process, GB"))
    for column, stage in enumerate(stages):
        selected = [row for row in results["rows"] if row["stage"] == stage]
        for axes, (field, label) in zip(grid[:, column], measures, strict=True):
            for size in dict.fromkeys(row["image_size"] for row in selected):
                points = [row for row in selected if row["image_size"] == size]
                batch_sizes = [row["batch_size"] for row in points]
                axes.plot(batch_sizes, [row[field] for row in points], marker="o", label=f"{size} pixels")
            axes.set_xscale("log", base=2)
            axes.set_yscale("log", base=2)
            axes.xaxis.set_major_formatter("{x:.0f}")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.set_ylabel(label if column == 0 else "")
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
        grid[0, column].set_title(STAGE_TITLES[stage], fontsize=10)
        grid[1, column].set_xlabel("images per step")
    grid[0, -1].legend(fontsize=8)
    figure.suptitle(f"Preset {results['preset']}, {results['rows'][0]['precision']}, {results['hardware']}", fontsize=9)
    return figure


def estimate_table(results: Mapping[str, Any]) -> Rows:
    """Return a row per stage and precision, with images/s of each GPU."""
    gpus = list(results["rows"][0]["estimated_images_per_second"])
    header = ["step", "precision", "pixels", "batch", "GFLOP/image", "GB moved/image", "MB of gradients"]
    rows = [[*header, *[f"{gpu}, images/s" for gpu in gpus]]]
    for row in results["rows"]:
        rows.append(
            [
                row["stage"],
                row["precision"],
                str(row["image_size"]),
                str(row["batch_size"]),
                _digits(row["gflop_per_image"], 2),
                _digits(row["gigabytes_per_image"], 2),
                _digits(row["gradient_megabytes"], 0),
                *[f"{row['estimated_images_per_second'][gpu]:,.0f}" for gpu in gpus],
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
    "step_cost": cost_table,
    "step_estimate": estimate_table,
    "loop_speed": loop_table,
    "extraction_speed": extraction_table,
    "photograph_speed": photograph_table,
}


PLOTS = {"step_cost": cost_plot}


def _range(ends: Sequence[float]) -> str:
    low, high = ends
    return f"{percent(low)} to {percent(high)} %"


def _digits(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
