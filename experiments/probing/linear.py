"""Linear classifiers on frozen features.

The features are standardised with the mean and deviation of the training images. The regularisation is chosen on a
stratified fifth of the training images. The classifier is then fitted to all of them, and tested once.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import linalg
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit
from threadpoolctl import ThreadpoolController

from experiments.probing import statistics
from experiments.probing.features import FeatureProbe
from experiments.probing.probe import ProbeError
from experiments.probing.protocols import CLASSIFIERS


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearProbe(FeatureProbe):
    """Linear classifier on each layer, with a `Protocol`."""

    kind = "linear_probe"

    def measure(self, train, train_labels, test, test_labels) -> dict[str, Any]:
        """Evaluate the features of one layer; see `FeatureProbe.measure`."""
        splits = [hold_out(train_labels, self.protocol)]
        result = linear_probe(train, train_labels, test, test_labels, self.protocol.classifier, splits)
        return statistics.accuracy_record(
            result.correct,
            self.protocol,
            regularisation=result.regularisation,
            validation_accuracy=result.validation_accuracy,
            dimensions=result.dimensions,
            **statistics.confusion_entry(test_labels, result.predictions),
        )


@dataclasses.dataclass(frozen=True)
class LinearResult:
    """Result of one linear classifier."""

    predictions: np.ndarray  # int [test images], in their order
    correct: np.ndarray  # bool [test images]
    regularisation: float  # the chosen one
    validation_accuracy: float  # its accuracy on held-out training images, a fraction
    dimensions: int  # of the features


def linear_probe(
    train: np.ndarray,
    train_labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
    classifier: str,
    splits: Iterable[tuple[np.ndarray, np.ndarray]],
) -> LinearResult:
    """Choose, fit and test one linear classifier.

    Args:
      train: float32 [images, dimensions], pooled features.
      train_labels: int [images].
      test: float32 [images, dimensions].
      test_labels: int [images].
      classifier: a name of `CLASSIFIERS`.
      splits: of the training images, on which the regularisation is chosen, see `choose_regularisation`.
    """
    train, test = standardise(train, test)
    strength, validation_accuracy = choose_regularisation(train, train_labels, classifier, splits)
    (predict,) = CLASSIFIERS[classifier].fit(train, train_labels, [strength])
    predictions = predict(test)
    return LinearResult(predictions, predictions == test_labels, strength, validation_accuracy, train.shape[1])


def draws_record(results: Sequence[LinearResult], protocol, images: int) -> dict[str, Any]:
    """Return the record of several classifiers.

    Args:
      results: of draws or folds of the training images, at least two.
      protocol: gives the confidence.
      images: training images of each.
    """
    return statistics.mean_record(
        [float(result.correct.mean()) for result in results],
        protocol,
        regularisations=[result.regularisation for result in results],
        validation_accuracies=[result.validation_accuracy for result in results],
        dimensions=results[0].dimensions,
        images=images,
    )


def standardise(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale features to zero mean and variance 1 / dimensions.

    The division by sqrt(dimensions) gives every image a squared norm of about 1. One range of regularisations
    therefore serves all layers.

    Args:
      train: float32 [images, dimensions]; mean and deviation are theirs.
      test: float32 [images, dimensions].

    Returns:
      Both, transformed.
    """
    mean = train.mean(axis=0)
    deviation = train.std(axis=0)
    # A unit that hardly ever fires keeps its small deviation: its gain is at most 100 times the usual one. Otherwise
    # the few test images in which it fires would be outliers.
    floor = 0.01 * np.sqrt(np.mean(np.square(deviation)))
    scale = np.sqrt(train.shape[1], dtype=np.float32) * np.maximum(deviation, max(floor, 1e-12))
    return (train - mean) / scale, (test - mean) / scale


def hold_out(labels: np.ndarray, protocol) -> tuple[np.ndarray, np.ndarray]:
    """Hold out training images to choose on.

    Args:
      labels: int [images].
      protocol: names the fraction to hold out, stratified by class, and the seed.

    Returns:
      (rows to fit to, held-out rows).

    Raises:
      ProbeError: a class has one image, or the held-out rows do not contain every class.
    """
    split = StratifiedShuffleSplit(1, test_size=protocol.validation, random_state=protocol.seed)
    try:
        return next(split.split(np.zeros([len(labels), 1]), labels))
    except ValueError as error:
        raise ProbeError(
            f"too few training images to hold some out of every class: {error} Give more images."
        ) from None


def choose_regularisation(
    features: np.ndarray, labels: np.ndarray, classifier: str, splits: Iterable[tuple[np.ndarray, np.ndarray]]
) -> tuple[float, float]:
    """Choose the regularisation with the best accuracy on held-out training images.

    Args:
      features: float32 [images, dimensions], the standardised training features.
      labels: int [images].
      classifier: a name of `CLASSIFIERS`.
      splits: (rows to fit to, held-out rows); the accuracy is the mean over the splits.

    Returns:
      (regularisation, its accuracy on the held-out images). Of equally good ones the strongest is chosen.
    """
    fit, strengths = CLASSIFIERS[classifier]
    accuracies = []  # [splits, strengths]
    for rows, held_out in splits:
        predictors = fit(features[rows], labels[rows], strengths)
        accuracies.append([np.mean(predict(features[held_out]) == labels[held_out]) for predict in predictors])
    accuracy, strength = max(zip(np.mean(accuracies, axis=0), strengths, strict=True))
    return float(strength), float(accuracy)


# Maps float32 [images, dimensions] to predicted labels, int [images].
Predictor = Callable[[np.ndarray], np.ndarray]


def fit_ridge(features: np.ndarray, labels: np.ndarray, strengths: Sequence[float]) -> Iterator[Predictor]:
    """Fit ridge classifiers.

    Args:
      features: float32 [images, dimensions], standardised.
      labels: int [images].
      strengths: of the regularisation.

    Yields:
      A `Predictor` for each strength.
    """
    classes = np.unique(labels)
    for scores in ridge_scores(features, labels, strengths):
        yield lambda new, scores=scores: classes[np.argmax(scores(new), axis=1)]


def ridge_scores(
    features: np.ndarray, labels: np.ndarray, strengths: Sequence[float]
) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
    """Fit ridge regressions to the labels.

    Least squares to the one-hot labels: mean squared error + strength * |w|^2. One Gram matrix serves all strengths.

    Args:
      features: float32 [images, dimensions], standardised.
      labels: int [images].
      strengths: of the regularisation.

    Yields:
      For each strength a map of features to scores, float32 [images, classes], with the classes in ascending order.
    """
    classes, positions = np.unique(labels, return_inverse=True)
    targets = np.eye(len(classes), dtype=np.float32)[positions]  # [images, classes]
    prior = targets.mean(axis=0)
    # The smaller of the two systems: weights w = X^T (X X^T + a)^-1 Y, or w = (X^T X + a)^-1 X^T Y.
    dual = features.shape[0] < features.shape[1]
    gram = features @ features.T if dual else features.T @ features
    targets = targets - prior if dual else features.T @ (targets - prior)
    # On busy cores BLAS threads wait for each other: up to ten times slower than one thread.
    threads = ThreadpoolController()
    for strength in strengths:
        system = gram.copy()
        system.flat[:: len(gram) + 1] += np.float32(strength * len(labels))
        with threads.limit(limits=1):
            factor = linalg.cho_factor(system, overwrite_a=True, check_finite=False)
            weights = linalg.cho_solve(factor, targets, check_finite=False)
        if dual:
            weights = features.T @ weights  # [dimensions, classes]
        yield lambda new, weights=weights: new @ weights + prior


def fit_logistic(features: np.ndarray, labels: np.ndarray, strengths: Sequence[float]) -> Iterator[Predictor]:
    """Fit multinomial logistic regressions.

    Mean cross entropy + strength * |w|^2 / 2, the intercept free. scikit-learn's `newton-cg` solves it.

    Args:
      features: float32 [images, dimensions], standardised.
      labels: int [images].
      strengths: of the regularisation.

    Yields:
      A `Predictor` for each strength.
    """
    # Features of neighbouring cells are nearly equal, so the problem is badly conditioned. For 2,000 images, 9,000
    # dimensions and five strengths `newton-cg` with warm starts took 5 s, `lbfgs` with warm starts 50 s, ridge 2 s.
    # NB: with scikit-learn's default tolerance, 1e-4, a warm start stops at once although accuracy would still change.
    solver = LogisticRegression(solver="newton-cg", warm_start=True, tol=1e-5, max_iter=1000)
    predictors = {}
    for strength in sorted(strengths, reverse=True):
        solver.set_params(C=1 / (strength * len(labels))).fit(features, labels)
        predictors[strength] = copy.deepcopy(solver).predict
    yield from (predictors[strength] for strength in strengths)


class LinearClassifier(NamedTuple):
    """A kind of linear classifier."""

    fit: Callable[..., Iterator[Predictor]]  # (features, labels, strengths) to a predictor for each strength
    strengths: tuple[float, ...]  # regularisations to choose from


RIDGE = LinearClassifier(fit_ridge, tuple(10.0 ** np.arange(-5, -0.9, 0.5)))
LOGISTIC = LinearClassifier(fit_logistic, tuple(10.0 ** np.arange(-6, -1.9, 1)))
