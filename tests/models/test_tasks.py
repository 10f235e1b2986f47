"""What the discriminator learns besides the paper's two tasks."""

import numpy as np
import pytest
import tensorflow as tf

from lts.config import ConfigError
from lts.models.turns import all_turns, random_turns
from tests.fixtures.models import autoencoder, gan, images

ROTATION = {"rotation_weight": 0.5}


def turned(image: np.ndarray, turn: int) -> np.ndarray:
    """Return an image after quarter turns."""
    return np.rot90(image, turn)


def test_all_turns():
    """Fails if turns are wrong, or the turns of an image are not neighbours."""
    result, turns = all_turns(images())
    np.testing.assert_array_equal(turns, [0, 1, 2, 3] * 4)
    for row, image in enumerate(result.numpy()):
        np.testing.assert_array_equal(image, turned(images().numpy()[row // 4], row % 4))


def test_random_turns():
    """Fails if an image and its label are turned differently, or a number below 1 gives a fifth turn."""
    uniform = np.array([0.0, 0.3, 0.74, np.nextafter(np.float32(1), np.float32(0))], np.float32)
    result, turns = random_turns(images(), tf.constant(uniform))
    np.testing.assert_array_equal(turns, [0, 1, 2, 3])
    for row, image in enumerate(result.numpy()):
        np.testing.assert_array_equal(image, turned(images().numpy()[row], row))


@pytest.mark.parametrize("source", ["reconstruction", "mixed"])
@pytest.mark.parametrize("turns", ["random", "all"])
def test_labels_follow_the_images(source, turns):
    """Fails if a real image has another's label."""
    model = gan(**ROTATION, real_source=source, rotation_turns=turns)
    batch, truth = model.prepare(images(), {}, 3)
    numbers = tf.range(4) if turns == "random" else tf.repeat(tf.range(4), 4)
    real = model._real_images(batch, batch)
    for row in range(len(batch)):
        expected = turned(images().numpy()[numbers[row]], int(truth["turns"][row]))
        np.testing.assert_array_equal(real[row], expected)


def test_the_source_of_an_image_tells_nothing_about_its_turn():
    """Fails if photographs and reconstructions are shown in different turns."""
    model = gan(**ROTATION, real_source="mixed", rotation_turns="all")
    batch, truth = model.prepare(images(), {}, 0)
    is_photograph = model._real_images(tf.zeros_like(batch), tf.ones_like(batch))[:, 0, 0, 0]
    for source in (0, 1):
        np.testing.assert_array_equal(np.sort(truth["turns"][is_photograph == source]), np.repeat([0, 1, 2, 3], 2))


@pytest.mark.parametrize("halves", ["real", "both"])
def test_loss_and_accuracy(halves):
    """Fails for another cross entropy, or the labels of another image."""
    model = gan(**ROTATION, rotation_images=halves)
    batch, truth = model.prepare(images(), {}, 0)
    turns = truth["turns"]
    keep_mask, dropout, uniform = model.draw(0, 4)
    outputs = model.forward(batch, keep_mask, dropout, uniform=uniform)
    logits = outputs.discriminator["rotation_logits"].numpy().astype(np.float64)
    assert logits.shape == (8, 4)
    log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    both = np.concatenate([turns, turns])
    cross_entropy = -log_probabilities[np.arange(8), both]
    rows = slice(0, 4) if halves == "real" else slice(0, 8)
    terms = model.compute_losses(batch, keep_mask, outputs, truth)
    np.testing.assert_allclose(terms["rotation"], 0.5 * cross_entropy[rows].mean(), rtol=1e-5)
    np.testing.assert_allclose(terms["accuracy_rotation"], np.mean(logits[:4].argmax(1) == turns), rtol=1e-6)
    total = terms["real_or_fake"] + terms["mask"] + terms["rotation"] + terms["l2"]
    np.testing.assert_allclose(terms["disc_total"], total, rtol=1e-6)


def test_turned_photographs():
    """Fails if their rows mix with those of the paper's tasks, or decoded images are turned."""
    model = gan(**ROTATION, rotation_images="photographs", shows=2)
    batch, truth = model.prepare(images(), {}, 0)
    np.testing.assert_array_equal(batch, images())
    assert not truth
    keep_mask, dropout, uniform = model.draw(0, 4)
    assert dropout.shape == (2 * 2 * 4 + 4 * 4, 1, 1, 16)
    views = model.draw_views(0, 4)
    assert not np.any(views.turns)

    outputs = model.forward(batch, keep_mask, training=False, uniform=uniform, views=views)
    rows, turns = all_turns(images())
    logits = model.discriminator(rows)["rotation_logits"].numpy().astype(np.float64)
    np.testing.assert_allclose(outputs.turned["rotation_logits"], logits, rtol=1e-4, atol=1e-6)
    terms = model.compute_losses(batch, keep_mask, outputs, truth, views)
    log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    expected = -0.5 * log_probabilities[np.arange(16), turns].mean()
    np.testing.assert_allclose(terms["rotation"], expected, rtol=1e-4)
    np.testing.assert_allclose(terms["accuracy_rotation"], np.mean(logits.argmax(1) == turns), rtol=1e-6)

    # The paper's tasks see what they see without the photographs.
    both = tf.concat([views.images(half, 4) for half in (outputs.reconstruction, outputs.repaired)], 0)
    alone = model.discriminator(both)
    for name in ("logits", "mask_logits"):
        np.testing.assert_allclose(outputs.discriminator[name], alone[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("field", [{"rotation_turns": "all"}, {"rotation_generator_weight": 0.2}])
def test_turned_photographs_alone_are_turned(field):
    """Fails if a field without effect is accepted."""
    with pytest.raises(ConfigError, match="photographs"):
        gan(**ROTATION, rotation_images="photographs", **field)


def test_whose_gradient():
    """Fails if the head does not learn, or the repair network sees the task without its weight."""
    batch = images()
    plain = gan(generator_loss="non_saturating")
    weights_by_path = {variable.path: variable.numpy() for variable in plain.variables}
    keep_mask, dropout, uniform = plain.draw(0, 4)
    truth = {"turns": tf.constant([0, 1, 2, 3])}
    repair = {}
    for name, weights in {
        "none": {},
        "task": ROTATION,
        "generator": {**ROTATION, "rotation_generator_weight": 0.2},
    }.items():
        model = gan(generator_loss="non_saturating", **weights)
        for variable in model.variables:
            if variable.name != "sums":
                variable.assign(weights_by_path.get(variable.path, variable))  # the head's seed shifts those of others
        given = truth if weights else {}
        _, _, d_gradients, g_gradients = model.gradients(batch, keep_mask, dropout, uniform, truth=given)
        repair[name] = np.concatenate([np.ravel(gradient) for gradient in g_gradients])
        if weights:
            paths = [variable.path for variable in model.discriminator.trainable_variables]
            (head,) = [index for index, path in enumerate(paths) if path.endswith("rotation_head/kernel")]
            assert np.abs(d_gradients[head]).max() > 0
    np.testing.assert_allclose(repair["task"], repair["none"], rtol=1e-4, atol=1e-7)
    assert np.abs(repair["generator"] - repair["task"]).max() > 1e-3 * np.abs(repair["task"]).max()


def test_without_the_task():
    """Fails if a head, a metric or a turn exists without its weight."""
    model = gan()
    assert not [variable.path for variable in model.variables if "rotation" in variable.path]
    assert not [name for name in model.means.names if "rotation" in name]
    batch, truth = model.prepare(images(), {}, 0)
    assert not truth
    np.testing.assert_array_equal(batch, images())


def test_steps_draw_their_own_turns():
    """Fails if a resumed run draws other turns, or every step the same."""
    model = gan(**ROTATION)
    draws = [model.prepare(images(64), {}, step)[1]["turns"].numpy().tolist() for step in (5, 5, 6)]
    assert draws[0] == draws[1] != draws[2]
    assert set(draws[0]) == {0, 1, 2, 3}


@pytest.mark.parametrize("fields", [{}, {"rotation_turns": "all"}, {"rotation_images": "photographs"}])
def test_a_step(fields):
    """Fails if a step in a graph loses the task's scalars."""
    model = gan(**ROTATION, **fields)
    values = tf.function(model.train_step)(images())
    assert 0.1 < values["rotation"] < 5
    assert 0 <= values["accuracy_rotation"] <= 1
    assert set(model.means.names) == set(values)


def test_joint_turns_without_photographs():
    """Fails if the field of a task that joint labels replace leaves images without turns."""
    model = gan(joint_turns=True, generator_loss="non_saturating", rotation_images="photographs")
    batch, truth = model.prepare(images(), {}, 0)
    keep_mask, dropout, uniform = model.draw(0, len(batch))
    outputs = model.forward(batch, keep_mask, dropout, uniform=uniform)
    assert outputs.turned is None
    assert model.compute_losses(batch, keep_mask, outputs, truth)["joint_turns"] > 0


def test_joint_turns():
    """Fails if the joint head has other classes, a player another loss, or the real/fake logits are no marginals."""
    model = gan(joint_turns=True, generator_loss="non_saturating", shows=2)
    batch, truth = model.prepare(images(), {}, 0)
    keep_mask, dropout, uniform = model.draw(0, 4)
    views = model.draw_views(0, 4)
    outputs = model.forward(batch, keep_mask, dropout, uniform=uniform, views=views)
    logits = outputs.discriminator["joint_logits"].numpy().astype(np.float64)
    assert logits.shape == (16, 8)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    turns = views.turned_by(truth["turns"]).numpy()
    real, fake = np.split(log_p, 2)
    rows = np.arange(8)
    terms = model.compute_losses(batch, keep_mask, outputs, truth, views)
    joint_loss = -(real[rows, 4 + turns].mean() + fake[rows, turns].mean()) / 2
    np.testing.assert_allclose(terms["joint_turns"], joint_loss, rtol=1e-5)
    adversarial_loss = (fake[rows, turns] - fake[rows, 4 + turns]).mean()
    np.testing.assert_allclose(terms["generator"], adversarial_loss, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(terms["disc_total"], joint_loss + terms["mask"] + terms["l2"], rtol=1e-5)
    expected = adversarial_loss + terms["masked_reconstruction"] + terms["l2"]
    np.testing.assert_allclose(terms["gen_total"], expected, rtol=1e-5)
    probabilities = tf.nn.softmax(outputs.discriminator["logits"]).numpy()
    np.testing.assert_allclose(probabilities, np.exp(log_p).reshape(16, 2, 4).sum(-1), rtol=1e-5)
    is_right = np.exp(real).reshape(8, 2, 4).sum(1).argmax(1) == turns
    np.testing.assert_allclose(terms["accuracy_rotation"], is_right.mean())
    assert set(model.train_step(images())) == set(model.means.names)
    assert "real_or_fake" not in model.means.names
    for fields, message in (({"rotation_weight": 1.0}, "rotation_weight=1"), ({}, "generator_loss=confusion")):
        with pytest.raises(ConfigError, match=message):
            gan(joint_turns=True, **fields)


def test_stage_1_turns_its_images():
    """Fails if the autoencoder sees upright images only, or evaluates turned ones."""
    model = autoencoder(**ROTATION)
    batch = images(16)
    result = model._turned(batch).numpy()
    found = [[np.array_equal(result[row], turned(batch.numpy()[row], turn)) for turn in range(4)] for row in range(16)]
    assert np.sum(found) == 16
    assert np.array(found).any(0).sum() >= 3
    plain = autoencoder()
    evaluated = [model.compute_losses(batch, training=False)["reconstruction"] for model in (model, plain)]
    np.testing.assert_array_equal(*evaluated)


def test_labels():
    """Fails if an unknown label counts, the repaired half counts, or the term is not in the discriminator's total."""
    model = gan(classes=5, labels_weight=0.5)
    labels = np.array([4, -1, 0, -1])
    batch, truth = model.prepare(*model.unpack((images(), tf.constant(labels))), 0)
    keep_mask, dropout, uniform = model.draw(0, 4)
    outputs = model.forward(batch, keep_mask, dropout, uniform=uniform)
    logits = outputs.discriminator["labels_logits"].numpy().astype(np.float64)
    assert logits.shape == (8, 5)
    log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    terms = model.compute_losses(batch, keep_mask, outputs, truth)
    np.testing.assert_allclose(terms["labels"], -0.5 * log_probabilities[[0, 2], [4, 0]].mean(), rtol=1e-5)
    np.testing.assert_allclose(terms["accuracy_labels"], np.mean(logits[[0, 2]].argmax(1) == [4, 0]))
    total = terms["real_or_fake"] + terms["mask"] + terms["labels"] + terms["l2"]
    np.testing.assert_allclose(terms["disc_total"], total, rtol=1e-6)
    unknown = model.compute_losses(batch, keep_mask, outputs, {"labels": tf.fill([4], -1)})
    assert unknown["labels"] == unknown["accuracy_labels"] == 0
    with pytest.raises(ValueError, match=r"images and integer labels \[batch\]. Received: no labels"):
        model.unpack(images())
    with pytest.raises(ValueError, match="at least two classes"):
        gan(labels_weight=0.5)


def test_labels_of_all_turns():
    """Fails if the turns of an image have labels of another one, or a step in a graph loses the labels."""
    model = gan(classes=5, labels_weight=0.5, **ROTATION, rotation_turns="all")
    data = (images(), tf.constant([3, 1, -1, 0]))
    _, truth = model.prepare(*model.unpack(data), 0)
    np.testing.assert_array_equal(truth["labels"], np.repeat([3, 1, -1, 0], 4))
    values = tf.function(model.train_step)(data)
    assert set(model.means.names) == set(values)
