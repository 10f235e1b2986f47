"""Limited context inpainting: what is shown, whose gradient is whose, what a step changes."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from lts import losses
from lts.models import base, lci
from lts.networks.critic import SpectralConv
from tests.fixtures import rounding
from tests.fixtures.models import images, moved, snapshot, transformation_classifier

BATCH = images(4, size=40)  # 40 pixels are loaded for windows of 32


def numbers_of(model, rotated: bool = False) -> lci.Numbers:
    """Return the numbers of step 0, with or without small rotations."""
    numbers = model.draw_numbers(0, 4)
    chosen = np.zeros if rotated else np.ones
    windows = np.concatenate([chosen([4, 3, 1], np.float32) * 0.75, numbers.windows[..., 1:]], -1)
    return dataclasses.replace(numbers, windows=tf.constant(windows))


def test_what_is_shown():
    """Fails if a class shows something else, or only inpainted images carry traces of the inpainter."""
    model = transformation_classifier()
    numbers = numbers_of(model)
    result = model.transform(BATCH, numbers, training=False)
    versions = result.images.numpy().reshape(4, 6, 32, 32, 3)
    bent = model.warped(BATCH, numbers.points).numpy()
    patch_corners = np.floor(numbers.patch * 17).astype(int)  # patches of 24 pixels
    for row, image in enumerate(BATCH.numpy()):
        x, y = patch_corners[row]
        inside = slice(y, y + 24), slice(x, x + 24)
        np.testing.assert_array_equal(result.patches[row], image[inside])
        filled = image.copy()
        filled[inside] = result.inpainted[row]
        plain = image.copy()
        if row % 2:
            plain[inside] = result.autoencoded[row]
        for index, (version, source) in enumerate([(0, plain), (1, filled), (5, bent[row])]):
            left, top = np.floor(numbers.windows.numpy()[row, index, 2:] * 9).astype(int)
            np.testing.assert_array_equal(versions[row, version], source[top : top + 32, left : left + 32])
        for turn in (1, 2, 3):
            np.testing.assert_array_equal(versions[row, 1 + turn], np.rot90(versions[row, 0], turn))
    rotated = model.transform(BATCH, numbers_of(model, rotated=True), training=False).images
    assert not np.allclose(rotated, result.images, atol=0.1)
    shown, labels = model.examples(BATCH)
    assert shown.shape == (24, 32, 32, 3)
    np.testing.assert_array_equal(labels, np.tile(range(6), 4))


def test_the_inpainter_does_not_see_the_centre():
    """Fails if the erased centre reaches the inpainter, its border does not, or the noise has another deviation."""
    model = transformation_classifier()
    seen = []
    encoder = model.encoder.call
    model.encoder.call = lambda patches, training=False: seen.append(patches.numpy()) or encoder(patches)
    patches = images(64, size=24)
    noise = tf.constant(np.random.RandomState(0).uniform(size=[64, 24, 24, 3]), tf.float32)
    context, _, _ = model.inpaint(patches, noise, training=False)
    whole, erased = np.split(seen[0], 2)
    border = 2  # round(24 / 16)
    mask = np.ones([24, 24])
    mask[border:-border, border:-border] = 0
    np.testing.assert_array_equal(context[0, :, :, 0], mask)
    np.testing.assert_array_equal(whole, patches)
    np.testing.assert_array_equal(erased[:, mask == 1], patches.numpy()[:, mask == 1])
    np.testing.assert_allclose(erased[:, mask == 0].std(), lci.NOISE, rtol=0.01)


def test_losses():
    """Fails for another weight or region of a term, or accuracies of other classes."""
    model = transformation_classifier(weight_decay=0.1)
    result = model.transform(BATCH, model.draw_numbers(0, 4), training=False)
    terms = model.compute_losses(BATCH, training=False)
    inpainted_error = np.square(result.inpainted - result.patches)[:, result.context[0, :, :, 0] == 1]
    context = 50 * inpainted_error.mean() + 50 * np.square(result.autoencoded - result.patches).mean()
    fake, real = (model.critic(x).numpy() for x in (result.inpainted, result.patches))
    np.testing.assert_allclose(terms["context"], context, rtol=1e-5)
    np.testing.assert_allclose(terms["inpainter"], context - fake.mean(), rtol=1e-5)
    hinge = np.maximum(0, 1 - real).mean() + np.maximum(0, 1 + fake).mean()
    np.testing.assert_allclose(terms["critic"], hinge, rtol=1e-5)
    np.testing.assert_allclose(losses.hinge([0.5, 2.0], [-3.0, 1.0]), 0.25 + 1.0)
    logits = model(result.images).numpy()
    correct = (logits.argmax(1) == np.tile(range(6), 4)).reshape(4, 6).mean(0)
    names = ("accuracy", "accuracy_inpainted", "accuracy_turned", "accuracy_warped")
    expected = [correct.mean(), correct[1], correct[2:5].mean(), correct[5]]
    np.testing.assert_allclose([terms[name] for name in names], expected, rtol=1e-5, atol=1e-7)


def test_whose_gradient():
    """Fails if the inpainter helps the classifier, or does not see it; or the critic sees another loss."""
    model = transformation_classifier(dropout_keep=1.0)
    start = [variable.numpy() for variable in model.variables]

    def restart():
        for variable, value in zip(model.variables, start, strict=True):
            variable.assign(value)

    players = [[variable.value for variable in variables] for _, variables in model._players()]

    def expected() -> dict:
        restart()
        with tf.GradientTape(persistent=True) as tape:
            terms = model.compute_losses(BATCH)
            totals = [terms["loss"], terms["inpainter"] - terms["classification"], terms["critic"]]
        gradients = []
        for total, variables in zip(totals, players, strict=True):
            gradients += tape.gradient(total, variables)
        return dict(enumerate(gradients))

    theirs = expected()
    restart()
    _, ours = model.gradients(BATCH)
    assert rounding.largest_difference(theirs, dict(enumerate(ours))) < 1e-4
    # Without the classifier the inpainter's gradient is another one.
    restart()
    with tf.GradientTape() as tape:
        alone = tape.gradient(model.compute_losses(BATCH)["inpainter"], players[1])
    inpainter = ours[len(players[0]) : -len(players[2])]
    assert rounding.largest_difference(dict(enumerate(inpainter)), dict(enumerate(alone))) > 1e-3


@pytest.mark.parametrize("graph", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["eager", "graph"])
def test_a_step(graph):
    """Fails for a player that stands still, a missing scalar, or monitoring and evaluation that move anything."""
    model = transformation_classifier()
    before = snapshot(model)
    step = tf.function(model.train_step) if graph else model.train_step
    values = step(BATCH)
    assert set(values) == set(model.means.names)
    # Inside of both hinges the gradients of the score's bias cancel.
    assert moved(model, before) | {"classifier/critic/score/bias"} == set(before)
    before = snapshot(model)
    tensors = model.histograms(BATCH)
    pictures = model.pictures(BATCH)
    assert [picture.shape for picture in pictures.values()] == [(4, 32, 32, 3)] * 6
    assert sum(name.startswith("gradients/") for name in tensors) == len(model.trainable_variables)
    assert not moved(model, before)


@pytest.mark.parametrize("graph", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["eager", "graph"])
def test_repair_every(graph):
    """Fails if a step without the inpainter trains it or its critic, or has other gradients of the classifier."""
    model = transformation_classifier(repair_every=2)
    step = tf.function(model.train_step) if graph else model.train_step
    before = snapshot(model)
    step(BATCH)
    assert moved(model, before) | {"classifier/critic/score/bias"} == set(before)
    numbers = [len(variables) for _, variables in model._players()]
    with base.preserve_moving_statistics(model):
        _, all_gradients = model.gradients(BATCH)
    with base.preserve_moving_statistics(model):
        _, gradients = model.gradients(BATCH, opponent_trains=False)
    assert len(gradients) == numbers[0]
    theirs = dict(enumerate(all_gradients[: numbers[0]]))
    assert rounding.largest_difference(theirs, dict(enumerate(gradients))) < 1e-5
    before = snapshot(model)
    assert set(step(BATCH)) == set(model.means.names)
    trainable = {variable.path for variable in model.trainable_variables}
    classifier = {variable.path for variable in model.network.trainable_variables}
    assert moved(model, before) & trainable == classifier


def test_numbers_are_a_function_of_seed_and_step():
    """Fails for numbers that repeat, or differ after a resume."""
    model = transformation_classifier()
    first = model.draw_numbers(5, 4)
    for name, value in vars(transformation_classifier().draw_numbers(tf.constant(5, tf.int64), 4)).items():
        np.testing.assert_array_equal(value, getattr(first, name))
        assert not np.array_equal(value, getattr(model.draw_numbers(6, 4), name))
        assert not np.array_equal(value, getattr(transformation_classifier(seed=2).draw_numbers(5, 4), name))


def test_spectral_norm():
    """Fails if a kernel keeps another largest singular value than 1, or evaluation moves the estimate."""
    layer = SpectralConv(4, 3)
    layer.build((None, 8, 8, 2))
    layer.kernel.assign(np.random.RandomState(0).normal(size=layer.kernel.shape))
    for _ in range(60):
        layer(tf.zeros([1, 8, 8, 2]), training=True)
    before = layer.direction.numpy()
    kernel = layer.normalized_kernel(training=False).numpy()
    np.testing.assert_array_equal(layer.direction, before)
    values = np.linalg.svd(kernel.reshape(-1, 4), compute_uv=False)
    np.testing.assert_allclose(values[0], 1, rtol=1e-3)
    assert values[1] < 1


def test_float16_is_refused():
    """Fails if gradients underflow silently."""
    with pytest.raises(ValueError, match="Received: dtype='mixed_float16'"):
        transformation_classifier(dtype="mixed_float16")
