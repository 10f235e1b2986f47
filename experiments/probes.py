"""Linear classifiers on frozen features, and how sure one can be of their accuracies.

The protocol of one probe: features standardised with the training images' mean and standard deviation; the
regularisation chosen on a stratified fifth of the training images; the classifier fitted again to all of them; the
test images looked at once.
"""

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy import linalg
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit
from threadpoolctl import ThreadpoolController

from experiments.features import ProbeError
from experiments.protocol import Protocol


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


def fit_logistic(features: np.ndarray, labels: np.ndarray, strengths: Sequence[float]) -> Iterator[Predictor]:
    """Multinomial logistic regression by L-BFGS: mean cross entropy + strength * |w|^2 / 2. See `fit_ridge`."""
    for strength in strengths:
        classifier = LogisticRegression(C=1 / (strength * len(labels)), max_iter=300, tol=1e-5)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # early stopping regularises a little more
            classifier.fit(features, labels)
        yield classifier.predict


# Name to (fit, regularisations to choose from).
FITS = {
    "ridge": (fit_ridge, tuple(10.0 ** np.arange(-5, -0.9, 0.5))),
    "logistic": (fit_logistic, tuple(10.0 ** np.arange(-6, -1.9, 1))),
}


def choose_regularisation(features: np.ndarray, labels: np.ndarray, protocol: Protocol) -> tuple[float, float]:
    """The regularisation with the best accuracy on held-out training images; the stronger one of equals.

    Args:
      features: float32 [images, dimensions]: the standardised training features.
      labels: int [images].
      protocol: names the classifier, the held-out fraction and the seed.

    Returns:
      (regularisation, its accuracy on the held-out images).
    """
    fit, strengths = FITS[protocol.classifier]
    split = StratifiedShuffleSplit(1, test_size=protocol.validation, random_state=protocol.seed)
    try:
        rows, held_out = next(split.split(features, labels))
    except ValueError as error:
        raise ProbeError(f"too few training images to hold some out of every class: {error}") from None
    images, truth = features[held_out], labels[held_out]
    predictors = fit(features[rows], labels[rows], strengths)
    scored = [(float(np.mean(predict(images) == truth)), s) for predict, s in zip(predictors, strengths, strict=True)]
    accuracy, strength = max(scored)
    return strength, accuracy


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
