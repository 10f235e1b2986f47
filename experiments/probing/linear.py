"""Linear classifiers on frozen features, and how sure one can be of their accuracies.

The protocol of one probe: features standardised with the training images' mean and standard deviation; the
regularisation chosen on a stratified fifth of the training images; the classifier fitted again to all of them; the
test images looked at once.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import linalg, stats
from sklearn.model_selection import StratifiedShuffleSplit
from threadpoolctl import ThreadpoolController

from experiments.probing import logistic
from experiments.probing.features import ProbeError
from experiments.probing.protocols import Protocol


@dataclasses.dataclass(frozen=True)
class ProbeResult:
    """What one probe gave: `correct` is bool [test images], in their order; accuracies are fractions."""

    correct: np.ndarray
    regularisation: float
    validation_accuracy: float
    dimensions: int


def standardise(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Zero mean and unit variance over the training images, then divided by sqrt(dimensions).

    The division gives an image a squared norm of about 1 whatever the layer, so that one range of regularisations
    serves all layers. A unit that hardly ever fires keeps its small spread (at most 100 times the usual gain):
    otherwise the few test images in which it does would be thrown far away.

    Args:
      train: float32 [images, dimensions].
      test: float32 [images, dimensions].

    Returns:
      Both, transformed.
    """
    mean, spread = train.mean(axis=0), train.std(axis=0)
    floor = 0.01 * np.sqrt(np.mean(np.square(spread)))
    scale = np.sqrt(train.shape[1], dtype=np.float32) * np.maximum(spread, max(floor, 1e-12))
    return (train - mean) / scale, (test - mean) / scale


Predictor = Callable[[np.ndarray], np.ndarray]


def fit_ridge(features: np.ndarray, labels: np.ndarray, strengths: Sequence[float]) -> Iterator[Predictor]:
    """Ridge classifiers: least squares to the one-hot labels, mean squared error + strength * |w|^2.

    One Gram matrix serves all strengths, of the images or of the dimensions, whichever are fewer.

    Args:
      features: float32 [images, dimensions], standardised.
      labels: int [images].
      strengths: regularisations.

    Yields:
      For each strength a map of float32 [images, dimensions] to predicted labels, int [images].
    """
    classes, positions = np.unique(labels, return_inverse=True)
    targets = np.eye(len(classes), dtype=np.float32)[positions]  # [images, classes]
    prior = targets.mean(axis=0)
    dual = features.shape[0] < features.shape[1]
    gram = features @ features.T if dual else features.T @ features
    right = targets - prior if dual else features.T @ (targets - prior)
    threads = ThreadpoolController()
    for strength in strengths:
        system = gram.copy()
        system.flat[:: len(gram) + 1] += np.float32(strength * len(labels))
        with threads.limit(limits=1):  # on busy cores BLAS threads wait for each other: up to ten times slower
            factor = linalg.cho_factor(system, overwrite_a=True, check_finite=False)
            weights = linalg.cho_solve(factor, right, check_finite=False)
        weights = features.T @ weights if dual else weights  # [dimensions, classes]
        yield lambda x, w=weights: classes[np.argmax(x @ w + prior, axis=1)]


# Name to (fit, regularisations to choose from).
FITS = {
    "ridge": (fit_ridge, tuple(10.0 ** np.arange(-5, -0.9, 0.5))),
    "logistic": (logistic.fit, tuple(10.0 ** np.arange(-6, -1.9, 1))),
}


def hold_out(labels: np.ndarray, protocol) -> tuple[np.ndarray, np.ndarray]:
    """Rows to fit to, and the stratified share `protocol.validation` of all rows to choose on.

    Raises:
      ProbeError: a class with one image, or a share that does not hold every class.
    """
    split = StratifiedShuffleSplit(1, test_size=protocol.validation, random_state=protocol.seed)
    try:
        return next(split.split(np.zeros([len(labels), 1]), labels))
    except ValueError as error:
        raise ProbeError(f"too few training images to hold some out of every class: {error}") from None


def best_regularisation(
    features: np.ndarray, labels: np.ndarray, classifier: str, splits: Iterable[tuple[np.ndarray, np.ndarray]]
) -> tuple[float, float]:
    """The regularisation with the best accuracy on held-out training images; the stronger one of equals.

    Args:
      features: float32 [images, dimensions]: the standardised training features.
      labels: int [images].
      classifier: a name of `FITS`.
      splits: (rows to fit to, held-out rows); of several the mean accuracy counts.

    Returns:
      (regularisation, its accuracy on the held-out images).
    """
    fit, strengths = FITS[classifier]
    scores = []  # [splits, strengths]
    for rows, held_out in splits:
        images, truth = features[held_out], labels[held_out]
        predictors = fit(features[rows], labels[rows], strengths)
        scores.append([float(np.mean(predict(images) == truth)) for predict in predictors])
    accuracy, strength = max(zip(np.mean(scores, axis=0), strengths, strict=True))
    return float(strength), float(accuracy)


def choose_regularisation(features: np.ndarray, labels: np.ndarray, protocol: Protocol) -> tuple[float, float]:
    """`best_regularisation` on the stratified fifth that `hold_out` gives."""
    return best_regularisation(features, labels, protocol.classifier, [hold_out(labels, protocol)])


def linear_probe(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray, protocol: Protocol
) -> ProbeResult:
    """One linear classifier on one layer, by the protocol at the top of this file.

    Args:
      train, test: float32 [images, dimensions]: pooled features.
      train_labels, test_labels: int [images].
      protocol: names the classifier and the seed.

    Returns:
      A `ProbeResult`.
    """
    train, test = standardise(train, test)
    strength, validation_accuracy = choose_regularisation(train, train_labels, protocol)
    fit, _ = FITS[protocol.classifier]
    (predict,) = fit(train, train_labels, [strength])
    correct = predict(test) == test_labels
    return ProbeResult(correct, strength, validation_accuracy, train.shape[1])


def bootstrap_interval(values: np.ndarray, protocol: Protocol) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over test images.

    Says how the mean would move with other test images; it knows nothing of other pre-training seeds. Images with
    equal values are interchangeable, so the resamples are drawn as counts of the distinct values: the same
    distribution, without touching every image.

    Args:
      values: [test images]: correct or not, or the difference of two models' correctness on the same image.
      protocol: gives resamples, confidence and seed.

    Returns:
      (low, high).
    """
    distinct, counts = np.unique(np.asarray(values, np.float64), return_counts=True)
    generator = np.random.default_rng(protocol.seed)
    drawn = generator.multinomial(len(values), counts / len(values), size=protocol.resamples)
    tail = (1 - protocol.confidence) / 2
    low, high = np.quantile(drawn @ distinct / len(values), [tail, 1 - tail])
    return float(low), float(high)


def of_images(correct: np.ndarray, protocol, **details: Any) -> dict[str, Any]:
    """A record of one accuracy over test images, as JSON: with its bootstrap interval, and further details.

    "correct" is a text of 0 and 1, one a test image: what paired differences are made of.
    """
    return {
        "accuracy": float(correct.mean()),
        "interval": bootstrap_interval(correct, protocol),
        **details,
        "correct": "".join("01"[int(value)] for value in correct),
    }


def measure(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray, protocol: Protocol
) -> dict[str, Any]:
    """`linear_probe` as a record."""
    result = linear_probe(train, train_labels, test, test_labels, protocol)
    return of_images(
        result.correct,
        protocol,
        regularisation=result.regularisation,
        validation_accuracy=result.validation_accuracy,
        dimensions=result.dimensions,
    )


def compare(records: Sequence[Mapping[str, Any]], protocol) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first record against the others, image by image or draw by draw.

    Args:
      records: of the model and of each baseline, as `of_images` or `of_draws` makes them, or dicts of such.
      protocol: of all of them.

    Returns:
      Mean of the others, and difference of the first to it, each with "accuracy" and "interval".
    """
    if "accuracy" not in records[0]:
        pairs = {name: compare([record[name] for record in records], protocol) for name in records[0]}
        return {name: mean for name, (mean, _) in pairs.items()}, {name: other for name, (_, other) in pairs.items()}
    by_image = "correct" in records[0]
    values = [np.array(list(r["correct"]) if by_image else r["accuracies"], np.float64) for r in records]
    interval = bootstrap_interval if by_image else draws_interval
    mean = np.mean(values[1:], axis=0)  # [test images or draws]
    both = [{"accuracy": float(v.mean()), "interval": interval(v, protocol)} for v in (mean, values[0] - mean)]
    return both[0], both[1]


def draws_interval(values: np.ndarray, protocol) -> tuple[float, float]:
    """Student's interval of the mean over draws of the training images.

    Args:
      values: [draws], at least two: accuracies, or differences of two models' accuracies on the same draw.
      protocol: gives the confidence.

    Returns:
      (low, high).
    """
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / len(values) ** 0.5
    reach = error * float(stats.t.ppf((1 + protocol.confidence) / 2, len(values) - 1))
    return mean - reach, mean + reach


def of_draws(results: Sequence[ProbeResult], protocol, **details: Any) -> dict[str, Any]:
    """A record of the mean accuracy over draws of the training images, as JSON.

    Args:
      results: of the draws, at least two.
      protocol: gives the confidence.
      **details: further entries.
    """
    return of_accuracies(
        [float(result.correct.mean()) for result in results],
        protocol,
        regularisations=[result.regularisation for result in results],
        validation_accuracies=[result.validation_accuracy for result in results],
        dimensions=results[0].dimensions,
        **details,
    )


def of_accuracies(accuracies: Sequence[float], protocol, **details: Any) -> dict[str, Any]:
    """A record of the mean of at least two accuracies, as JSON: with Student's interval, and further details."""
    return {
        "accuracy": float(np.mean(accuracies)),
        "interval": draws_interval(np.array(accuracies), protocol),
        "deviation": float(np.std(accuracies, ddof=1)),
        "accuracies": list(accuracies),
        **details,
    }
