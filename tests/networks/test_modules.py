"""Suites over every module of tests/fixtures/registry.py.

The quick set runs each suite in one mode or precision, the slow set in the other too.
"""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.fixtures import rounding
from tests.fixtures.registry import MODULES

pytestmark = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
INFERENCE = pytest.param(False, id="inference")
TRAINING = pytest.param(True, id="training")
SLOW_INFERENCE = pytest.param(False, id="inference", marks=pytest.mark.slow)
SLOW_TRAINING = pytest.param(True, id="training", marks=pytest.mark.slow)


def assert_equal(ours: dict, theirs: dict, **tolerance):
    """Assert the same names and numbers."""
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        value = tf.cast(value, tf.float32)
        np.testing.assert_allclose(value, tf.cast(theirs[name], tf.float32), err_msg=name, **tolerance)


def with_statistics(network, outputs: dict) -> dict:
    """Return the outputs of a call, and the batch norm statistics after it."""
    statistics = [variable.numpy() for variable in network.non_trainable_variables]
    return {**outputs, **{f"statistic {index}": value for index, value in enumerate(statistics)}}


@functools.cache
def allowed(module, training: bool) -> float:
    """Return the allowed difference of two calls, by calls with nudged inputs and weights."""

    def call(network, inputs) -> dict:
        return with_statistics(network, module.run(network, inputs, training))

    expected = call(module.build(), module.draw())
    controls = []
    for seed in rounding.SEEDS[:2]:  # outputs are continuous: no jumps that only more seeds show
        network = module.build()
        rounding.nudge_weights(network, seed)
        inputs = [tf.constant(rounding.nudge(x, seed)) for x in module.draw()]
        controls.append(rounding.largest_difference(expected, call(network, inputs)))
    return rounding.allowed(controls)


def test_parameters(module):
    """Fails for a weight too many or too few, or paths that repeat."""
    network = module.build()
    assert sum(int(np.prod(variable.shape)) for variable in network.trainable_variables) == module.parameters
    paths = [variable.path for variable in network.variables]
    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize("training", [INFERENCE, SLOW_TRAINING])
def test_deterministic(module, training):
    """Fails for random numbers inside, or statistics that inference moves."""
    first = module.build()
    second = module.build()
    assert_equal(module.run(first, module.draw(), training), module.run(second, module.draw(), training), rtol=0)
    if not training:
        for ours, theirs in zip(first.variables, module.build().variables, strict=True):
            np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=ours.path)


@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.slow), "mixed_bfloat16"])
def test_config_round_trip(module, dtype):
    """Fails if the config forgets an argument, the name or the precision."""
    network = module.build(dtype)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(network))
    assert type(again) is type(network)
    assert again.get_config() == network.get_config()
    assert again.name == network.name
    assert again.compute_dtype == network.compute_dtype
    if not again.built:
        again.build(module.inputs[0])
    again.set_weights(network.get_weights())
    inputs = module.draw(network.compute_dtype)
    assert_equal(module.run(again, inputs), module.run(network, inputs), rtol=0)


def test_weights_round_trip(module, tmp_path):
    """Fails if a file lacks weights, or gives them to another layer."""
    network = module.build()
    if not isinstance(network, keras.Model):
        pytest.skip("a layer's weights are saved with its network")
    path = tmp_path / "module.weights.h5"
    network.save_weights(path)
    wanted = module.run(network, module.draw())
    for variable in network.variables:
        variable.assign(tf.zeros_like(variable.value))
    network.load_weights(path)
    assert_equal(module.run(network, module.draw()), wanted, rtol=0)


@pytest.mark.parametrize("training", [SLOW_INFERENCE, TRAINING])
def test_function_equals_eager(module, training):
    """Fails for Python values in the graph, or statistics it forgets."""
    eager = module.build()
    graph = module.build()
    inputs = module.draw()
    expected = with_statistics(eager, module.run(eager, inputs, training))
    outputs = with_statistics(graph, tf.function(lambda *x: module.run(graph, x, training))(*inputs))
    assert rounding.largest_difference(expected, outputs) <= allowed(module, training)


def test_any_batch_size(module):
    """Fails if the batch size is fixed, or images affect each other."""
    if module.name == "gan":
        pytest.skip("its outputs join real and repaired images")
    network = module.build()
    inputs = module.draw()
    outputs = module.run(network, inputs)
    first = module.run(network, [x[:1] for x in inputs])
    expected = {name: value[:1] for name, value in outputs.items()}
    assert rounding.largest_difference(expected, first) <= allowed(module, training=False)


@pytest.mark.parametrize("training", [INFERENCE, SLOW_TRAINING])
def test_mixed_precision(module, training):
    """Fails for bfloat16 variables or logits, or float32 activations."""
    network = module.build("mixed_bfloat16")
    outputs = module.run(network, module.draw("bfloat16"), training)
    assert {variable.dtype for variable in network.variables} == {"float32"}
    for name, value in outputs.items():
        assert value.dtype == (tf.float32 if name in module.float32 else tf.bfloat16), name
    if training:
        return  # batch norm over two images: fc_1's statistics magnify every rounding
    wanted = module.run(module.build(), module.draw(), training)
    for name, value in outputs.items():
        error = tf.norm(tf.cast(value, tf.float32) - wanted[name]) / tf.norm(wanted[name])
        assert error < 0.05, f"{name}: {error}"  # bfloat16 rounds to 0.4 %, over at most 20 layers
