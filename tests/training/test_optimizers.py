"""The optimizers against NumPy and Keras, and their learning rate."""

import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from lts.config import ConfigError, preset
from lts.training.optimizers import OPTIMIZERS, MomentumSGD, ReleaseAdam, build_optimizer, linear_decay
from tests.fixtures import models, oracles

RATE = 3e-4


def variables() -> dict:
    """Return a kernel, biases and a beta, by name."""
    rs = np.random.RandomState(0)
    names = ("kernel", "bias", "beta")
    return {name: keras.Variable(rs.standard_normal(6).astype(np.float32), name=name) for name in names}


def gradients(step: int) -> list:
    """Return gradients of three sizes, the smallest near Adam's epsilon."""
    rs = np.random.RandomState(100 + step)
    return [(rs.standard_normal(6) * 10.0**-power).astype(np.float32) for power in (0, 2, 5)]


def optimizer(**options) -> ReleaseAdam:
    """Return Adam with the release's constants."""
    return ReleaseAdam(RATE, **{"beta_1": 0.5, "beta_2": 0.999, "epsilon": 1e-5, "ema_decay": 0.9999, **options})


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_against_oracle(graph):
    """Fails if epsilon is inside the bias correction, or averages take the value after the step (traps 11, 14)."""
    ours = optimizer()
    names = variables()
    oracle = {name: oracles.Adam(v.numpy(), 2.0 if name == "bias" else 1.0) for name, v in names.items()}
    ours.build(list(names.values()))
    apply = tf.function(ours.apply) if graph else ours.apply
    for step in range(12):
        apply([tf.constant(g) for g in gradients(step)])
        for adam, gradient in zip(oracle.values(), gradients(step), strict=True):
            adam.step(gradient, RATE, beta_2=float(np.float32(0.999)))  # as TensorFlow rounds it
    slots = zip(ours._momentums, ours._velocities, ours.averages, strict=True)
    for (name, variable), (momentum, velocity, average) in zip(names.items(), slots, strict=True):
        adam = oracle[name]
        np.testing.assert_allclose(variable.numpy(), adam.value, rtol=1e-5, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(momentum.numpy(), adam.m, rtol=1e-5, atol=1e-9, err_msg=name)
        np.testing.assert_allclose(velocity.numpy(), adam.v, rtol=1e-5, atol=1e-15, err_msg=name)
        np.testing.assert_allclose(average.numpy(), adam.average, rtol=1e-5, atol=1e-6, err_msg=name)


def test_first_step_moves_by_the_rate():
    """Fails without the bias correction: the first step would be 16 times too small."""
    ours = optimizer()
    names = variables()
    before = names["kernel"].numpy()
    ours.apply([np.ones(6, np.float32), *gradients(0)[1:]], list(names.values()))
    np.testing.assert_allclose(before - names["kernel"].numpy(), RATE / (1 + 1e-5 / np.sqrt(1e-3)), rtol=1e-3)


def test_without_bias_factor_it_is_the_adam_of_keras():
    """Fails if the fused operation differs from Keras' own update."""
    ours = optimizer(bias_gradient_factor=1.0)
    theirs = keras.optimizers.Adam(RATE, beta_1=0.5, beta_2=0.999, epsilon=1e-5)
    names = variables()
    twins = variables()
    for step in range(5):
        ours.apply(gradients(step), list(names.values()))
        theirs.apply([tf.constant(g) for g in gradients(step)], list(twins.values()))
    for name, variable in names.items():
        np.testing.assert_allclose(variable.numpy(), twins[name].numpy(), rtol=1e-5, atol=1e-6, err_msg=name)


def test_average_starts_at_the_weights_and_warms_up():
    """Fails if an average starts at 0, or decays by 0.9999 from the first step."""
    ours = optimizer()
    names = variables()
    start = names["kernel"].numpy()
    ours.apply(gradients(0), list(names.values()))
    np.testing.assert_array_equal(ours.averages[0].numpy(), start)
    first = names["kernel"].numpy()
    ours.apply(gradients(1), list(names.values()))
    np.testing.assert_allclose(ours.averages[0].numpy(), 2 / 11 * start + 9 / 11 * first, rtol=1e-6)


def test_no_average():
    """Fails if averages take memory with `ema_decay` 0."""
    ours = optimizer(ema_decay=0.0)
    names = variables()
    ours.build(list(names.values()))
    assert not ours.averages
    assert not [variable.path for variable in ours.variables if "average" in variable.path]


@pytest.mark.parametrize(
    ("step", "factor"), [(0, 1.0), (450, 1 - 0.99 * 0.5), (899, 1 - 0.99 * 899 / 900), (900, 0.01), (5000, 0.01)]
)
def test_linear_decay(step, factor):
    """Fails if the rate decays over all steps instead of 90 %, or to 0 (trap 12)."""
    np.testing.assert_allclose(linear_decay(RATE, 1000)(step), RATE * factor, rtol=1e-5)


def test_rate_is_that_before_the_step():
    """Fails if the schedule sees the step after its increment."""
    ours = optimizer()
    names = variables()
    ours.learning_rate = linear_decay(RATE, 10, end_lr_fraction=0.01, decay_fraction=0.9)
    assert float(ours.learning_rate) == pytest.approx(RATE)
    ours.apply(gradients(0), list(names.values()))
    assert float(ours.learning_rate) == pytest.approx(RATE * (1 - 0.99 / 9))


def test_built_from_the_configuration():
    """Fails if a constant of the configuration does not reach `ReleaseAdam`."""
    stage = preset("tiny", beta_1=0.4, beta_2=0.99, epsilon=1e-4, bias_gradient_factor=3.0, ema_decay=0.9).gan_training
    ours = build_optimizer(stage, 100, 1e-2)
    assert (ours.beta_1, ours.beta_2, ours.epsilon) == (0.4, 0.99, 1e-4)
    assert (ours.bias_gradient_factor, ours.ema_decay) == (3.0, 0.9)
    assert float(ours.learning_rate) == pytest.approx(1e-2)


def test_sgd_is_built_from_a_protocol():
    """Fails if a constant of a protocol does not reach `MomentumSGD`."""
    protocol = types.SimpleNamespace(
        optimizer="sgd", momentum=0.8, nesterov=True, bias_gradient_factor=2.0, global_clipnorm=3.0
    )
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([10], [0.1, 0.01])
    sgd = build_optimizer(protocol, 100, schedule)
    assert isinstance(sgd, MomentumSGD)
    assert (sgd.momentum, sgd.nesterov, sgd.bias_gradient_factor, sgd.summed_clipnorm) == (0.8, True, 2.0, 3.0)
    assert float(sgd.learning_rate) == pytest.approx(0.1)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_config_round_trip(name):
    """Fails if `get_config` forgets an argument."""
    optimizer_class = OPTIMIZERS[name]
    built = optimizer_class(RATE, bias_gradient_factor=3.0, summed_clipnorm=0.5, weight_decay=0.1)
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(built))
    assert type(copy) is optimizer_class
    assert copy.get_config() == built.get_config()
    assert (copy.bias_gradient_factor, copy.summed_clipnorm) == (3.0, 0.5)


def test_an_optimizer_that_would_not_clip(monkeypatch):
    """Fails if a user's optimizer without the project's additions is accepted, and ignores `global_clipnorm`."""
    monkeypatch.setattr(OPTIMIZERS, "_entries", {"plain": keras.optimizers.Adam})
    stage = preset("tiny", optimizer="plain").gan_training
    with pytest.raises(ConfigError, match=r"must be a subclass of SharedOptimizer.*optimizer='plain'"):
        build_optimizer(stage, 100, RATE)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_keeps_averages_and_clips(name):
    """Fails if an optimizer ignores `ema_decay`, `global_clipnorm` or `bias_gradient_factor`."""
    stage = preset("tiny", optimizer=name, ema_decay=0.9, global_clipnorm=0.5, bias_gradient_factor=3.0).gan_training
    ours = build_optimizer(stage, 100, RATE)
    names = variables()
    start = names["kernel"].numpy()
    given = gradients(0)
    ours.apply([tf.constant(g) for g in given], list(names.values()))
    np.testing.assert_array_equal(ours.averages[0].numpy(), start)
    assert "average" in ours.averages[0].path
    norm = np.sqrt(sum(np.sum(g**2) for g in given))
    assert float(ours.gradient_norm) == pytest.approx(norm, rel=1e-6)
    assert (ours.summed_clipnorm, ours._factors) == (0.5, [1.0, 3.0, 1.0])
    assert (names["kernel"].numpy() != start).all()
    ours.reset_averages()
    for average, variable in zip(ours.averages, names.values(), strict=True):
        np.testing.assert_array_equal(average.numpy(), variable.numpy())


@pytest.mark.parametrize(("name", "decoupled"), [("adamw", False), ("adamw", True), ("adam", True), ("sgd", True)])
@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_decoupled_weight_decay(name, decoupled, graph):
    """Fails if biases or betas decay, or a kernel by another amount than rate * weight_decay * kernel."""
    stage = preset("tiny", optimizer=name, decoupled_weight_decay=decoupled).gan_training
    ours = build_optimizer(stage, 100, 0.1, weight_decay=0.5)
    names = variables()
    before = {name: variable.numpy() for name, variable in names.items()}
    ours.build(list(names.values()))
    zeros = [tf.zeros([6])] * 3
    apply = tf.function(ours.apply) if graph else ours.apply
    apply(zeros)
    np.testing.assert_allclose(names["kernel"].numpy(), before["kernel"] * 0.95, rtol=1e-6)
    np.testing.assert_array_equal(names["bias"].numpy(), before["bias"])
    np.testing.assert_array_equal(names["beta"].numpy(), before["beta"])


def test_weight_decay_is_either_in_the_loss_or_decoupled():
    """Fails if weights decay twice or not at all."""
    assert build_optimizer(preset("tiny").gan_training, 100, RATE, weight_decay=0.5).weight_decay is None
    for overrides, decays in (({}, True), ({"optimizer": "adamw"}, False), ({"decoupled_weight_decay": True}, False)):
        model = models.autoencoder(**overrides, weight_decay=0.5)
        assert (float(model.compute_losses(models.images())["l2"]) > 0) == decays
        assert model.optimizer.weight_decay == (None if decays else 0.5)


def test_keras_still_has_the_method_that_clipping_overrides():
    """Fails if a Keras release drops the private method behind `SharedOptimizer`: nothing would be clipped."""
    name = "_all_reduce_sum_gradients"
    message = f"Keras {keras.__version__} has no Optimizer.{name}: SharedOptimizer must override what replaces it"
    assert callable(getattr(keras.optimizers.Optimizer, name, None)), message
    calls = []
    sgd = MomentumSGD(RATE)
    reduce = sgd._all_reduce_sum_gradients
    sgd._all_reduce_sum_gradients = lambda pairs: calls.append(name) or reduce(pairs)
    sgd.apply([tf.constant([1.0])], [keras.Variable([1.0])])
    assert calls == [name], f"Keras {keras.__version__} no longer calls Optimizer.{name} in apply(): nothing is clipped"


def test_clipping_by_the_global_norm():
    """Fails if tensors are clipped one by one, biases count twice in the norm, or small gradients grow."""
    ours = optimizer(summed_clipnorm=0.5)
    names = variables()
    given = gradients(0)
    norm = np.sqrt(sum(np.sum(g**2) for g in given))
    assert norm > 0.5
    ours.apply([tf.constant(g) for g in given], list(names.values()))
    assert float(ours.gradient_norm) == pytest.approx(norm, rel=1e-6)
    for momentum, gradient, factor in zip(ours._momentums, given, (1, 2, 1), strict=True):
        np.testing.assert_allclose(momentum.numpy(), 0.5 * factor * gradient * 0.5 / norm, rtol=1e-5)
    small = [g / (10 * norm) for g in given]
    ours = optimizer(summed_clipnorm=0.5)
    names = variables()
    ours.apply([tf.constant(g) for g in small], list(names.values()))
    assert float(ours.gradient_norm) == pytest.approx(0.1, rel=1e-5)
    np.testing.assert_allclose(ours._momentums[0].numpy(), 0.5 * small[0], rtol=1e-5)


def test_the_gradient_norm_is_there_without_clipping():
    """Fails if the norm is recorded only when it is clipped."""
    ours = optimizer()
    names = variables()
    ours.apply([tf.constant(g) for g in gradients(0)], list(names.values()))
    norm = np.sqrt(sum(np.sum(g**2) for g in gradients(0)))
    assert float(ours.gradient_norm) == pytest.approx(norm, rel=1e-6)
