"""Suites over every module of tests/fixtures/registry.py."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.fixtures.registry import MODULES

pytestmark = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)


def assert_equal(ours: dict, theirs: dict, **tolerance):
    """Same names, same numbers."""
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_allclose(
            tf.cast(value, tf.float32), tf.cast(theirs[name], tf.float32), err_msg=name, **tolerance
        )


def test_parameters(module):
    """A layer, bias or gamma too many or too few, or one that is not tracked."""
    assert sum(int(np.prod(v.shape)) for v in module.build().trainable_variables) == module.parameters


def test_paths_are_unique(module):
    """Variables that a checkpoint cannot tell apart."""
    paths = [variable.path for variable in module.build().variables]
    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_deterministic(module, training):
    """Random numbers or a state inside the module; inference that writes to the statistics."""
    if not module.deterministic:
        pytest.skip("is random by design")
    first, second = module.build(), module.build()
    outputs = [module.run(network, module.draw(), training) for network in (first, second)]
    assert_equal(*outputs, rtol=0)
    if not training:
        fresh = module.build()
        for ours, theirs in zip(first.variables, fresh.variables, strict=True):
            np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=ours.path)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_config_round_trip(module, dtype):
    """An argument, the name or the precision that the config forgets."""
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
    """Weights that a file does not hold, or gives to another layer."""
    network, path = module.build(), tmp_path / "module.weights.h5"
    if not isinstance(network, keras.Model):
        pytest.skip("a layer's weights are saved with its network")
    network.save_weights(path)
    wanted = module.run(network, module.draw())
    for variable in network.variables:
        variable.assign(tf.zeros_like(variable.value))
    network.load_weights(path)
    assert_equal(module.run(network, module.draw()), wanted, rtol=0)


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_function_equals_eager(module, training):
    """Python values frozen into the graph; statistics that a graph does not update."""
    eager, graph = module.build(), module.build()
    inputs = module.draw()
    wanted = module.run(eager, inputs, training)
    got = tf.function(lambda *x: module.run(graph, x, training))(*inputs)
    assert_equal(got, wanted, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(graph.variables, eager.variables, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-6, err_msg=ours.path)


def test_any_batch_size(module):
    """A batch size that is written into a reshape; images of a batch that look at each other in inference."""
    network, inputs = module.build(), module.draw()
    whole = module.run(network, inputs)
    if module.name == "gan":
        pytest.skip("its outputs join real and repaired images")
    first = module.run(network, [x[:1] for x in inputs])
    assert_equal(first, {name: value[:1] for name, value in whole.items()}, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_mixed_precision(module, training):
    """Variables or statistics in bfloat16, activations that stay float32, logits that do not."""
    network = module.build("mixed_bfloat16")
    out = module.run(network, module.draw("bfloat16"), training)
    assert {variable.dtype for variable in network.variables} == {"float32"}
    for name, value in out.items():
        assert value.dtype == (tf.float32 if name in module.float32 else tf.bfloat16), name
    if training:
        return  # batch norm over two images: fc_1's statistics magnify every rounding
    wanted = module.run(module.build(), module.draw(), training)
    for name, value in out.items():
        error = tf.norm(tf.cast(value, tf.float32) - wanted[name]) / tf.norm(wanted[name])
        assert error < 0.05, f"{name}: {error}"  # bfloat16 rounds to 0.4 %, over at most 20 layers
