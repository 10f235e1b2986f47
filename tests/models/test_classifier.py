"""The baselines: examples, losses, what a step changes."""

import numpy as np
import pytest
import tensorflow as tf

from lts import losses
from tests.fixtures.models import images, moved, rotation_predictor, snapshot, supervised_classifier

LABELS = tf.constant([0, 4, 2, 1])
BOTH = pytest.mark.parametrize(
    ("make", "batch"),
    [(supervised_classifier, (images(), LABELS)), (rotation_predictor, images())],
    ids=["supervised", "rotation"],
)


def test_rotations():
    """Fails for images turned the wrong way, or other labels."""
    rotated, labels = rotation_predictor().examples(images())
    assert labels.numpy().tolist() == np.tile(range(4), 4).tolist()
    for index, image in enumerate(rotated.numpy()):
        np.testing.assert_array_equal(image, np.rot90(images().numpy()[index // 4], index % 4))


def test_losses():
    """Fails if decay falls on biases, or accuracy is not a share."""
    model = supervised_classifier(weight_decay=0.1)
    terms = model.compute_losses((images(), LABELS), training=False)
    logits = model(images()).numpy().astype(float)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    entropy = -np.log(probabilities[np.arange(4), LABELS]).mean()
    kernels = [v.numpy().astype(float) for v in model.trainable_variables if v.name == "kernel"]
    decay = 0.1 * sum(np.sum(np.square(kernel)) for kernel in kernels) / 2
    np.testing.assert_allclose(terms["classification"], entropy, rtol=1e-5)
    np.testing.assert_allclose(terms["l2"], decay, rtol=1e-5)
    np.testing.assert_allclose(terms["loss"], entropy + decay, rtol=1e-5)
    np.testing.assert_allclose(terms["accuracy"], np.mean(logits.argmax(1) == LABELS.numpy()))


def test_number_of_labels():
    """Fails if labels of another number broadcast."""
    with pytest.raises(ValueError, match="incompatible"):
        losses.classification(tf.zeros([4, 5]), tf.zeros([3], tf.int32))


@BOTH
@pytest.mark.parametrize("graph", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["eager", "graph"])
def test_everything_moves(make, batch, graph):
    """Fails for a layer without a gradient, or statistics that stay."""
    model = make()
    before = snapshot(model)
    step = tf.function(model.train_step) if graph else model.train_step
    step(batch)
    assert moved(model, before) == set(before)


@pytest.mark.parametrize(
    ("head", "frozen"),
    [("linear", 2), pytest.param("pooled", 5, marks=pytest.mark.slow), pytest.param("fc", 4, marks=pytest.mark.slow)],
)
def test_frozen_layers(head, frozen):
    """Fails if decay or statistics move a frozen layer, or another one stays."""
    model = supervised_classifier(head=head, frozen=frozen, backbone_norm="batch_norm")
    before = snapshot(model)
    model.train_step((images(), LABELS))
    still = tuple(f"trunk/conv_{layer}/" for layer in range(1, frozen + 1))
    assert moved(model, before) == {path for path in before if not any(layer in path for layer in still)}
    assert (model.draw(4) is None) == (head != "fc")
    assert "activations/logits" in model.histograms((images(), LABELS))


@BOTH
def test_it_learns(make, batch):
    """Fails if four images are not told apart, with inference statistics."""
    model = make(dropout_keep=1.0, weight_decay=0.0, learning_rate=1e-2)
    step = tf.function(model.train_step)
    for _ in range(60):
        step(batch)
    model.means.reset_state()
    assert float(model.test_step(batch)["accuracy"]) == 1.0


def test_evaluation_moves_nothing():
    """Fails if statistics learn from test images."""
    model = supervised_classifier()
    before = snapshot(model)
    model.test_step((images(), LABELS))
    assert not moved(model, before)


def test_dropout_is_a_function_of_seed_and_step():
    """Fails if dropout repeats itself, or keeps another share."""
    model = supervised_classifier(fc_units=5000, dropout_keep=0.3)
    first = model.draw(8).numpy()
    np.testing.assert_array_equal(first, model.draw(8))
    assert set(np.unique(first)) == {0, 1}
    assert abs(first.mean() - 0.3) < 0.01
    model.optimizer.iterations.assign(1)
    assert 0.3 < np.mean(first != model.draw(8).numpy()) < 0.5  # 0.42 of independent draws differ


@BOTH
def test_monitoring(make, batch):
    """Fails if pictures or histograms lack something, or move anything."""
    model = make()
    before = snapshot(model)
    pictures = model.pictures(batch)
    tensors = model.histograms(batch)
    assert len(pictures) == (4 if make is rotation_predictor else 1)
    for image in pictures.values():
        np.testing.assert_array_equal(np.sort(np.ravel(image)), np.sort(np.ravel(images())))
    assert sum(name.startswith("gradients/") for name in tensors) == len(model.trainable_variables)
    assert model.filters().shape == (5, 5, 3, 8)
    assert not moved(model, before)
