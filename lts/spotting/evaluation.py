"""How well an exported model spots artifacts, on images that a stage 2 run damages and repairs for it.

"Real" are reconstructions, as in training, never the photographs themselves; "repaired" are the same images with cells
of their feature map dropped and painted over. The export sees both as bytes, like any image. What it says of
photographs and of damage without repair, which it never saw, is measured beside it.

OUTPUT/evaluation.json  figures with intervals, curves, what they come from
OUTPUT/evaluation.md    the figures as a table
OUTPUT/evaluation.html  the same with curves and examples, one file
OUTPUT/curves.png, OUTPUT/examples.png
"""

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lts import data
from lts.spotting import evaluation_report
from lts.spotting.corruption import Corruption
from lts.spotting.metadata import describe_model, describe_source, may_overlap, versions
from lts.utils import files, statistics
from lts.utils.errors import UserError
from lts.utils.progress import Progress
from lts.utils.ranking import Counts, Ranking

BATCH_SIZE = 64
EXAMPLES = 8  # images that are shown
CONFIDENCE = 0.95
THRESHOLD = 0.5  # the one that the export's probabilities suggest
POINTS = 200  # of a curve in evaluation.json
CELL_FIGURES = {
    "average_precision": lambda counts: counts.average_precision(),
    "auroc": lambda counts: counts.auroc,
    "iou": lambda counts: counts.at(THRESHOLD, counts.iou()),
}
RESULTS = "evaluation.json"  # by which an earlier output is known


class EvaluationError(UserError):
    """An export, a run and images that do not go together."""


def evaluate(
    model,
    damager: Corruption,
    source: data.ImageDataset,
    output: str | os.PathLike,
    *,
    seed: int = 1,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Measures an export on images of `source` and writes the output folder, whole or not at all.

    Args:
      model: from `lts.export.saved_model.load`.
      damager: the run that damages.
      source: images that the run was not trained on.
      output: folder to write; an earlier output is replaced.
      seed: of keep masks and bootstrap.
      resamples: of the bootstrap.

    Returns:
      What evaluation.json holds.

    Raises:
      EvaluationError: an export of another image size or grid than the run, or keep masks of one kind alone.
      OutputError: `output` holds something else.
    """
    size = damager.config.image.image_size
    if model.image_size != size:
        raise EvaluationError(
            f"{model.path} was trained at {model.image_size} pixels, {damager.workdir} at {size}: give an export of "
            "that run, or of one with the same --image_size"
        )
    files.check_replaceable(output, RESULTS)
    found = _spot_all(model, damager, source, seed)
    results = {
        "kind": "spotting",
        "model": describe_model(model),
        "run": _describe_run(model, damager, source),
        "images": describe_source(source),
        "protocol": {
            "seed": seed,
            "keep_probability": damager.config.damage.keep_probability,
            "confidence": CONFIDENCE,
            "resamples": resamples,
        },
        "versions": versions(),
        **_figures(found, seed, resamples),
    }
    with files.atomic_write(output) as folder:
        folder.mkdir()
        evaluation_report.write(results, found, folder)
        files.write_json(folder / RESULTS, results)
    return results


def _spot_all(model, damager: Corruption, source: data.ImageDataset, seed: int) -> dict[str, Any]:
    """What the export says of every kind of image.

    Returns:
      "probability": kind to float [N]; "cells": kind to float [N, h, w]; "dropped": bool [N, h, w], of the repaired
      images; "examples": kind to uint8 [<= EXAMPLES, size, size, 3].
    """
    probability, cells, examples, dropped = {}, {}, {}, []
    batches = data.test_batches(source, damager.config.image, batch_size=BATCH_SIZE)
    done = 0
    with Progress("evaluating", source.num_examples) as progress:
        for views in batches:
            keep = damager.keep(seed, done, len(views))
            dropped.append(keep[..., 0] < 0.5)
            for kind, images in {"photograph": views, **damager(views, keep)}.items():
                out = model.spot(images)
                probability.setdefault(kind, []).append(out["probability"].numpy())
                cells.setdefault(kind, []).append(out["artifact_map"].numpy())
                if cells[kind][-1].shape != dropped[-1].shape:
                    raise EvaluationError(
                        f"{model.path} says {list(cells[kind][-1].shape[1:])} cells of an image, {damager.workdir} "
                        f"damages {list(dropped[-1].shape[1:])}: give an export of that run"
                    )
                if done < EXAMPLES:
                    examples.setdefault(kind, []).append(images.numpy()[: EXAMPLES - done])
            done += len(views)
            progress.advance(len(views))
    whole = [{kind: np.concatenate(parts) for kind, parts in each.items()} for each in (probability, cells, examples)]
    dropped = np.concatenate(dropped)
    if dropped.all() or not dropped.any():
        raise EvaluationError(
            f"all cells are {'dropped' if dropped.any() else 'kept'}: keep_probability must lie between 0 and 1. "
            f"Received: keep_probability={damager.config.damage.keep_probability}"
        )
    return {"probability": whole[0], "cells": whole[1], "examples": whole[2], "dropped": dropped}


def _figures(found: dict[str, Any], seed: int, resamples: int) -> dict[str, Any]:
    """All figures of what `_spot_all` returns."""
    options = {"resamples": resamples, "confidence": CONFIDENCE, "seed": seed}
    probability, cells, dropped = (found[name] for name in ("probability", "cells", "dropped"))
    pairs = [("reconstruction", "repaired"), ("photograph", "repaired"), ("reconstruction", "photograph")]
    if "damaged" in probability:
        pairs.insert(2, ("reconstruction", "damaged"))
    both = [np.stack([cells["reconstruction"], cells["repaired"]]), np.stack([np.zeros_like(dropped), dropped])]
    maps = {"mask_map": (cells["repaired"], dropped), "mask_map_of_both": both}
    figures: dict[str, Any] = {"pairs": []}
    with Progress("bootstrap", len(pairs) + len(maps), "figures") as progress:
        for pair in pairs:
            figures["pairs"].append(_pair(probability, *pair, options))
            progress.advance(1)
        for name, (scores, truth) in maps.items():
            figures[name] = _mask_map(scores, truth, options)
            progress.advance(1)
    figures["kinds"] = {
        kind: {
            "probability": float(values.mean()),
            "called_repaired": float((values >= THRESHOLD).mean()),
            "artifact_map": float(cells[kind].mean()),
        }
        for kind, values in probability.items()
    }
    return figures


def _pair(probability: dict[str, np.ndarray], untouched: str, changed: str, options: dict) -> dict[str, Any]:
    """How well the probability tells two kinds of images apart; the same images are drawn of both."""
    scores = np.concatenate([probability[untouched], probability[changed]])
    count = len(scores) // 2
    ranking = Ranking(scores, np.arange(2 * count) >= count, np.tile(np.arange(count), 2))
    counts = ranking.counts()
    alarms, hits = counts.roc()
    return {
        "untouched": untouched,
        "changed": changed,
        "auroc": counts.auroc,
        "interval": _intervals(ranking, {"auroc": lambda counts: counts.auroc}, **options)["auroc"],
        "curve": _thinned(false_positive_rate=alarms, true_positive_rate=hits),
    }


def _mask_map(cells: np.ndarray, dropped: np.ndarray, options: dict) -> dict[str, Any]:
    """How well the map says which cells were dropped; cells [..., N, h, w] of an image N are drawn together."""
    images = np.broadcast_to(np.arange(np.shape(cells)[-3])[:, None, None], np.shape(cells))
    ranking = Ranking(cells, dropped, images)
    counts = ranking.counts()
    precision, recall = counts.precision_recall()
    iou = counts.iou()
    best = int(iou.argmax())

    ends = _intervals(ranking, CELL_FIGURES, **options)
    figures = {name: {"value": of(counts), "interval": ends[name]} for name, of in CELL_FIGURES.items()}
    return {
        "base_rate": counts.base_rate,
        **figures,
        "iou": {"threshold": THRESHOLD, **figures["iou"]},
        "best_iou": {"threshold": float(counts.thresholds[best]), "value": float(iou[best])},
        "precision_at_threshold": counts.at(THRESHOLD, precision),
        "recall_at_threshold": counts.at(THRESHOLD, recall),
        "curve": _thinned(recall=recall, precision=precision, threshold=counts.thresholds, iou=iou),
    }


def _intervals(
    ranking: Ranking,
    figures: Mapping[str, Callable[[Counts], float]],
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> dict[str, list[float]]:
    """Return the bootstrap interval over images of each figure by name."""

    def figures_of(times: np.ndarray) -> np.ndarray:
        counts = ranking.counts(times)
        # A resample of positives or negatives alone has no figures and is skipped.
        if not (counts.positives and counts.negatives):
            return np.full(len(figures), np.nan)
        return np.array([figure(counts) for figure in figures.values()])

    resampled = statistics.bootstrap(figures_of, len(ranking.positives), resamples=resamples, seed=seed)
    intervals = statistics.percentile_interval(resampled, confidence)
    return dict(zip(figures, intervals.tolist(), strict=True))


def _thinned(**columns: np.ndarray) -> dict[str, list[float]]:
    """At most POINTS of each column, evenly spread, the first and the last among them."""
    length = len(next(iter(columns.values())))
    chosen = np.unique(np.linspace(0, length - 1, POINTS).round().astype(int))
    return {name: [round(float(value), 6) for value in values[chosen]] for name, values in columns.items()}


def _trained_config(config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A configuration without what only exporting looks at."""
    if not isinstance(config, Mapping) or "discriminator" not in config:
        return None
    backbone = {name: value for name, value in config["discriminator"].items() if name != "recalibrate_batch_norm"}
    return {**config, "discriminator": backbone}


def _describe_run(model, damager: Corruption, source: data.ImageDataset) -> dict[str, Any]:
    """The run, whether the export is of it, and whether the images may be among its training images.

    An imported run that was never trained here names no training images: None, and nothing is known of them.
    """
    record = damager.record
    dataset, split = record.get("dataset"), record.get("split")
    same = _trained_config(model.description.get("config")) == _trained_config(json.loads(record["config"].to_json()))
    return {
        "workdir": str(damager.workdir),
        "step": damager.step,
        "dataset": dataset,
        "split": split,
        "exported_from_it": same and model.description.get("step") == damager.step,
        "may_hold_the_images": dataset is not None and may_overlap(dataset, split, source.name, source.split),
    }
