"""Records of accuracies with their intervals, and paired comparisons.

A record is JSON-ready. It holds "accuracy", a fraction, and its "interval". Over test images it also holds "correct", a
text of 0 and 1, one for each image. Over draws, folds or seeds it holds "accuracies". Pairs are formed from these.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lts.utils import statistics

CONFUSION_CLASSES = 30  # largest number of classes of a confusion matrix in the results


class Comparison(NamedTuple):
    """Records of a comparison, each with "accuracy" and "interval"."""

    mean: dict[str, Any]  # of the baselines
    difference: dict[str, Any]  # of the model to this mean, paired


def accuracy_record(correct: np.ndarray, protocol, **details: Any) -> dict[str, Any]:
    """Return the record of one accuracy over test images.

    Args:
      correct: bool [test images].
      protocol: gives resamples, confidence and seed of the bootstrap.
      **details: further entries.
    """
    return {
        "accuracy": float(correct.mean()),
        "interval": _image_interval(correct, protocol),
        **details,
        "correct": "".join("1" if value else "0" for value in correct),
    }


def confusion_entry(labels: np.ndarray, predictions: np.ndarray) -> dict[str, list[str]]:
    """Return the confusion matrix of a test as an entry of a record.

    Args:
      labels: int [test images].
      predictions: int [test images].

    Returns:
      "confusion", a text of numbers for each true class: test images by predicted class. Empty if there are more than
      `CONFUSION_CLASSES`, whose matrix would be most of the file.

    Example:
      >>> confusion_entry(np.array([0, 0, 1]), np.array([0, 1, 1]))
      {'confusion': ['1 1', '0 1']}
    """
    classes = int(max(labels.max(), predictions.max())) + 1
    if classes > CONFUSION_CLASSES:
        return {}
    counts = np.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)
    return {"confusion": [" ".join(map(str, row)) for row in counts]}


def mean_record(accuracies: Sequence[float], protocol, **details: Any) -> dict[str, Any]:
    """Return the record of a mean over runs.

    Runs are draws, folds or seeds.

    Args:
      accuracies: at least two.
      protocol: gives the confidence.
      **details: further entries.
    """
    return {
        "accuracy": float(np.mean(accuracies)),
        "interval": _run_interval(np.array(accuracies), protocol),
        "deviation": float(np.std(accuracies, ddof=1)),
        "accuracies": list(accuracies),
        **details,
    }


def compare(record: Mapping[str, Any], baselines: Sequence[Mapping[str, Any]], protocol) -> Comparison:
    """Compare a record with those of baselines.

    The comparison is paired, image by image or draw by draw.

    Args:
      record: of the model: a record, or records by name, to any depth.
      baselines: the same of each baseline.
      protocol: of all of them.

    Returns:
      A `Comparison` with the same names.
    """
    # Records by name, for example by layer and share of the labels.
    if "accuracy" not in record:
        comparison = Comparison({}, {})
        for name in record:
            part = compare(record[name], [baseline[name] for baseline in baselines], protocol)
            comparison.mean[name] = part.mean
            comparison.difference[name] = part.difference
        return comparison
    baseline_values = [_paired_values(baseline) for baseline in baselines]
    mean, difference = statistics.paired_difference(_paired_values(record), baseline_values)
    interval = _image_interval if "correct" in record else _run_interval
    return Comparison(
        {"accuracy": float(mean.mean()), "interval": interval(mean, protocol)},
        {"accuracy": float(difference.mean()), "interval": interval(difference, protocol)},
    )


def compare_common_layers(record: Mapping[str, Any], baselines: Sequence[Mapping[str, Any]], protocol) -> Comparison:
    """`compare` records by layer, at the layers that all have."""
    layers = [layer for layer in record if all(layer in baseline for baseline in baselines)]
    chosen = [{layer: records[layer] for layer in layers} for records in (record, *baselines)]
    return compare(chosen[0], chosen[1:], protocol)


def _paired_values(record: Mapping[str, Any]) -> np.ndarray:
    """Return what is paired: float [test images] or [runs]."""
    values = list(record["correct"]) if "correct" in record else record["accuracies"]
    return np.array(values, np.float64)


def _image_interval(values: np.ndarray, protocol) -> tuple[float, float]:
    """Return the bootstrap interval of a mean over test images."""
    return statistics.mean_interval(
        values, resamples=protocol.resamples, confidence=protocol.confidence, seed=protocol.seed
    )


def _run_interval(values: np.ndarray, protocol) -> tuple[float, float]:
    """Return Student's interval of a mean over runs."""
    return statistics.student_interval(values, protocol.confidence)
