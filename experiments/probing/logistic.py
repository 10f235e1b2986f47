"""Multinomial logistic regression by L-BFGS, in coordinates in which its curvature is about the same everywhere.

Features of neighbouring cells are nearly equal, so the problem is badly conditioned: for 5,000 images and 9,400
dimensions scikit-learn's L-BFGS takes six times as long.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from scipy import linalg, optimize, special
from threadpoolctl import ThreadpoolController

CURVATURE = 0.1  # of the cross entropy in the logits, roughly p (1 - p) with ten classes: it decides speed alone
RIDGE = 1e-3  # added to the Gram matrix of the images, whose mean diagonal is 1: keeps its Cholesky factor real
ITERATIONS = 300


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A linear classifier: float32 [images, dimensions] to predicted labels, int [images]."""

    classes: np.ndarray
    weights: np.ndarray  # [dimensions, classes]
    intercept: np.ndarray  # [classes]

    def __call__(self, features: np.ndarray) -> np.ndarray:
        return self.classes[np.argmax(features @ self.weights + self.intercept, axis=1)]


def fit(features: np.ndarray, labels: np.ndarray, strengths: Sequence[float]) -> Iterator[Classifier]:
    """Logistic regressions: mean cross entropy + strength * |w|^2 / 2, the intercept free.

    With fewer images than dimensions the weights lie in the span of the images, so they are sought there: the Cholesky
    factor of the images' Gram matrix takes the place of the features.

    Args:
      features: float32 [images, dimensions], standardised.
      labels: int [images].
      strengths: regularisations.

    Yields:
      A `Classifier` for each strength.
    """
    classes, positions = np.unique(labels, return_inverse=True)
    targets = np.eye(len(classes), dtype=np.float32)[positions]  # [images, classes]
    basis, dual = features, features.shape[0] < features.shape[1]
    with ThreadpoolController().limit(limits=1):  # on busy cores BLAS threads wait for each other
        if dual:
            gram = features @ features.T
            gram.flat[:: len(gram) + 1] += np.float32(RIDGE * np.trace(gram) / len(gram))
            basis = linalg.cholesky(gram, lower=True, check_finite=False)
        moments = basis.T @ basis / np.float32(len(labels))
    for strength in strengths:
        with ThreadpoolController().limit(limits=1):
            weights, intercept = _minimise(basis, moments, targets, strength)
            if dual:
                weights = features.T @ linalg.solve_triangular(basis, weights, lower=True, trans=1, check_finite=False)
        yield Classifier(classes, weights, intercept)


def _minimise(
    basis: np.ndarray, moments: np.ndarray, targets: np.ndarray, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weights [columns of the basis, classes] and intercept [classes] of one strength.

    L-BFGS sees `root @ weights`, root.T @ root being about the Hessian: in those coordinates it is about the identity.
    """
    count, width = targets.shape[1], basis.shape[1]
    hessian = np.float32(CURVATURE) * moments
    hessian.flat[:: width + 1] += np.float32(strength)
    root = linalg.cholesky(hessian, overwrite_a=True, check_finite=False)

    def split(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        turned = flat[:-count].reshape(width, count).astype(np.float32)
        return linalg.solve_triangular(root, turned, check_finite=False), flat[-count:] / CURVATURE**0.5

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights, intercept = split(flat)
        log = special.log_softmax(basis @ weights + intercept, axis=1)  # float64: sums of float32 stop line searches
        error = (np.exp(log) - targets) / len(targets)
        slope = basis.T @ error.astype(np.float32) + np.float32(strength) * weights
        slope = linalg.solve_triangular(root, slope, trans=1, check_finite=False)
        value = strength / 2 * np.sum(np.square(weights, dtype=np.float64)) - np.sum(log * targets) / len(targets)
        return float(value), np.concatenate([slope.ravel(), error.sum(axis=0) / CURVATURE**0.5])

    start = np.zeros([width * count + count])
    options = {"maxiter": ITERATIONS, "maxcor": 20, "ftol": 1e-6, "gtol": 1e-5}
    return split(optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x)
