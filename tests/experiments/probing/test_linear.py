"""The classifiers against closed form and scikit-learn; the choice of regularisation; the bootstrap."""

import numpy as np
import pytest
from scipy import special
from sklearn.linear_model import LogisticRegression, RidgeClassifier

from experiments.probing import linear, logistic
from experiments.probing.protocols import CLASSIFIERS, Protocol


def _blobs(images, dimensions, classes=3, distance=1.0, seed=0):
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, dimensions))
    labels = np.arange(images) % classes
    return (distance * centres[labels] + generator.normal(size=(images, dimensions))).astype(np.float32), labels


def test_standardise():
    train, test = np.random.default_rng(0).normal(3, [[1, 50, 0]], size=(2, 40, 3)).astype(np.float32)
    new_train, new_test = linear.standardise(train, test)
    np.testing.assert_allclose(new_train.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(new_train.std(axis=0) * np.sqrt(3), [1, 1, 0], rtol=1e-3, atol=1e-6)
    scale = train.std(axis=0)[:2] * np.sqrt(3)
    np.testing.assert_allclose(new_test[:, :2], (test - train.mean(axis=0))[:, :2] / scale, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("images", "dimensions"), [(40, 90), (90, 40)], ids=["dual", "primal"])
def test_ridge_is_the_closed_form(images, dimensions):
    features, labels = _blobs(images, dimensions)
    features, new = linear.standardise(features, _blobs(60, dimensions, seed=1)[0])
    for strength, predict in zip([1e-3, 1e-1], linear.fit_ridge(features, labels, [1e-3, 1e-1]), strict=True):
        x, targets = features.astype(np.float64), np.eye(3)[labels]
        system = x.T @ x / images + strength * np.eye(dimensions)
        weights = np.linalg.solve(system, x.T @ (targets - targets.mean(axis=0)) / images)
        expected = np.argmax(new @ weights + targets.mean(axis=0), axis=1)
        np.testing.assert_array_equal(predict(new), expected)
        sklearn = RidgeClassifier(alpha=strength * images).fit(features, labels)
        np.testing.assert_array_equal(predict(new), sklearn.predict(new))


def test_ridge_gives_back_labels_that_are_not_0_to_n():
    features, labels = _blobs(30, 5, distance=4)
    (predict,) = linear.fit_ridge(features, 10 * labels + 7, [1e-4])
    np.testing.assert_array_equal(predict(features), 10 * labels + 7)


@pytest.mark.parametrize(("images", "dimensions"), [(120, 300), (300, 40)], ids=["dual", "primal"])
@pytest.mark.parametrize("strength", [1e-4, 1e-2])
def test_logistic_is_that_of_scikit_learn(images, dimensions, strength):
    features, labels = _blobs(images, dimensions, distance=0.2)
    labels = np.where(labels == 2, 7, labels) - np.where(np.arange(images) % 9 == 0, labels, 0)  # not 0 to n, uneven
    features, new = linear.standardise(features, _blobs(500, dimensions, distance=0.2, seed=1)[0])
    (found,) = logistic.fit(features, labels, [strength])
    expected = LogisticRegression(C=1 / (strength * images), max_iter=5000, tol=1e-8).fit(features, labels)

    def probabilities(images):
        return special.softmax(images @ found.weights + found.intercept, axis=1)

    np.testing.assert_allclose(probabilities(new), expected.predict_proba(new), atol=0.02)
    assert np.mean(found(new) == expected.predict(new)) > 0.98


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_a_probe_solves_what_is_linearly_separable(classifier):
    train, test = _blobs(90, 20, distance=3), _blobs(60, 20, distance=3, seed=1)
    result = linear.linear_probe(*train, *test, Protocol(classifier=classifier))
    assert result.correct.shape == (60,)
    assert result.correct.mean() == 1
    assert result.dimensions == 20


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_test_labels_decide_nothing(classifier):
    protocol = Protocol(classifier=classifier)
    train, (test, truth) = _blobs(90, 30, distance=0.3), _blobs(60, 30, distance=0.3, seed=1)
    shuffled = np.random.default_rng(5).permutation(truth)
    right, wrong = (linear.linear_probe(*train, test, labels, protocol) for labels in (truth, shuffled))
    assert right.regularisation == wrong.regularisation
    assert right.validation_accuracy == wrong.validation_accuracy
    np.testing.assert_array_equal(right.correct[truth == shuffled], wrong.correct[truth == shuffled])
    assert right.correct.mean() > wrong.correct.mean()


def test_the_stronger_of_equal_regularisations_is_chosen():
    strength, accuracy = linear.choose_regularisation(*_blobs(120, 200, distance=2.0), Protocol())
    assert accuracy == 1  # with every one of them
    assert strength == max(linear.FITS["ridge"][1])


def test_a_class_with_one_training_image_is_refused():
    features, labels = _blobs(31, 5)
    with pytest.raises(linear.ProbeError, match="too few training images"):
        linear.choose_regularisation(features, np.where(np.arange(31) == 30, 9, labels), Protocol())


def test_bootstrap_interval_is_the_normal_one_for_many_images():
    values = np.arange(2000) < 1400  # 70 % of 2,000: standard error 1.025 %
    low, high = linear.bootstrap_interval(values, Protocol())
    assert low == pytest.approx(0.7 - 1.96 * 0.010247, abs=1e-3)
    assert high == pytest.approx(0.7 + 1.96 * 0.010247, abs=1e-3)
    assert linear.bootstrap_interval(values[::-1], Protocol()) == (low, high)


def test_bootstrap_interval_covers_the_truth_about_95_times_of_100():
    generator = np.random.default_rng(1)
    protocol = Protocol(resamples=1000)
    intervals = [linear.bootstrap_interval(generator.random(400) < 0.6, protocol) for _ in range(400)]
    covered = np.mean([low <= 0.6 <= high for low, high in intervals])
    assert 0.92 <= covered <= 0.98


def test_a_paired_difference_is_surer_than_two_accuracies():
    model = np.arange(1000) % 10 < 7
    baseline = model & (np.arange(1000) % 50 > 0)  # wrong on 20 more images
    low, high = linear.bootstrap_interval(model.astype(float) - baseline, Protocol())
    assert 0 < low < 0.02 < high < 0.04
