"""Results files, as they are written and read, and published figures; a results file's kind is known by its content."""

import dataclasses
import io
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from lts.utils import files
from lts.utils.errors import UserError

PUBLISHED = pathlib.Path(__file__).resolve().parents[1] / "results" / "published.json"
DATASET = (
    *("dataset.name", "dataset.classes", "dataset.train_images", "dataset.test_images", "dataset.test_split"),
    *("dataset.train_fingerprint", "dataset.test_fingerprint"),
)
BASELINES = ("baselines.*.path", "baselines.*.fingerprint", "baselines.*.description")
FIGURE = ("accuracy", "interval")
PROBES = ("kind", "protocol.name", *DATASET, "pretraining.split", "layers")
VOC_IMAGES = tuple(
    f"dataset.{name}"
    for name in (
        "name",
        "train_split",
        "test_split",
        "train_images",
        "test_images",
        "train_fingerprint",
        "test_fingerprint",
    )
)
KINDS = {  # what every file of a kind holds; * is every entry of a list or a dictionary
    "probe": (
        "protocol",
        *DATASET,
        "model.path",
        "model.description",
        "model.layers.*.accuracy",
        *BASELINES,
    ),
    "few_shot": (
        "protocol.shares",
        "protocol.draws",
        *DATASET,
        "model.path",
        "model.description",
        "model.layers.*.*.accuracy",
        *BASELINES,
    ),
    "spotting": (
        "model.fingerprint",
        "images.number",
        "images.fingerprint",
        "protocol.keep_probability",
        "pairs.*.auroc",
        "pairs.*.interval",
        *(f"{cells}.{figure}.value" for cells in ("mask_map", "mask_map_of_both") for figure in ("auroc", "iou")),
        "mask_map.average_precision.value",
        "mask_map.base_rate",
        "kinds.photograph.called_repaired",
    ),
    "compare": (
        *PROBES,
        *("plan.budget_minutes", "plan.autoencoder_share", "plan.rates.*.batch_size", "random.*.fingerprint"),
        *(f"random_mean.*.{figure}" for figure in FIGURE),
        *(f"rivals.*.{figure}" for figure in ("title", "seconds", "fingerprint")),
        *(f"rivals.*.{of}.*.{figure}" for of in ("layers", "difference") for figure in FIGURE),
        *(f"ours_minus.*.*.{figure}" for figure in FIGURE),
    ),
    "voc": (
        *("task", "measure", "protocol.name", *VOC_IMAGES, "classes"),
        *(
            f"models.*.{of}"
            for of in ("path", "fingerprint", "description", "baseline", "value", "interval", "per_class")
        ),
    ),
    "ablate": (
        *PROBES,
        *("base.fingerprint", "variants.*.changed", "variants.*.fingerprint"),
        *(f"base.layers.*.{figure}" for figure in FIGURE),
        *(f"variants.*.difference.*.{figure}" for figure in FIGURE),
    ),
}


class ReportError(UserError):
    """A file that holds no results, or results and tables that do not go together."""


@dataclasses.dataclass(frozen=True)
class Results:
    """What one results file holds: its name without the ending, one of KINDS, the JSON."""

    name: str
    kind: str
    values: Mapping[str, Any]


def write(output: str | os.PathLike, results: Mapping[str, Any], markdown: str, figure: Figure) -> None:
    """Writes results.png, results.md and results.json into a folder, each whole or absent; results.json is the last.

    Args:
      output: the folder.
      results: what the JSON file holds.
      markdown: content of results.md.
      figure: content of results.png.
    """
    output, picture = pathlib.Path(output), io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    files.write_bytes(output / "results.png", picture.getvalue())
    files.write_text(output / "results.md", markdown)
    files.write_json(output / "results.json", results)


def load(path: str | os.PathLike) -> Results:
    """Reads a results file.

    Args:
      path: results.json of `experiments.linear_probe`, `knn_probe`, `few_shot`, `finetune`, `supervised`, `compare`,
        `ablate` or the VOC tasks, or evaluation.json of `lts.bin.spot_artifacts`, by any name.

    Returns:
      Its content with its kind.

    Raises:
      ReportError: a file of another kind.
      OSError: a file that cannot be read.
    """
    path = pathlib.Path(path)
    try:
        values = json.loads(path.read_bytes())
    except ValueError as error:
        raise ReportError(f"{path} is no JSON: {error}") from None
    for kind, required in KINDS.items():
        if all(_holds(values, place.split(".")) for place in required):
            return Results(path.stem, kind, values)
    raise ReportError(f"{path} holds neither results of an experiment nor an evaluation of spot_artifacts")


def published() -> dict[str, dict[str, Any]]:
    """Tables of published figures by name, with their source; None where no figure is known."""
    return json.loads(PUBLISHED.read_text(encoding="utf-8"))


def _holds(values: Any, place: list[str]) -> bool:
    """Whether there is something at a place, as ["model", "layers", "*", "accuracy"]."""
    if not place:
        return True
    if place[0] == "*":
        entries = values.values() if isinstance(values, dict) else values
        return isinstance(values, dict | list) and all(_holds(entry, place[1:]) for entry in entries)
    return isinstance(values, dict) and place[0] in values and _holds(values[place[0]], place[1:])
