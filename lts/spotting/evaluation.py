"""Evaluation of artifact spotting on known artifacts.

This project. A `train_gan` run corrupts images for the export. "Real" are reconstructions, as in training, not the
photographs themselves. "Repaired" are the same images with cells of their feature map dropped and repaired. The export
receives both as bytes, like any image. Its outputs on photographs and on damage without repair, which it never saw in
training, are measured too.

    OUTPUT/evaluation.json  figures with intervals, curves, origin
    OUTPUT/evaluation.md    the figures as tables
    OUTPUT/evaluation.html  the same with curves and examples, one file
    OUTPUT/curves.png, OUTPUT/examples.png
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from lts import data
from lts.spotting import evaluation_report
from lts.spotting.corruption import Corruption
from lts.spotting.metadata import describe_model, describe_run, describe_source, versions
from lts.utils import files, statistics
from lts.utils.errors import UserError
from lts.utils.outputs import OutputFolder, dataset_folder
from lts.utils.progress import Progress
from lts.utils.ranking import Ranking

BATCH_SIZE = 64
EXAMPLES = 8  # images in examples.png
CONFIDENCE = 0.95  # of the intervals
THRESHOLD = 0.5  # on the export's probabilities
CURVE_POINTS = 200  # in evaluation.json
RESULTS = "evaluation.json"
EVALUATION = OutputFolder(
    marker=RESULTS, names=(RESULTS, "evaluation.md", "evaluation.html", "curves.png", "examples.png")
)

CELL_FIGURES = {
    "average_precision": lambda counts: counts.average_precision("step"),
    "auroc": lambda counts: counts.auroc,
    "iou": lambda counts: counts.at(THRESHOLD, counts.iou()),
}


class EvaluationError(UserError):
    """Export, run or images that do not match."""


@dataclasses.dataclass(frozen=True)
class Responses:
    """Outputs on every kind of image.

    The kinds are "photograph", "reconstruction", "repaired" and, where the run repairs, "damaged".
    """

    probability: dict[str, np.ndarray]  # kind to float [N]
    cells: dict[str, np.ndarray]  # kind to float [N, h, w], the artifact maps
    dropped: np.ndarray  # bool [N, h, w], the dropped cells of the repaired images
    examples: dict[str, np.ndarray]  # kind to uint8 [<= EXAMPLES, size, size, 3]


def evaluate(
    model,
    corruption: Corruption,
    source: data.ImageDataset,
    output: str | os.PathLike,
    *,
    seed: int = 1,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Measure an export and write the output folder.

    The folder is written atomically.

    Args:
      model: from `lts.export.saved_model.load`.
      corruption: of the run.
      source: images that the run was not trained on.
      output: folder to write; an earlier output is replaced.
      seed: of keep masks and bootstrap.
      resamples: of the bootstrap.

    Returns:
      The content of evaluation.json.

    Raises:
      EvaluationError: the export has another image size or grid than the run, all cells are kept or dropped, or the
        corruption needs more images.
      OutputError: `output` holds something else.
    """
    check_size(model, corruption)
    EVALUATION.check(output, [model.path, corruption.workdir, dataset_folder(source.name)])
    responses = _collect(model, corruption, source, seed)
    bootstrap = functools.partial(statistics.bootstrap, resamples=resamples, seed=seed)
    results = {
        "model": describe_model(model),
        "run": describe_run(corruption, model, source),
        "images": {**describe_source(source), "number": len(responses.dropped)},
        "protocol": {
            "seed": seed,
            "corruption": corruption.config.damage.corruption,
            "keep_probability": corruption.config.damage.keep_probability,
            "confidence": CONFIDENCE,
            "resamples": resamples,
        },
        "versions": versions(),
        **_figures(responses, bootstrap),
    }
    with EVALUATION.write(output) as folder:
        folder.mkdir()
        files.write_json(folder / RESULTS, results)
        evaluation_report.write(results, responses, folder)
    return results


def check_size(model, corruption: Corruption) -> None:
    """Raise `EvaluationError` if an export has another image size than a run."""
    # At another size the artifact map would have other cells than the mask.
    size = corruption.config.image.image_size
    if model.image_size != size:
        raise EvaluationError(
            f"{model.path} was trained at {model.image_size} pixels, {corruption.workdir} at {size}: give an export of "
            "that run, or of one with the same --image_size"
        )


def check_cells(model, corruption: Corruption, artifact_map: np.ndarray, dropped: np.ndarray) -> None:
    """Raise `EvaluationError` if maps [B, h, w] of an export have other cells than a run's masks."""
    if artifact_map.shape != dropped.shape:
        raise EvaluationError(
            f"{model.path} has {list(artifact_map.shape[1:])} cells per image, {corruption.workdir} "
            f"damages {list(dropped.shape[1:])}: give an export of that run"
        )


def count_images(corruption: Corruption, available: int) -> int:
    """Return how many images can be corrupted.

    Images that need each other come in whole groups; a last incomplete one is skipped.

    Raises:
      EvaluationError: there is no whole group.
    """
    count = available // corruption.group_size * corruption.group_size
    if not count:
        raise EvaluationError(
            f"the corruption needs {corruption.group_size} images. Received: {available} images. Give more."
        )
    return count


@dataclasses.dataclass(frozen=True)
class CorruptedBatch:
    """Consecutive images of every kind, and what was dropped."""

    images: dict[str, Any]  # kind to uint8 [B, size, size, 3], with "photograph", as a `Corruption` returns them
    keep_mask: np.ndarray  # [B, h, w, 1]
    uniform: np.ndarray  # [B, h, w, n], from which the mask was drawn


def corrupted_batches(
    corruption: Corruption, source: data.ImageDataset, count: int, seed: int
) -> Iterator[CorruptedBatch]:
    """Yield the first `count` images in batches, corrupted with the masks of a seed."""
    first = 0
    for views in data.test_batches(source, corruption.config.image, batch_size=BATCH_SIZE, limit=count):
        keep_mask, uniform = corruption.draw(seed, first, len(views))
        images = {"photograph": views, **corruption(views, keep_mask, uniform)}
        yield CorruptedBatch(images, keep_mask, uniform)
        first += len(views)


def _collect(model, corruption: Corruption, source: data.ImageDataset, seed: int) -> Responses:
    """Return the outputs on all images."""
    probability: dict[str, list[np.ndarray]] = {}
    cells: dict[str, list[np.ndarray]] = {}
    examples: dict[str, list[np.ndarray]] = {}
    dropped = []
    count = count_images(corruption, source.num_examples)
    with Progress("evaluating", count) as progress:
        for batch in corrupted_batches(corruption, source, count, seed):
            dropped.append(batch.keep_mask[..., 0] < 0.5)
            for kind, images in batch.images.items():
                outputs = model.spot(images)
                artifact_map = outputs["artifact_map"].numpy()  # [B, h, w]
                check_cells(model, corruption, artifact_map, dropped[-1])
                probability.setdefault(kind, []).append(outputs["probability"].numpy())
                cells.setdefault(kind, []).append(artifact_map)
                # Pixels are kept for the first images only.
                examples.setdefault(kind, []).append(images.numpy()[: max(0, EXAMPLES - progress.done)])
            progress.advance(len(batch.keep_mask))
    # Without both kinds of cells no curve is defined.
    all_dropped = np.concatenate(dropped)
    if all_dropped.all() or not all_dropped.any():
        raise EvaluationError(
            f"all cells are {'dropped' if all_dropped.any() else 'kept'}: keep_probability must be between 0 and 1. "
            f"Received: keep_probability={corruption.config.damage.keep_probability}"
        )
    return Responses(_concatenate(probability), _concatenate(cells), all_dropped, _concatenate(examples))


def _concatenate(batches: Mapping[str, list[np.ndarray]]) -> dict[str, np.ndarray]:
    return {kind: np.concatenate(parts) for kind, parts in batches.items()}


def _figures(responses: Responses, bootstrap: Callable) -> dict[str, Any]:
    """Return all figures of an export's outputs."""
    # The first pair is the task of the training.
    pairs = [("reconstruction", "repaired"), ("photograph", "repaired"), ("reconstruction", "photograph")]
    if "damaged" in responses.probability:
        pairs.insert(2, ("reconstruction", "damaged"))
    repaired_cells = responses.cells["repaired"]
    both_cells = np.stack([responses.cells["reconstruction"], repaired_cells])  # [2, N, h, w]
    both_dropped = np.stack([np.zeros_like(responses.dropped), responses.dropped])  # none in reconstructions
    figures: dict[str, Any] = {"pairs": []}
    with Progress("bootstrap", len(pairs) + 2, "figures") as progress:
        for untouched, changed in pairs:
            figures["pairs"].append(_pair(responses.probability, untouched, changed, bootstrap))
            progress.advance(1)
        figures["mask_map"] = _mask_map(repaired_cells, responses.dropped, bootstrap)
        progress.advance(1)
        figures["mask_map_of_both"] = _mask_map(both_cells, both_dropped, bootstrap)
        progress.advance(1)
    figures["kinds"] = {}
    for kind, values in responses.probability.items():
        figures["kinds"][kind] = {
            "probability": float(values.mean()),
            "called_repaired": float((values >= THRESHOLD).mean()),
            "artifact_map": float(responses.cells[kind].mean()),
        }
    return figures


def _pair(probability: Mapping[str, np.ndarray], untouched: str, changed: str, bootstrap: Callable) -> dict[str, Any]:
    """Return how well the probability separates two kinds."""
    ranking = pair_ranking(probability[untouched], probability[changed])
    false_positive_rate, true_positive_rate = ranking.counts().roc()
    return {
        "untouched": untouched,
        "changed": changed,
        **auroc_record(ranking, bootstrap),
        "curve": _thin(false_positive_rate=false_positive_rate, true_positive_rate=true_positive_rate),
    }


def pair_ranking(untouched: np.ndarray, changed: np.ndarray) -> Ranking:
    """Return the ranking of two versions of the same images, the changed ones positive.

    Args:
      untouched: float [images], scores.
      changed: float [images], scores of the changed versions, in the same order.
    """
    count = len(untouched)
    # Both versions of an image have its number, so that the bootstrap draws them together.
    return Ranking(np.concatenate([untouched, changed]), np.arange(2 * count) >= count, np.tile(np.arange(count), 2))


def auroc_record(ranking: Ranking, bootstrap: Callable) -> dict[str, Any]:
    """Return "auroc" with its "interval".

    Args:
      ranking: of positives and negatives.
      bootstrap: `lts.utils.statistics.bootstrap` with resamples and seed.
    """
    interval = _intervals(ranking, {"auroc": lambda counts: counts.auroc}, bootstrap)["auroc"]
    return {"auroc": ranking.counts().auroc, "interval": interval}


def _mask_map(cells: np.ndarray, dropped: np.ndarray, bootstrap: Callable) -> dict[str, Any]:
    """Return how well artifact maps find dropped cells."""
    # Both arrays are [..., N, h, w]. The bootstrap draws all cells of an image together.
    images = np.broadcast_to(np.arange(cells.shape[-3])[:, None, None], cells.shape)
    ranking = Ranking(cells, dropped, images)
    counts = ranking.counts()
    precision, recall = counts.precision_recall()
    iou = counts.iou()
    # The best threshold is chosen on the same images, and therefore reported apart from the fixed one.
    best = int(iou.argmax())
    intervals = _intervals(ranking, CELL_FIGURES, bootstrap)
    figures = {name: {"value": of(counts), "interval": intervals[name]} for name, of in CELL_FIGURES.items()}
    return {
        "base_rate": counts.base_rate,
        **figures,
        "iou": {"threshold": THRESHOLD, **figures["iou"]},
        "best_iou": {"threshold": float(counts.thresholds[best]), "value": float(iou[best])},
        "precision_at_threshold": counts.at(THRESHOLD, precision),
        "recall_at_threshold": counts.at(THRESHOLD, recall),
        "curve": _thin(recall=recall, precision=precision, threshold=counts.thresholds, iou=iou),
    }


def _intervals(ranking: Ranking, figures: Mapping[str, Callable], bootstrap: Callable) -> dict[str, list[float]]:
    """Return each figure's bootstrap interval."""

    def figures_of(times: np.ndarray) -> np.ndarray:
        counts = ranking.counts(times)
        # A resample of positives or negatives alone has no figures and is skipped.
        if not (counts.positives and counts.negatives):
            return np.full(len(figures), np.nan)
        return np.array([figure(counts) for figure in figures.values()])

    resampled = bootstrap(figures_of, len(ranking.positives))  # [resamples, figures]
    intervals = statistics.percentile_interval(resampled, CONFIDENCE)
    return dict(zip(figures, intervals.tolist(), strict=True))


def _thin(**columns: np.ndarray) -> dict[str, list[float]]:
    """Return evenly spaced entries of each column."""
    length = len(next(iter(columns.values())))
    chosen = np.unique(np.linspace(0, length - 1, CURVE_POINTS).round().astype(int))
    return {name: values[chosen].astype(float).round(6).tolist() for name, values in columns.items()}
