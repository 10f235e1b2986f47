"""G10: two whole steps of the adversarial stage, both players, free of the release's data race."""

import types

import numpy as np
import pytest
import tensorflow as tf

from lts.release.checkpoint import release_variables
from lts.training.optimizers import build_optimizer
from tests.golden import recipe

STEPS = 1000  # of the golden runs' learning rate schedule


@pytest.fixture(scope="module")
def base(golden_adv):
    """The golden_*.npz of the same letter: seed, mask and dropout of the steps."""
    return recipe.Golden(golden_adv.path.with_name(golden_adv.path.name.replace("golden_adv_", "golden_")))


@pytest.fixture(scope="module")
def compiled(gan):
    """(model with its optimizers, apply_step as a tf.function), traced once."""
    config = gan.config.gan_training
    rates = config.learning_rate, config.repair_learning_rate
    gan.compile(*(build_optimizer(config, STEPS, rate) for rate in rates))
    gan.optimizer.build(gan.discriminator.trainable_variables)
    gan.g_optimizer.build(gan.repair.trainable_variables)
    return gan, tf.function(gan.apply_step)


@pytest.fixture(scope="module")
def steps(golden_adv, base, compiled):
    """Two steps on the recipe's two batches, in the first rounding that agrees (see `recipe.rounding`)."""
    return recipe.first_that_agrees(
        lambda number: Steps(*compiled, base, number),
        [lambda run: check_step(golden_adv, base, run, 1), lambda run: check_step(golden_adv, base, run, 2)],
    )


class Steps:
    """Two steps from the recipe's variables; the second one runs when it is asked for.

    Args:
      gan: the model.
      apply_step: its step as a tf.function.
      base: the `recipe.Golden` with seed, mask and dropout.
      rounding: number for `recipe.rounding`.
    """

    def __init__(self, gan, apply_step, base, rounding: int):
        self.gan, self.apply_step, self.base, self.rounding = gan, apply_step, base, rounding
        self.frozen = release_variables(gan.encoder, gan.decoder)
        self.players = release_variables(gan.repair, gan.discriminator)
        recipe.load({**self.frozen, **self.players})
        recipe.reset(gan.optimizer, gan.discriminator.trainable_variables)
        recipe.reset(gan.g_optimizer, gan.repair.trainable_variables)
        self.done = []

    def after(self, number: int) -> types.SimpleNamespace:
        """Returned loss, and values and (m, average) by release name, after step 1 or 2."""
        while len(self.done) < number:
            seed = int(self.base["seed"]) + 1000 * len(self.done)
            images = recipe.rounding(recipe.images(seed), self.rounding)
            inputs = images, self.base["mask"], self.base["g6_keep"].astype(np.float32)
            self.gan.means.reset_state()
            terms = self.apply_step(*map(tf.constant, inputs))
            self.done.append(
                types.SimpleNamespace(
                    loss=float(terms["disc_total"] + terms["gen_total"]),
                    values={name: variable.numpy() for name, variable in self.players.items()},
                    slots=slots(self.gan, self.players),
                )
            )
        return self.done[number - 1]


def check_step(golden_adv, base, run: Steps, number: int) -> None:
    """Loss of a step and weights after it.

    TensorFlow 1's inaccurate L2 of fc_1 counts twice, in both totals; one step changes it by less than the tolerance.
    """
    step = run.after(number)
    tolerance = (recipe.LOSS, recipe.ADV_STEP_2_LOSS)[number - 1]
    golden_adv.check_loss(f"loss_step{number}", step.loss, tolerance, 2 * recipe.fc_1_correction(base))
    values = {name: value for name, value in step.values.items() if "moving" not in name}
    tolerances = (recipe.ADV_AFTER_1, recipe.ADV_AFTER_2)[number - 1]
    recipe.check_updates(golden_adv, f"after{number}/", "", values, tolerances)


def slots(gan, players: dict) -> dict:
    """Release name of every trainable variable to (Adam's m, average)."""
    names, found = {id(variable): name for name, variable in players.items()}, {}
    for optimizer, network in ((gan.optimizer, gan.discriminator), (gan.g_optimizer, gan.repair)):
        lists = network.trainable_variables, optimizer._momentums, optimizer.averages
        for variable, momentum, average in zip(*lists, strict=True):
            found[names[id(variable)]] = momentum.numpy(), average.numpy()
    return found


@pytest.mark.parametrize("number", [1, 2])
def test_losses_and_weights(golden_adv, base, steps, number):
    """Both gradients taken before either is applied; one Adam's constants; who moves."""
    stored = {n for n in golden_adv.under(f"after{number}/") if not n.endswith(("/Adam", "/ExponentialMovingAverage"))}
    assert stored == set(steps.after(number).values)
    check_step(golden_adv, base, steps, number)


def test_batch_norm(golden_adv, steps):
    """Statistics move once a step: to the release's after the first, by its rule after the second."""
    for name, value in steps.after(1).values.items():
        if "moving" in name:
            golden_adv.check(f"after1/{name}", value, recipe.BN_STATISTICS, recipe.BN_STATISTICS)
    moving = {name: value for name, value in steps.after(2).values.items() if "moving" in name}
    recipe.check_updates(golden_adv, "after2/", "", moving, recipe.ADV_AFTER_2)


def test_momenta(golden_adv, steps):
    """M = 0.5 * gradient * bias factor after one step: the factor falls on biases alone."""
    for name, (momentum, _) in steps.after(1).slots.items():
        golden_adv.check(f"after1/{name}/Adam", momentum, recipe.G6_GRADIENT)


def test_averages(golden_adv, steps):
    """The averages of both players follow one step counter."""
    averages = {name: average for name, (_, average) in steps.after(2).slots.items()}
    recipe.check_updates(golden_adv, "after2/", "/ExponentialMovingAverage", averages, recipe.ADV_AFTER_2)


def test_encoder_and_decoder_stay(steps):
    """Any movement of the frozen networks, batch norm statistics included."""
    steps.after(2)
    for name, variable in steps.frozen.items():
        np.testing.assert_array_equal(variable.numpy(), recipe.recipe_array(name, variable.shape), err_msg=name)
