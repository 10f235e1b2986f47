"""Stage 2: what moves in a step, whose gradient is whose, the random numbers."""

import numpy as np
import pytest
import tensorflow as tf

from tests.fixtures.models import gan, images, moved, snapshot


def random_inputs(batch: int = 4):
    """Images, a keep mask with both values, and dropout for 2 * batch rows."""
    rs = np.random.RandomState(3)
    keep = (rs.uniform(size=(batch, 4, 4, 1)) < 0.5).astype(np.float32)
    dropout = (rs.uniform(size=(2 * batch, 1, 1, 16)) < 0.5).astype(np.float32)
    return images(batch), tf.constant(keep), tf.constant(dropout)


@pytest.mark.parametrize(
    ("graph", "repair", "generator_loss"),
    [
        (False, True, "confusion"),
        (True, True, "confusion"),
        (False, False, "confusion"),
        (False, True, "non_saturating"),
        (False, False, "non_saturating"),
    ],
)
def test_what_moves(graph, repair, generator_loss):
    """Encoder or decoder that drift, batch norm included (REFERENCE trap 15); a player that stands still."""
    model = gan(repair=repair, generator_loss=generator_loss)
    before = snapshot(model)
    step = tf.function(model.train_step) if graph else model.train_step
    step(images())
    players = [model.discriminator, *([model.repair] if repair else [])]
    assert moved(model, before) == {v.path for player in players for v in player.variables}
    assert int(model.optimizer.iterations) == 1
    assert int(model.g_optimizer.iterations) == int(repair)


def test_trainable_variables_are_the_players():
    """Frozen networks that Keras counts, or would train."""
    model = gan()
    players = model.repair.trainable_variables + model.discriminator.trainable_variables
    assert {id(v) for v in model.trainable_variables} == {id(v) for v in players}


def test_no_gradient_reaches_the_frozen_networks_inputs():
    """A generator's loss that leaks into the encoder through the reconstruction: features are cut off."""
    model = gan()
    inputs, keep, dropout = random_inputs()
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        out = model.forward(inputs, keep, dropout)
        loss = tf.reduce_sum(out.reconstruction) + tf.reduce_sum(out.repaired)
    assert tape.gradient(loss, inputs) is None


def test_both_gradients_before_either_is_applied():
    """The release's data race: repair gradients through an updated discriminator (REFERENCE trap 5)."""
    inputs = random_inputs()
    model, reference = gan(), gan()
    _, _, d_gradients, g_gradients = reference.gradients(*inputs)
    tf.function(model.apply_step)(*inputs)
    for optimizer, gradients in ((model.optimizer, d_gradients), (model.g_optimizer, g_gradients)):
        for momentum, gradient, factor in zip(optimizer._momentums, gradients, optimizer._factors, strict=True):
            np.testing.assert_allclose(
                momentum.numpy(), 0.5 * factor * gradient, rtol=1e-3, atol=1e-5 * np.abs(gradient).max()
            )


def gradient_of_repair(**overrides) -> np.ndarray:
    """The repair network's gradient as one vector."""
    return np.concatenate([np.ravel(g) for g in gan(**overrides).gradients(*random_inputs())[3]])


def test_generator_losses_differ():
    """A switch without an effect (REFERENCE trap 3)."""
    release = gradient_of_repair(reconstruction_weight=0.0)
    paper = gradient_of_repair(reconstruction_weight=0.0, generator_loss="non_saturating")
    cosine = release @ paper / np.linalg.norm(release) / np.linalg.norm(paper)
    assert cosine < 0.9
    assert np.linalg.norm(paper) > 0


def test_paper_loss_leaves_the_mask_head_alone():
    """The paper's generator is not paid for the discriminator's mask prediction; the release's is."""
    light, heavy = (gradient_of_repair(generator_loss="non_saturating", mask_weight=w) for w in (0.1, 10.0))
    np.testing.assert_array_equal(light, heavy)
    light, heavy = (gradient_of_repair(generator_loss="confusion", mask_weight=w) for w in (0.1, 10.0))
    assert not np.allclose(light, heavy, rtol=0.1)


def test_generator_terms_do_not_reach_the_discriminator():
    """A discriminator that minimises the reconstruction, or the swapped labels."""
    gradients = [
        gan(**options).gradients(*random_inputs())[2] for options in ({}, {"generator_loss": "non_saturating"})
    ]
    for release, paper in zip(*gradients, strict=True):
        np.testing.assert_array_equal(release, paper)
    other = gan(reconstruction_weight=300.0).gradients(*random_inputs())[2]
    for ours, theirs in zip(gradients[0], other, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_losses_are_sums_of_their_terms():
    """A term left out of a total, or counted twice."""
    for generator_loss in ("confusion", "non_saturating"):
        model = gan(generator_loss=generator_loss)
        inputs, keep, dropout = random_inputs()
        terms = model.compute_losses(inputs, keep, model.forward(inputs, keep, dropout))
        parts = {name: float(value) for name, value in terms.items()}
        disc = parts["real_or_fake"] + parts["mask"] + parts["l2"]
        own = parts["generator"] + parts["masked_reconstruction"]
        gen = own + (disc if generator_loss == "confusion" else parts["l2"])
        np.testing.assert_allclose([parts["disc_total"], parts["gen_total"]], [disc, gen], rtol=1e-5)


@pytest.mark.parametrize(("reconstruct", "pixels"), [("kept", 1), ("dropped", 0), ("all", None)])
def test_pixels_with_a_reconstruction_loss(reconstruct, pixels):
    """The masked loss on the other pixels (REFERENCE trap 2)."""
    model = gan(reconstruct=reconstruct)
    inputs, keep, dropout = random_inputs()
    out = model.forward(inputs, keep, dropout)
    squares = np.square(out.repaired - inputs)
    mask = keep.numpy().repeat(8, 1).repeat(8, 2)[..., 0]
    chosen = squares if pixels is None else squares[mask == pixels]
    loss = model.compute_losses(inputs, keep, out)["masked_reconstruction"]
    np.testing.assert_allclose(loss, 30 * chosen.mean(), rtol=1e-5)


@pytest.mark.parametrize("real_source", ["reconstruction", "image", "mixed"])
def test_what_is_shown_as_real(real_source):
    """The discriminator's first half sees the reconstructions, the images as they are, or half of each."""
    model = gan(real_source=real_source)
    keep = tf.ones([4, 4, 4, 1])
    out = model.forward(images(), keep, training=False)
    halves = tf.concat([out.reconstruction[::2], images()[1::2]], 0)
    shown = {"reconstruction": out.reconstruction, "image": images(), "mixed": halves}[real_source]
    alone = model.discriminator(shown, training=False)
    np.testing.assert_allclose(out.discriminator["logits"][:4], alone["logits"], rtol=1e-5, atol=1e-6)
    assert not np.allclose(out.reconstruction, images(), atol=1e-2)


@pytest.mark.parametrize("kept", [0.0, 1.0])
def test_masks_at_the_ends(kept):
    """Nothing kept: loss 0 and finite gradients. Everything kept: the repaired image is the reconstruction."""
    model = gan()
    inputs, keep, dropout = random_inputs()
    terms, out, d_gradients, g_gradients = model.gradients(inputs, tf.fill(keep.shape, kept), dropout)
    assert all(np.isfinite(gradient).all() for gradient in [*d_gradients, *g_gradients])
    if kept:
        np.testing.assert_array_equal(out.repaired, out.reconstruction)
    else:
        assert float(terms["masked_reconstruction"]) == 0


def test_draw_is_a_function_of_seed_and_step():
    """A mask that repeats at every step, or differs after a resume; masks and dropout from the same numbers."""
    model = gan()
    first, again, later = model.draw(5, 8), gan().draw(tf.constant(5, tf.int64), 8), model.draw(6, 8)
    other = gan(seed=2).draw(5, 8)
    for index, (ours, theirs) in enumerate(zip(first, again, strict=True)):
        np.testing.assert_array_equal(ours, theirs)
        assert not np.array_equal(ours, later[index])
        assert not np.array_equal(ours, other[index])
    keep, dropout = first
    assert keep.shape == (8, 4, 4, 1)
    assert dropout.shape == (16, 1, 1, 16)
    assert not np.array_equal(dropout[:8], dropout[8:])


def test_draw_probabilities():
    """0.3 as the probability to drop, dropout the wrong way round."""
    model = gan(fc_units=64, dropout_keep=0.8)
    keep, dropout = model.draw(0, 2000)
    np.testing.assert_allclose(np.mean(keep), 0.3, atol=0.011)  # 4 sd of 32,000 cells
    np.testing.assert_allclose(np.mean(dropout), 0.8, atol=0.004)


@pytest.mark.parametrize(
    ("graph", "name"), [(False, "masked_reconstruction"), (True, "masked_reconstruction"), (False, "mask")]
)
def test_loss_that_is_not_finite(graph, name):
    """The step raises, names the term, and no weight changes, of either player."""
    model = gan()
    inputs, keep, dropout = random_inputs()
    if name == "mask":
        model.discriminator.mask_head.bias.assign([np.inf])
    else:
        inputs = tf.tensor_scatter_nd_update(inputs, [[0, 0, 0, 0]], [float("nan")])
        keep = tf.ones_like(keep)
    before = {v.path: v.numpy().copy() for v in model.trainable_variables}
    step = tf.function(model.apply_step) if graph else model.apply_step
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"loss term '\w+' is not finite"):
        step(inputs, keep, dropout)
    for variable in model.trainable_variables:
        np.testing.assert_array_equal(variable.numpy(), before[variable.path], err_msg=variable.path)


def test_bfloat16_agrees():
    """Losses or variables in bfloat16; losses further off than its 8 bits through the deepest path."""
    inputs, keep, dropout = random_inputs(16)
    low, full = gan("mixed_bfloat16"), gan()
    ours = low.compute_losses(inputs, keep, low.forward(tf.cast(inputs, tf.bfloat16), keep, dropout))
    theirs = full.compute_losses(inputs, keep, full.forward(inputs, keep, dropout))
    for name, value in ours.items():
        assert value.dtype == tf.float32
        np.testing.assert_allclose(value, theirs[name], rtol=0.05, err_msg=name)
    low.apply_step(inputs, keep, dropout)
    assert {variable.dtype for variable in low.variables} == {"float32"}
    assert {variable.dtype for variable in low.optimizer._momentums} == {"float32"}


def test_gradient_norms_are_each_players_own():
    """Norms exchanged, or of both players together."""
    model, batch = gan(), images()
    keep, dropout = model.draw(0, 4)
    _, _, *players = model.gradients(batch, keep, dropout)
    logs = gan().apply_step(batch, keep, dropout)
    for name, gradients in zip(("disc_gradient_norm", "repair_gradient_norm"), players, strict=True):
        expected = np.sqrt(sum(np.sum(np.square(gradient)) for gradient in gradients))
        assert float(logs[name]) == pytest.approx(expected, rel=1e-4), name


def test_pictures():
    """Rows outside [-1, 1], or of other sizes."""
    rows = gan().pictures(images())
    assert list(rows) == ["image", "reconstruction", "damaged", "repaired", "keep mask", "predicted mask"]
    for name, row in rows.items():
        assert row.shape == (4, 32, 32, 1 if "mask" in name else 3), name
        assert float(tf.reduce_max(tf.abs(row))) <= 1
