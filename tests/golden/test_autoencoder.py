"""G1: the autoencoder, forward, losses, gradients and three steps of training; G2: damage."""

import functools
import types

import numpy as np
import pytest
import tensorflow as tf

from lts import losses
from lts.config import DamageConfig, preset
from lts.models.autoencoder import Autoencoder
from lts.networks.corruption import CellDrop
from lts.release.checkpoint import release_variables
from lts.training.optimizers import build_optimizer
from tests.golden import recipe

STEPS = 1000  # of the golden runs' learning rate schedule


@pytest.fixture(scope="module")
def model():
    """The release's autoencoder, built once."""
    model = Autoencoder(preset("release"))
    model.build((None, 96, 96, 3))
    return model


def variables_of(model) -> dict:
    """Release name to variable of encoder and decoder."""
    return release_variables(model.encoder, model.decoder)


def values_of(variables: dict) -> dict:
    """Release name to a copy of the value."""
    return {name: variable.numpy() for name, variable in variables.items()}


@pytest.fixture(scope="module")
def passes(golden, model):
    """Inference and training passes, losses and raw gradients, all from the recipe's variables."""
    variables, images = variables_of(model), recipe.images(int(golden["seed"]))
    recipe.load(variables)
    features = model.encoder(images)
    out = {"infer_enc": features, "infer_rec": model.decoder(features)}
    features = model.encoder(images, training=True)
    out |= {"train_enc": features, "train_rec": model.decoder(features, training=True)}
    moved = values_of(variables)
    recipe.load(variables)
    trainable = {name: variable for name, variable in variables.items() if variable.trainable}
    with tf.GradientTape() as tape:
        terms = model.compute_losses(images)
    gradients = tape.gradient(terms["loss"], [variable.value for variable in trainable.values()])
    return types.SimpleNamespace(
        out=out, moved=moved, terms=terms, gradients=dict(zip(trainable, gradients, strict=True))
    )


@pytest.fixture(scope="module")
def compiled(model):
    """(model with its optimizer, train_step as a tf.function), traced once."""
    model.compile(optimizer=build_optimizer(model.config.autoencoder_training, STEPS, 3e-4))
    model.optimizer.build(model.trainable_variables)
    return model, tf.function(model.train_step)


@pytest.fixture(scope="module")
def trained(golden, compiled):
    """Three training steps on the recipe's three batches, in the first rounding that agrees (see `recipe.rounding`)."""
    return recipe.first_that_agrees(
        lambda number: three_steps(*compiled, int(golden["seed"]), number),
        [functools.partial(check, golden) for check in (check_losses, check_weights, check_slots)],
    )


def three_steps(model, step, seed: int, rounding: int) -> types.SimpleNamespace:
    """Rates, losses, values and slots by release name, and Adam's beta powers, from the recipe's variables."""
    variables, optimizer = variables_of(model), model.optimizer
    recipe.load(variables)
    recipe.reset(optimizer, model.trainable_variables)
    rates, step_losses = [], []
    for offset in (0, 1000, 2000):
        rates.append(float(optimizer.learning_rate))
        model.means.reset_state()
        images = recipe.rounding(recipe.images(seed + offset), rounding)
        step_losses.append(float(step(tf.constant(images))["loss"]))
    names = {id(variable): name for name, variable in variables.items()}
    lists = model.trainable_variables, optimizer._momentums, optimizer._velocities, optimizer.averages
    slots = {names[id(variable)]: [slot.numpy() for slot in rest] for variable, *rest in zip(*lists, strict=True)}
    powers = [beta ** (int(optimizer.iterations) + 1) for beta in (optimizer.beta_1, optimizer.beta_2)]
    return types.SimpleNamespace(
        rates=rates, losses=step_losses, values=values_of(variables), slots=slots, powers=powers
    )


def check_losses(golden, trained):
    """Losses before the updates of the three steps."""
    for step, (ours, theirs) in enumerate(zip(trained.losses, golden["g1_steps_loss"], strict=True)):
        recipe.note(f"loss of step {step}", abs(ours - theirs), recipe.G1_STEP_LOSS * abs(theirs))


def check_weights(golden, trained):
    """Updates of the weights."""
    values = {name: trained.values[name] for name in trained.slots}
    recipe.check_updates(golden, "g1_after3/", "", values, recipe.G1_AFTER_3)


def check_slots(golden, trained, numbers=(0, 1, 2)):
    """Adam's two moments, for whose median the README has no figure, and the averages."""
    for number in numbers:
        suffix = ("/Adam", "/Adam_1", "/ExponentialMovingAverage")[number]
        tolerances = recipe.G1_AFTER_3 if number == 2 else (recipe.G1_AFTER_3[0], None)
        values = {name: slots[number] for name, slots in trained.slots.items()}
        recipe.check_updates(golden, "g1_after3/", suffix, values, tolerances)


def test_recipe_images(golden):
    """The helper draws other images than the golden runs were fed with."""
    seed = int(golden["seed"])
    for name, offset in (("images", 0), ("g1_images_step2", 1000), ("g1_images_step3", 2000)):
        golden.check(name, recipe.images(seed + offset), 0.0)


@pytest.mark.parametrize("name", ["infer_enc", "infer_rec", "train_enc", "train_rec"])
def test_forward(golden, passes, name):
    """Padding, resize, layer order, leak, batch norm in either mode."""
    golden.check(f"g1_{name}", passes.out[name], recipe.FORWARD_L2, recipe.FORWARD_MAX)


def test_losses(golden, passes):
    """Weight of the squared error, mean over all numbers, L2's constant and sum."""
    for name, ours in (("loss_total", "loss"), ("loss_mse30", "reconstruction"), ("loss_l2", "l2")):
        golden.check_loss(f"g1_{name}", passes.terms[ours], recipe.LOSS)


def test_l2_terms(golden, model):
    """What weight decay falls on: too many, too few, or another constant."""
    variables = variables_of(model)
    recipe.load(variables)
    names = {id(variable): name for name, variable in variables.items()}
    ours = {names[id(weight)]: float(losses.l2([weight])) for weight in model.decayed_weights()}
    assert len(ours) == len(model.decayed_weights()) == 11
    assert ours == pytest.approx(recipe.l2_terms(golden, "g1"), rel=recipe.LOSS)


def test_gradients(golden, passes):
    """A wrong gradient of any layer; a variable too many or too few."""
    assert set(passes.gradients) == set(golden.under("g1_grad/"))
    for name, gradient in passes.gradients.items():
        golden.check(f"g1_grad/{name}", gradient, recipe.G1_GRADIENT)


def test_batch_norm_after_one_update(golden, passes):
    """Decay, and the unbiased variance in the moving average."""
    names = golden.under("g1_bn_after1/")
    assert set(names) == {name for name in passes.moved if "moving" in name}
    for name in names:
        golden.check(f"g1_bn_after1/{name}", passes.moved[name], recipe.BN_STATISTICS, recipe.BN_STATISTICS)


def test_rates_of_three_steps(golden, trained):
    """The schedule takes the step before increment."""
    np.testing.assert_allclose(trained.rates, golden["g1_steps_lr"], rtol=1e-6)  # one rounding of float32


def test_losses_of_three_steps(golden, trained):
    """The loss is that before the update, and the updates lead where the release's do."""
    check_losses(golden, trained)


def test_weights_after_three_steps(golden, trained):
    """Adam's epsilon, bias correction, bias factor; weights that do not move."""
    check_weights(golden, trained)


def test_batch_norm_after_three_steps(golden, trained):
    """Moving averages that are not updated at every step."""
    statistics = {name: value for name, value in trained.values.items() if "moving" in name}
    recipe.check_updates(golden, "g1_after3/", "", statistics, recipe.G1_AFTER_3)


@pytest.mark.parametrize("slot", [0, 1, 2], ids=["momentum", "velocity", "average"])
def test_slots_after_three_steps(golden, trained, slot):
    """Which gradients, with which factor, entered Adam's moments; which weights, how warmed up, the average.

    The average takes the value before the step, and the step count before increment.
    """
    check_slots(golden, trained, [slot])


def test_beta_powers(golden, trained):
    """Adam's step count."""
    for power, beta in zip(trained.powers, (1, 2), strict=True):
        np.testing.assert_allclose(power, golden[f"g1_after3/beta{beta}_power"], rtol=1e-6)


def test_damage(golden, passes):
    """G2: the border of the 3x3 average, and which cells are kept."""
    damaged = CellDrop(DamageConfig()).apply(passes.out["infer_enc"], golden["mask"])
    golden.check("g2_infer_enc_damaged", damaged, recipe.FORWARD_L2, recipe.FORWARD_MAX)
