"""Decoded images that are shown several times, and repair networks that are trained in some steps."""

import numpy as np
import tensorflow as tf

from lts.models.views import Views, draw_views
from tests.fixtures.models import gan, images, snapshot

TURNS = {"rotation_weight": 0.5, "shows": 3}


def viewed(image: np.ndarray, mirrored: bool, turns: int, moves: np.ndarray) -> np.ndarray:
    """Return a view of an image [S, S, channels] by NumPy; `moves` are pixels."""
    image = np.rot90(image[:, ::-1] if mirrored else image, turns)
    size = len(image)
    padded = np.pad(image, ((size, size), (size, size), (0, 0)), mode="symmetric")
    top, left = size + moves
    return padded[top : top + size, left : left + size]


def test_all_views():
    """Fails if a mirror, turn or move differs from NumPy's, or the turn of a view is not that of the image."""
    kinds = [
        (mirrored, turn, row, column) for mirrored in (0, 1) for turn in range(4) for row, column in ((0, 0), (-1, 1))
    ]
    mirrored, turns, rows, columns = (np.tile(column, [4, 1]) for column in np.array(kinds).T)
    moves = np.stack([rows, columns], -1)
    views = Views(tf.constant(mirrored == 1), tf.constant(turns, tf.int32), tf.constant(moves, tf.int32))
    before = np.array([0, 1, 2, 3])  # turns of the images before the encoder
    upright = images().numpy()
    turned = np.stack([np.rot90(image, turn) for image, turn in zip(upright, before, strict=True)])
    results = views.images(tf.constant(turned), 4).numpy().reshape(4, len(kinds), 32, 32, 3)
    labels = views.turned_by(tf.constant(before, tf.int32)).numpy().reshape(4, len(kinds))
    for index, (is_mirrored, turn, row, column) in enumerate(kinds):
        for image in range(4):
            expected = viewed(turned[image], is_mirrored == 1, turn, 8 * np.array([row, column]))
            np.testing.assert_array_equal(results[image, index], expected)
            if (row, column) == (0, 0):
                plain = upright[image][:, ::-1] if is_mirrored else upright[image]
                np.testing.assert_array_equal(results[image, index], np.rot90(plain, labels[image, index]))


def test_drawn_views():
    """Fails if the first view is not the image, a kind of view is missing, or images turn without the task."""
    uniform = tf.constant(np.random.RandomState(0).uniform(size=[100, 3, 4]), tf.float32)
    views = draw_views(uniform, with_turns=True)
    for values, kinds in ((views.mirrored, {0, 1}), (views.turns, {0, 1, 2, 3}), (views.moves, {-1, 0, 1})):
        assert not np.any(values[:, 0])
        assert set(np.unique(values[:, 1:])) == kinds
    assert not np.any(draw_views(uniform, with_turns=False).turns)
    model = gan(shows=3)
    first, again, later = (model.draw_views(step, 4).moves.numpy() for step in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, later)


def test_labels_follow_what_is_shown():
    """Fails if the mask, turn or order of a view is another's, by repaired images in which the mask is visible."""
    model = gan(**TURNS, real_source="image")
    batch, truth = model.prepare(images(), {}, 2)
    keep_mask, dropout, uniform = model.draw(2, 4)
    views = model.draw_views(2, 4)
    model.repaired = lambda features, keep_mask, *_: tf.repeat(tf.repeat(tf.repeat(keep_mask, 8, 1), 8, 2), 3, 3)
    shown = []
    discriminator = model.discriminator.call
    model.discriminator.call = lambda both, **options: shown.append(both.numpy()) or discriminator(both, **options)
    outputs = model.forward(batch, keep_mask, dropout, uniform=uniform, views=views)
    predictions = model._predictions(outputs, keep_mask, truth, views)
    real, fake = np.split(shown[0], 2)
    assert len(fake) == 12
    assert outputs.discriminator["rotation_logits"].shape == (24, 4)
    np.testing.assert_array_equal(predictions.keep_mask[..., 0], fake[:, ::8, ::8, 0])
    labels = predictions.truth["turns"].numpy()
    for row in range(12):
        image = images().numpy()[row // 3]
        mirrored = bool(np.ravel(views.mirrored)[row])
        expected = viewed(
            image[:, ::-1] if mirrored else image, False, labels[row], 8 * views.moves.numpy()[row // 3, row % 3]
        )
        np.testing.assert_array_equal(real[row], expected)
    terms = model.compute_losses(batch, keep_mask, outputs, truth, views)
    assert np.isfinite(terms["disc_total"])


def test_repair_every():
    """Fails if the repair network moves in other steps, the discriminator misses one, or its gradient changes."""
    model = gan(repair_every=2)
    plain = gan()
    for number in range(4):
        before = snapshot(model)
        values = model.train_step(images(seed=number))
        assert set(values) == set(model.means.names)
        for network, moves in ((model.discriminator, True), (model.repair, number % 2 == 0)):
            for variable in network.trainable_variables:
                assert np.array_equal(variable, before[variable.path]) != moves, variable.path
    assert int(model.optimizer.iterations) == 4
    assert int(model.g_optimizer.iterations) == 2
    inputs = (images(), *plain.draw(0, 4))
    fresh = gan(repair_every=2)
    _, _, expected, _ = plain.gradients(*inputs)
    _, _, gradients, none = fresh.gradients(*inputs, repair_trains=False)
    assert none == []
    for ours, theirs in zip(gradients, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
