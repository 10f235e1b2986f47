"""Stage 2: what moves in a step, whose gradient is whose, the random masks."""

import numpy as np
import pytest
import tensorflow as tf

from tests.fixtures import rounding
from tests.fixtures.models import gan, images, moved, snapshot

RS = np.random.RandomState(3)
KEEP_MASK = tf.constant((RS.uniform(size=(4, 4, 4, 1)) < 0.5).astype(np.float32))
DROPOUT = tf.constant((RS.uniform(size=(8, 1, 1, 16)) < 0.5).astype(np.float32))
INPUTS = (images(), KEEP_MASK, DROPOUT)
SLOW = pytest.mark.slow


def discriminator_gradients(**overrides) -> list:
    """Return the discriminator's gradients."""
    _, _, gradients, _ = gan(**overrides).gradients(*INPUTS)
    return gradients


def repair_gradient(**overrides) -> np.ndarray:
    """Return the repair network's gradient as one vector."""
    _, _, _, gradients = gan(**overrides).gradients(*INPUTS)
    return np.concatenate([np.ravel(gradient) for gradient in gradients])


@pytest.mark.parametrize(
    ("graph", "repair", "generator_loss"),
    [
        (True, True, "confusion"),
        (False, False, "non_saturating"),
        pytest.param(False, True, "confusion", marks=SLOW),
        pytest.param(False, False, "confusion", marks=SLOW),
        pytest.param(False, True, "non_saturating", marks=SLOW),
    ],
)
def test_what_moves(graph, repair, generator_loss):
    """Fails if encoder or decoder move, or a player stands still.

    Batch norm statistics included (BUILD_NOTES trap 15).
    """
    model = gan(repair=repair, generator_loss=generator_loss)
    before = snapshot(model)
    step = tf.function(model.train_step) if graph else model.train_step
    step(images())
    players = [model.discriminator, *([model.repair] if repair else [])]
    assert moved(model, before) == {v.path for player in players for v in player.variables}
    assert int(model.optimizer.iterations) == 1
    assert int(model.g_optimizer.iterations) == int(repair)


def test_trainable_variables_are_the_players():
    """Fails if Keras counts or trains the frozen networks."""
    model = gan()
    players = model.repair.trainable_variables + model.discriminator.trainable_variables
    assert {id(v) for v in model.trainable_variables} == {id(v) for v in players}


def test_features_have_no_gradient():
    """Fails if the generator's loss reaches the encoder."""
    model = gan()
    inputs, keep_mask, dropout = INPUTS
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = model.forward(inputs, keep_mask, dropout)
        loss = tf.reduce_sum(outputs.reconstruction) + tf.reduce_sum(outputs.repaired)
    assert tape.gradient(loss, inputs) is None


def test_both_gradients_before_either_is_applied():
    """Fails for the release's data race (BUILD_NOTES trap 5)."""
    model = gan()
    reference = gan()
    inputs, keep_mask, dropout = INPUTS
    tf.function(model.apply_step)(*INPUTS)
    optimizers = (model.optimizer, model.g_optimizer)
    factors = [*optimizers[0]._factors, *optimizers[1]._factors]
    moments = [moment.numpy() for moment in (*optimizers[0]._momentums, *optimizers[1]._momentums)]

    def expected(inputs) -> dict:
        _, _, d_gradients, g_gradients = reference.gradients(tf.constant(inputs), keep_mask, dropout)
        pairs = zip(factors, [*d_gradients, *g_gradients], strict=True)
        return {index: 0.5 * factor * gradient for index, (factor, gradient) in enumerate(pairs)}

    difference = rounding.largest_difference(expected(inputs), dict(enumerate(moments)))
    assert difference <= rounding.allowed_for(expected, inputs)


def test_generator_losses_differ():
    """Fails if the switch has no effect (BUILD_NOTES trap 3)."""
    release = repair_gradient(reconstruction_weight=0.0)
    paper = repair_gradient(reconstruction_weight=0.0, generator_loss="non_saturating")
    cosine = release @ paper / np.linalg.norm(release) / np.linalg.norm(paper)
    assert cosine < 0.9
    assert np.linalg.norm(paper) > 0


def test_mask_loss_in_the_generator():
    """Fails if the paper's generator minimises it, or the release's does not."""
    light, heavy = (repair_gradient(generator_loss="non_saturating", mask_weight=w) for w in (0.1, 10.0))
    np.testing.assert_array_equal(light, heavy)
    light, heavy = (repair_gradient(generator_loss="confusion", mask_weight=w) for w in (0.1, 10.0))
    assert not np.allclose(light, heavy, rtol=0.1)


def test_generator_terms_do_not_reach_the_discriminator():
    """Fails if it minimises the reconstruction or swapped labels."""
    release = discriminator_gradients()
    for overrides in ({"generator_loss": "non_saturating"}, {"reconstruction_weight": 300.0}):
        for ours, theirs in zip(release, discriminator_gradients(**overrides), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("generator_loss", ["confusion", "non_saturating"])
def test_totals(generator_loss):
    """Fails if a total lacks a term, or counts it twice."""
    model = gan(generator_loss=generator_loss)
    inputs, keep_mask, dropout = INPUTS
    terms = model.compute_losses(inputs, keep_mask, model.forward(inputs, keep_mask, dropout))
    terms = {name: float(value) for name, value in terms.items()}
    disc_total = terms["real_or_fake"] + terms["mask"] + terms["l2"]
    gen_total = terms["generator"] + terms["masked_reconstruction"]
    gen_total += disc_total if generator_loss == "confusion" else terms["l2"]
    np.testing.assert_allclose([terms["disc_total"], terms["gen_total"]], [disc_total, gen_total], rtol=1e-5)


@pytest.mark.parametrize(("reconstruct", "kept"), [("kept", 1), ("dropped", 0), ("all", None)])
def test_pixels_with_a_reconstruction_loss(reconstruct, kept):
    """Fails if the loss falls on other pixels (BUILD_NOTES trap 2)."""
    model = gan(reconstruct=reconstruct)
    inputs, keep_mask, dropout = INPUTS
    outputs = model.forward(inputs, keep_mask, dropout)
    squares = np.square(outputs.repaired - inputs)
    pixel_mask = keep_mask.numpy().repeat(8, 1).repeat(8, 2)[..., 0]
    chosen = squares if kept is None else squares[pixel_mask == kept]
    loss = model.compute_losses(inputs, keep_mask, outputs)["masked_reconstruction"]
    np.testing.assert_allclose(loss, 30 * chosen.mean(), rtol=1e-5)


@pytest.mark.parametrize("real_source", ["reconstruction", "image", "mixed"])
def test_real_images(real_source):
    """Fails if the discriminator's first half shows something else."""
    model = gan(real_source=real_source)
    outputs = model.forward(images(), tf.ones([4, 4, 4, 1]), training=False)
    halves = tf.stack([outputs.reconstruction[0], images()[1], outputs.reconstruction[2], images()[3]])
    shown = {"reconstruction": outputs.reconstruction, "image": images(), "mixed": halves}[real_source]

    def alone(shown):
        return model.discriminator(shown, training=False)["logits"]

    difference = rounding.difference(alone(shown), outputs.discriminator["logits"][:4])
    assert difference <= rounding.allowed_for(alone, shown)
    assert not np.allclose(outputs.reconstruction, images(), atol=1e-2)


@pytest.mark.parametrize("kept", [0.0, 1.0])
def test_masks_at_the_ends(kept):
    """Fails for 0 / 0, or a repair of cells that are all kept."""
    model = gan()
    terms, outputs, d_gradients, g_gradients = model.gradients(images(), tf.fill(KEEP_MASK.shape, kept), DROPOUT)
    assert all(np.isfinite(gradient).all() for gradient in [*d_gradients, *g_gradients])
    if kept:
        np.testing.assert_array_equal(outputs.repaired, outputs.reconstruction)
    else:
        assert float(terms["masked_reconstruction"]) == 0


def test_masks_are_a_function_of_seed_and_step():
    """Fails for masks that repeat, or differ after a resume."""
    model = gan()
    first = model.draw(5, 8)
    again = gan().draw(tf.constant(5, tf.int64), 8)
    later = model.draw(6, 8)
    other = gan(seed=2).draw(5, 8)
    for index, mask in enumerate(first):  # the numbers of the corruption included
        np.testing.assert_array_equal(mask, again[index])
        assert not np.array_equal(mask, later[index])
        assert not np.array_equal(mask, other[index])
    keep_mask, dropout, _ = first
    assert keep_mask.shape == (8, 4, 4, 1)
    assert dropout.shape == (16, 1, 1, 16)
    assert not np.array_equal(dropout[:8], dropout[8:])


def test_mask_probabilities():
    """Fails if 0.3 is the probability to drop, or dropout is inverted."""
    keep_mask, dropout, _ = gan(fc_units=64, dropout_keep=0.8).draw(0, 2000)
    np.testing.assert_allclose(np.mean(keep_mask), 0.3, atol=0.011)  # 4 sd of 32,000 cells
    np.testing.assert_allclose(np.mean(dropout), 0.8, atol=0.004)


@pytest.mark.parametrize(
    ("graph", "name"),
    [(True, "masked_reconstruction"), (False, "mask"), pytest.param(False, "masked_reconstruction", marks=SLOW)],
)
def test_loss_that_is_not_finite(graph, name):
    """Fails if a step with NaN changes a player, or names no term."""
    model = gan()
    inputs, keep_mask, dropout = INPUTS
    if name == "mask":
        model.discriminator.mask_head.bias.assign([np.inf])
    else:
        inputs = tf.tensor_scatter_nd_update(inputs, [[0, 0, 0, 0]], [float("nan")])
        keep_mask = tf.ones_like(keep_mask)
    before = {v.path: v.numpy().copy() for v in model.trainable_variables}
    step = tf.function(model.apply_step) if graph else model.apply_step
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"loss term '\w+' is not finite"):
        step(inputs, keep_mask, dropout)
    for variable in model.trainable_variables:
        np.testing.assert_array_equal(variable.numpy(), before[variable.path], err_msg=variable.path)


def test_bfloat16_agrees():
    """Fails for bfloat16 losses or variables, or losses further off than its 8 bits."""
    low = gan("mixed_bfloat16")
    full = gan()
    inputs = images(16)
    keep_mask = tf.tile(KEEP_MASK, [4, 1, 1, 1])
    dropout = tf.tile(DROPOUT, [4, 1, 1, 1])
    ours = low.compute_losses(inputs, keep_mask, low.forward(tf.cast(inputs, tf.bfloat16), keep_mask, dropout))
    theirs = full.compute_losses(inputs, keep_mask, full.forward(inputs, keep_mask, dropout))
    for name, value in ours.items():
        assert value.dtype == tf.float32
        np.testing.assert_allclose(value, theirs[name], rtol=0.05, err_msg=name)
    low.apply_step(inputs, keep_mask, dropout)
    assert {variable.dtype for variable in low.variables} == {"float32"}
    assert {variable.dtype for variable in low.optimizer._momentums} == {"float32"}


def test_gradient_norms():
    """Fails if norms are exchanged, or of both players together."""
    _, _, d_gradients, g_gradients = gan().gradients(*INPUTS)
    logs = gan().apply_step(*INPUTS)
    for name, gradients in (("disc_gradient_norm", d_gradients), ("repair_gradient_norm", g_gradients)):
        expected = np.sqrt(sum(np.sum(np.square(gradient)) for gradient in gradients))
        assert float(logs[name]) == pytest.approx(expected, rel=1e-4), name


def test_pictures():
    """Fails for rows outside [-1, 1], or of other sizes."""
    rows = gan().pictures(images())
    assert list(rows) == ["image", "reconstruction", "damaged", "repaired", "keep mask", "predicted mask"]
    for name, row in rows.items():
        assert row.shape == (4, 32, 32, 1 if "mask" in name else 3), name
        assert float(tf.reduce_max(tf.abs(row))) <= 1
