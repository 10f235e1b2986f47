"""The classifiers against closed form and scikit-learn, and the choice of regularisation."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, RidgeClassifier

from experiments.probing import linear
from experiments.probing.probe import ProbeError
from experiments.probing.protocols import CLASSIFIERS, Protocol


def _blobs(images, dimensions, classes=3, distance=1.0, seed=0):
    """Return features of normal distributions around a centre for each class, and labels."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, dimensions))
    labels = np.arange(images) % classes
    return (distance * centres[labels] + generator.normal(size=(images, dimensions))).astype(np.float32), labels


def test_standardise():
    """Fails if test images use their own statistics, or a constant dimension becomes nan."""
    train, test = np.random.default_rng(0).normal(3, [[1, 50, 0]], size=(2, 40, 3)).astype(np.float32)
    new_train, new_test = linear.standardise(train, test)
    np.testing.assert_allclose(new_train.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(new_train.std(axis=0) * np.sqrt(3), [1, 1, 0], rtol=1e-3, atol=1e-6)
    scale = train.std(axis=0)[:2] * np.sqrt(3)
    np.testing.assert_allclose(new_test[:, :2], (test - train.mean(axis=0))[:, :2] / scale, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("images", "dimensions"), [(40, 90), (90, 40)], ids=["dual", "primal"])
def test_ridge_is_the_closed_form(images, dimensions):
    """Fails if either system, of images or of dimensions, is not ridge regression."""
    features, labels = _blobs(images, dimensions)
    features, new = linear.standardise(features, _blobs(60, dimensions, seed=1)[0])
    x = features.astype(np.float64)
    targets = np.eye(3)[labels]
    for strength, predict in zip([1e-3, 1e-1], linear.fit_ridge(features, labels, [1e-3, 1e-1]), strict=True):
        system = x.T @ x / images + strength * np.eye(dimensions)
        weights = np.linalg.solve(system, x.T @ (targets - targets.mean(axis=0)) / images)
        expected = np.argmax(new @ weights + targets.mean(axis=0), axis=1)
        np.testing.assert_array_equal(predict(new), expected)
        sklearn = RidgeClassifier(alpha=strength * images).fit(features, labels)
        np.testing.assert_array_equal(predict(new), sklearn.predict(new))


def test_ridge_gives_back_labels_that_are_not_0_to_n():
    """Fails if positions of classes are returned instead of labels."""
    features, labels = _blobs(30, 5, distance=4)
    (predict,) = linear.fit_ridge(features, 10 * labels + 7, [1e-4])
    np.testing.assert_array_equal(predict(features), 10 * labels + 7)


@pytest.mark.parametrize(("images", "dimensions"), [(120, 300), (300, 40)])
def test_logistic_with_warm_starts_is_that_of_cold_ones(images, dimensions):
    """Fails if a warm start stops before it converges, or scikit-learn's C does not stand for the strength."""
    features, labels = _blobs(images, dimensions, distance=0.2)
    labels = np.where(labels == 2, 7, labels) - np.where(np.arange(images) % 9 == 0, labels, 0)  # not 0 to n, uneven
    features, new = linear.standardise(features, _blobs(500, dimensions, distance=0.2, seed=1)[0])
    strengths = linear.CLASSIFIERS["logistic"].strengths
    predictors = list(linear.fit_logistic(features, labels, strengths))
    assert len(predictors) == len(strengths)
    for strength, predict in zip(strengths, predictors, strict=True):
        cold = LogisticRegression(C=1 / (strength * images), max_iter=5000, tol=1e-8).fit(features, labels)
        assert np.mean(predict(new) == cold.predict(new)) > 0.98


def test_names_of_the_flag_are_the_classifiers():
    """Fails if the flag offers a classifier that does not exist, or lacks one."""
    assert set(CLASSIFIERS) == set(linear.CLASSIFIERS)


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_a_probe_solves_what_is_linearly_separable(classifier):
    """Fails if a classifier makes errors on separable classes."""
    train = _blobs(90, 20, distance=3)
    test = _blobs(60, 20, distance=3, seed=1)
    splits = [linear.hold_out(train[1], Protocol())]
    result = linear.linear_probe(*train, *test, classifier, splits)
    assert result.correct.shape == (60,)
    assert result.correct.mean() == 1
    assert result.dimensions == 20


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_test_labels_decide_nothing(classifier):
    """Fails if anything is chosen on test labels."""
    train = _blobs(90, 30, distance=0.3)
    test, labels = _blobs(60, 30, distance=0.3, seed=1)
    shuffled = np.random.default_rng(5).permutation(labels)
    splits = [linear.hold_out(train[1], Protocol())]
    result = linear.linear_probe(*train, test, labels, classifier, splits)
    other = linear.linear_probe(*train, test, shuffled, classifier, splits)
    assert result.regularisation == other.regularisation
    assert result.validation_accuracy == other.validation_accuracy
    same = labels == shuffled
    np.testing.assert_array_equal(result.correct[same], other.correct[same])
    assert result.correct.mean() > other.correct.mean()


def test_the_strongest_of_equal_regularisations_is_chosen():
    """Fails if a tie is decided for the weaker one."""
    features, labels = _blobs(120, 200, distance=2.0)
    splits = [linear.hold_out(labels, Protocol())]
    strength, accuracy = linear.choose_regularisation(features, labels, "ridge", splits)
    assert accuracy == 1  # with every one of them
    assert strength == max(linear.CLASSIFIERS["ridge"].strengths)


def test_a_class_with_one_training_image_is_refused():
    """Fails if scikit-learn's error reaches the user."""
    labels = np.r_[np.arange(30) % 3, 9]
    with pytest.raises(ProbeError, match="too few training images"):
        linear.hold_out(labels, Protocol())
