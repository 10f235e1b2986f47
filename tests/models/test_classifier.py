"""The rivals' model: what it is shown, its losses, what moves in a step."""

import numpy as np
import pytest
import tensorflow as tf

from lts import losses
from tests.fixtures.models import images, moved, rotation_predictor, snapshot, supervised_classifier

LABELS = tf.constant([0, 4, 2, 1])


def classifier(turns: bool, **overrides):
    """The rotation predictor or the supervised classifier."""
    return rotation_predictor(**overrides) if turns else supervised_classifier(**overrides)


def batch(turns: bool):
    return images() if turns else (images(), LABELS)


def test_turns():
    """Images turned the wrong way, classes that do not stand beside their images."""
    shown, classes = rotation_predictor().examples(images())
    assert classes.numpy().tolist() == [turn for turn in range(4) for _ in range(4)]
    for image, turn, original in zip(shown.numpy(), classes.numpy(), [*images().numpy()] * 4, strict=True):
        np.testing.assert_array_equal(image, np.rot90(original, turn))


def test_losses():
    """The mean cross entropy by NumPy, weight decay of kernels alone, the share of right answers."""
    model = supervised_classifier(weight_decay=0.1)
    terms = model.compute_losses((images(), LABELS), training=False)
    logits = model(images()).numpy().astype(float)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    entropy = -np.log(probabilities[np.arange(4), LABELS]).mean()
    kernels = [v for v in model.trainable_variables if v.name == "kernel"]
    decay = 0.1 * sum(np.sum(np.square(v.numpy().astype(float))) for v in kernels) / 2
    np.testing.assert_allclose(terms["classification"], entropy, rtol=1e-5)
    np.testing.assert_allclose(terms["l2"], decay, rtol=1e-5)
    np.testing.assert_allclose(terms["loss"], entropy + decay, rtol=1e-5)
    np.testing.assert_allclose(terms["accuracy"], np.mean(logits.argmax(1) == LABELS.numpy()))


def test_loss_refuses_another_number_of_labels():
    with pytest.raises(ValueError, match="incompatible"):
        losses.classification(tf.zeros([4, 5]), tf.zeros([3], tf.int32))


@pytest.mark.parametrize("turns", [False, True], ids=["labels", "turns"])
@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_everything_moves(turns, graph):
    """A layer without a gradient, statistics that stay."""
    model = classifier(turns)
    before = snapshot(model)
    step = tf.function(model.train_step) if graph else model.train_step
    step(batch(turns))
    assert moved(model, before) == set(before)


@pytest.mark.parametrize(("head", "frozen"), [("linear", 2), ("pooled", 5), ("fc", 4)])
def test_frozen_layers_do_not_move(head, frozen):
    """Weight decay or statistics that move a frozen layer; a head or a layer behind that stays."""
    model = supervised_classifier(head=head, frozen=frozen, backbone_norm="batch_norm")
    before = snapshot(model)
    model.train_step(batch(turns=False))
    still = tuple(f"trunk/conv_{layer}/" for layer in range(1, frozen + 1))
    assert moved(model, before) == {path for path in before if not any(layer in path for layer in still)}
    assert (model.draw(4) is None) == (head != "fc")
    assert "activations/logits" in model.histograms(batch(turns=False))


@pytest.mark.parametrize("turns", [False, True], ids=["labels", "turns"])
def test_it_learns(turns):
    """Four images are told apart, as four turns are, with inference statistics too."""
    model = classifier(turns, dropout_keep=1.0, weight_decay=0.0, learning_rate=1e-2)
    step = tf.function(model.train_step)
    for _ in range(60):
        step(batch(turns))
    model.means.reset_state()
    assert float(model.test_step(batch(turns))["accuracy"]) == 1.0


def test_evaluation_moves_nothing():
    """Statistics that learn from the test images."""
    model = supervised_classifier()
    before = snapshot(model)
    model.test_step((images(), LABELS))
    assert not moved(model, before)


def test_draw():
    """Dropout is a function of seed and step, and keeps its share."""
    model = supervised_classifier(fc_units=5000, dropout_keep=0.3)
    first = model.draw(8).numpy()
    np.testing.assert_array_equal(first, model.draw(8))
    assert set(np.unique(first)) == {0, 1}
    assert abs(first.mean() - 0.3) < 0.01
    model.optimizer.iterations.assign(1)
    assert 0.3 < np.mean(first != model.draw(8).numpy()) < 0.5  # 0.42 of independent draws differ


@pytest.mark.parametrize("turns", [False, True], ids=["labels", "turns"])
def test_what_the_monitor_shows(turns):
    """Pictures of the batch in range, histograms of every weight and gradient, nothing moved."""
    model = classifier(turns)
    before = snapshot(model)
    pictures, tensors = model.pictures(batch(turns)), model.histograms(batch(turns))
    assert len(pictures) == (4 if turns else 1)
    for image in pictures.values():
        np.testing.assert_array_equal(np.sort(np.ravel(image)), np.sort(np.ravel(images())))
    assert sum(name.startswith("gradients/") for name in tensors) == len(model.trainable_variables)
    assert model.filters().shape == (5, 5, 3, 8)
    assert not moved(model, before)
