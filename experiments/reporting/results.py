"""Results files and published figures.

Every results file says its "kind". `REQUIRED` lists what a file of a kind must hold.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from experiments.probing import cache
from lts.utils import files, outputs
from lts.utils.errors import UserError, first_line
from lts.utils.json_files import JsonError, parse_json
from lts.utils.text import printable
from lts.visualization import figures

Values = Mapping[str, Any]
SEEN = "may_have_seen_test_images"  # field of results.json: folders of models
RESULTS = "results.json"
WRITTEN = ("results.md", "results.png")  # written next to it
PUBLISHED = pathlib.Path(__file__).resolve().parents[1] / "results" / "published.json"

# Fields by kind. A "*" stands for every entry of a list or a dictionary.
IMAGES = """
    dataset.name dataset.train_images dataset.test_images dataset.test_split dataset.train_fingerprint
    dataset.test_fingerprint
"""
PROBE = f"""
    {IMAGES} dataset.classes protocol model.path model.description
    baselines.*.path baselines.*.fingerprint baselines.*.description
"""
BENCHMARK = "date hardware command"
REQUIRED: Mapping[str, str] = {
    "linear_probe": f"{PROBE} model.layers.*.accuracy",
    "sgd_probe": f"{PROBE} model.layers.*.accuracy",
    "knn_probe": f"{PROBE} model.layers.*.accuracy",
    "finetune": f"{PROBE} model.layers.*.accuracy",
    "semi_supervised": f"{PROBE} model.layers.*.accuracy",
    "few_shot": f"{PROBE} protocol.shares protocol.draws model.layers.*.*.accuracy",
    "spotting": """
        model.fingerprint images.number images.fingerprint protocol.keep_probability pairs.*.auroc pairs.*.interval
        mask_map.auroc.value mask_map.iou.value mask_map.average_precision.value mask_map.base_rate
        mask_map_of_both.auroc.value mask_map_of_both.iou.value kinds.photograph.called_repaired
    """,
    "shortcuts": """
        model.path model.fingerprint model.description images.number images.fingerprint protocol
        score.*.auroc score.*.interval layers.*.auroc layers.*.interval layers.*.receptive_field
        filters.*.label filters.*.auroc filters.*.interval
        cells.*.dropped cells.*.cells cells.*.auroc cells.*.interval occlusion.dropped_cells
    """,
    "compare": f"""
        {IMAGES} dataset.classes protocol.name pretraining.split layers
        plan.budget_minutes plan.autoencoder_share plan.rates.*.batch_size
        random.*.fingerprint random_mean.*.accuracy random_mean.*.interval
        methods.*.title methods.*.seconds methods.*.fingerprint
        methods.*.layers.*.accuracy methods.*.layers.*.interval
        methods.*.difference.*.accuracy methods.*.difference.*.interval
        ours_minus.*.*.accuracy ours_minus.*.*.interval
    """,
    "ablate": f"""
        {IMAGES} dataset.classes protocol.name pretraining.split layers
        base.fingerprint base.layers.*.accuracy base.layers.*.interval
        variants.*.changed variants.*.fingerprint
        variants.*.difference.*.accuracy variants.*.difference.*.interval
    """,
    "voc": f"""
        {IMAGES} dataset.train_split task measure protocol.name classes
        models.*.path models.*.fingerprint models.*.description models.*.baseline
        models.*.value models.*.interval models.*.per_class
    """,
    "step_speed": f"{BENCHMARK} preset batch_size rounds rows.*.work rows.*.precision rows.*.gflop_per_second",
    "step_profile": f"{BENCHMARK} preset batch_size rows.*.stage rows.*.precision rows.*.seconds rows.*.kinds",
    "step_comparison": f"{BENCHMARK} other other_commit rows.*.preset rows.*.stage rows.*.precision rows.*.speedup",
    "step_cost": f"{BENCHMARK} preset rows.*.stage rows.*.image_size rows.*.batch_size rows.*.images_per_second",
    "step_estimate": f"{BENCHMARK} preset rows.*.stage rows.*.precision rows.*.estimated_images_per_second",
    "loop_speed": f"{BENCHMARK} preset rows.*.stage rows.*.ratio rows.*.costs",
    "extraction_speed": f"{BENCHMARK} rows.*.model rows.*.layer rows.*.ratio",
    "photograph_speed": f"{BENCHMARK} preset photographs stored_size rows.*.work rows.*.images_per_cpu_second",
}


class ReportError(UserError):
    """Results that are missing or fit no table."""


@dataclasses.dataclass(frozen=True)
class Results:
    """Content of one results file."""

    name: str  # of the file, without the ending
    values: Mapping[str, Any]  # the JSON

    @property
    def kind(self) -> str:
        """One of `REQUIRED`."""
        return self.values["kind"]


def check_output(output: str | os.PathLike, dataset: str | None = None, names: Iterable[str] = WRITTEN) -> None:
    """Check that results can be written. Called before hours of work; creates nothing.

    Args:
      output: folder of the results.
      dataset: value of --dataset, if all pictures in its folder are read.
      names: of what the program writes next to results.json.

    Raises:
      OutputError: the folder cannot be written or is inside the folder of the images, or a file of another program
        would be replaced.
    """
    files.check_folder(output)
    outputs.check_outside(output, dataset)
    cache.check_cache(output)
    path = pathlib.Path(output) / RESULTS
    if not path.exists():
        foreign = [name for name in names if os.path.lexists(path.with_name(name))]
        # An earlier run that was stopped has left its lock.
        if foreign and not files.was_locked(output):
            raise files.OutputError(
                f"{path.with_name(foreign[0])} would be replaced, but there is no {RESULTS} of an earlier run. "
                f"Received: output={output}. Move it or give another --output."
            )
        return
    try:
        load(path)
    except ReportError:
        raise files.OutputError(
            f"{path} is no results file and would be replaced. Received: output={output}. "
            "Move it or give another --output."
        ) from None
    print(f"{path} will be replaced", flush=True)


def write(
    output: str | os.PathLike, results: Values, markdown: Callable[[Values], str], plot: Callable | None = None
) -> None:
    """Write results.json, results.md and results.png, each atomically.

    Args:
      output: folder.
      results: content of results.json.
      markdown: function of the results that returns the content of results.md.
      plot: function of the results that returns the figure. If it fails, a warning is printed.
    """
    output = pathlib.Path(output)
    # NB: results.json comes first: text and picture can be made of it again, the results take hours.
    files.write_json(output / RESULTS, results)
    files.write_text(output / "results.md", markdown(results))
    if plot is not None:
        picture = output / "results.png"
        with figures.optional_picture(str(picture)):
            files.write_bytes(picture, figures.png(plot(results), dpi=150))


def seen_sentence(results: Values) -> str:
    """Return the sentence on test images that models may have seen in pre-training, or an empty text."""
    seen = [printable(path) for path in results.get(SEEN, ())]
    return f" The test images may have been among the training images of {', '.join(seen)}." if seen else ""


def load(path: str | os.PathLike) -> Results:
    """Return the content of a results file.

    Args:
      path: results.json of a program in experiments/, or evaluation.json of `lts.bin.spot_artifacts`, by any name.

    Raises:
      ReportError: the file is no JSON, has no known kind, or lacks a field.
      OSError: the file cannot be read.
    """
    path = pathlib.Path(path)
    try:
        values = parse_json(files.read_regular(path), str(path), finite=False)
    except JsonError as error:
        raise ReportError(f"{path} is no JSON: {error}") from None
    kind = values.get("kind") if isinstance(values, dict) else None
    if not isinstance(kind, str) or kind not in REQUIRED:
        raise ReportError(f"{path} is no results file. Received: kind={kind!r}. Known kinds: {', '.join(REQUIRED)}")
    missing = [field for field in REQUIRED[kind].split() if not _has_field(values, field.split("."))]
    if missing:
        raise ReportError(f"{path} of kind {kind} lacks {missing[0]}. Run the experiment again.")
    return Results(path.stem, values)


@contextlib.contextmanager
def naming_files(results: Iterable[Results]) -> Iterator[None]:
    """Turn an error at a value of another type into one that names the files.

    `REQUIRED` lists fields, not the types of all values that a table may show.

    Raises:
      ReportError: the block failed at a value.
    """
    try:
        yield
    except UserError:
        raise
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        names = ", ".join(f"{result.name}.json" for result in results)
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise ReportError(f"{names} holds a value of another type than a table needs ({reason}).") from None


def published() -> dict[str, dict[str, Any]]:
    """Return published tables by name; None: unknown figure."""
    return json.loads(PUBLISHED.read_text(encoding="utf-8"))


def _has_field(values: Any, field: list[str]) -> bool:
    """Return whether a field exists."""
    # For example ["model", "layers", "*", "accuracy"], where "*" stands for every layer.
    if not field:
        return True
    name, *rest = field
    if name == "*":
        entries = values.values() if isinstance(values, dict) else values
        return isinstance(values, dict | list) and all(_has_field(entry, rest) for entry in entries)
    return isinstance(values, dict) and name in values and _has_field(values[name], rest)
