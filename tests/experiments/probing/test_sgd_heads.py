"""Heads against NumPy: pooling, logits, updates, schedules; the frozen backbone and its trap."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from experiments.probing.probe import ProbeError
from experiments.probing.protocols import SGD
from experiments.probing.sgd_heads import Head, HeadsModel, learning_rate
from lts.config import preset
from lts.export import saved_model
from lts.networks.geometry import alexnet_geometry
from lts.training.optimizers import build_optimizer

CLASSES = 4
BATCH = 6


class AlexNet:
    """Two layers: the pixels, and their channels mixed at half size."""

    path = "stand-in"

    def features(self, images, layer):
        pixels = tf.cast(images, tf.float32) / 255
        mixed = tf.nn.avg_pool2d(pixels, 2, 2, "VALID") @ tf.constant([[1.0, 2.0], [0.5, -1.0], [-1.0, 0.0]])
        return {name: {"conv_1": pixels, "conv_2": mixed}[name] for name in layer}


def batch(seed: int = 0):
    """Return images [6, 4, 4, 3] in [-1, 1] that are whole bytes, and labels."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (BATCH, 4, 4, 3)).astype(np.float32) / 127.5 - 1
    return tf.constant(images), tf.constant(generator.integers(0, CLASSES, BATCH), tf.int32)


def inputs(images) -> dict[str, np.ndarray]:
    """Return the pooled features of `AlexNet` in NumPy, 2 x 2 cells of conv_1 and all of conv_2."""
    pixels = (images.numpy().astype(np.float64) + 1) / 2
    blocks = pixels.reshape(BATCH, 2, 2, 2, 2, 3)
    mixed = blocks.mean(axis=(2, 4)) @ [[1.0, 2.0], [0.5, -1.0], [-1.0, 0.0]]
    return {"conv_1": blocks.max(axis=(2, 4)), "conv_2": mixed}


def protocol(name: str, **changes):
    """Return a protocol that is small enough for `AlexNet`."""
    return dataclasses.replace(SGD[name], layers=(), dimensions=12, pool="max", windows=(), **changes)


def make(how, steps: int = 40) -> HeadsModel:
    """Return a probe on `AlexNet` whose heads have large weights and biases."""
    probe = HeadsModel(AlexNet(), ("conv_1", "conv_2"), CLASSES, how, steps, 4)
    generator = np.random.default_rng(1)
    for variable in probe.trainable_variables:
        variable.assign(generator.normal(0, 0.3, variable.shape))
    return probe


def gradients(features, kernel, bias, labels, weight_decay: float, decay_biases: bool):
    """Return the gradients of kernel and bias, of mean cross entropy + weight decay."""
    logits = features @ kernel + bias
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    error = (odds / odds.sum(axis=1, keepdims=True) - np.eye(CLASSES)[labels.numpy()]) / BATCH
    return features.T @ error + weight_decay * kernel, error.sum(axis=0) + decay_biases * weight_decay * bias


def weights(probe) -> dict[str, list[np.ndarray]]:
    """Return [kernel, bias] in float64 by layer."""
    return {head.name: [v.numpy().astype(np.float64) for v in (head.kernel, head.bias)] for head in probe.network.heads}


@pytest.mark.parametrize("name", ["rotnet", "lci"])
def test_two_steps_of_nesterov_momentum_with_weight_decay(name):
    """Fails if an update, a drop of the rate, or batch norm over the pooled maps differs from NumPy."""
    how = protocol(name, weight_decay=0.05, learning_rate=0.5)
    probe = make(how)
    decay = how.norm_decay
    expected = weights(probe)
    velocity = {layer: [np.zeros_like(w) for w in both] for layer, both in expected.items()}
    moving = {layer: (0.0, 1.0) for layer in expected}
    for step in range(2):
        probe.optimizer.iterations.assign(39 * step)  # the first and the last rate
        rate = 0.5 * how.rates[-step]
        images, labels = batch(step)
        probe.train_step((images, labels))
        for layer, pooled in inputs(images).items():
            mean = pooled.mean(axis=(0, 1, 2))
            variance = pooled.var(axis=(0, 1, 2))
            old_mean, old_variance = moving[layer]
            moving[layer] = (decay * old_mean + (1 - decay) * mean, decay * old_variance + (1 - decay) * variance)
            features = ((pooled - mean) / np.sqrt(variance + how.norm_epsilon)).reshape(BATCH, -1)
            for index, gradient in enumerate(gradients(features, *expected[layer], labels, 0.05, how.decay_biases)):
                velocity[layer][index] = how.momentum * velocity[layer][index] - rate * gradient
                expected[layer][index] += how.momentum * velocity[layer][index] - rate * gradient
    for head in probe.network.heads:
        for variable, wanted in zip((head.kernel, head.bias), expected[head.name], strict=True):
            np.testing.assert_allclose(variable.numpy(), wanted, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(head.norm.moving_mean.numpy(), moving[head.name][0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(head.norm.moving_variance.numpy(), moving[head.name][1], rtol=1e-4)


def test_a_step_of_the_releases_adam_counts_biases_twice():
    """Fails if the gradients of biases are not doubled, or the first step differs from TensorFlow 1's Adam."""
    how = protocol("stl10_release", backbone_training=False)
    probe = make(how)
    before = weights(probe)
    images, labels = batch()
    probe.train_step((images, labels))
    rate = how.learning_rate * np.sqrt(1 - how.beta_2) / (1 - how.beta_1)
    for head in probe.network.heads:
        features = inputs(images)[head.name].reshape(BATCH, -1)
        kernel_gradient, bias_gradient = gradients(
            features, *before[head.name], labels, how.weight_decay, decay_biases=False
        )
        scaled = (kernel_gradient, how.bias_gradient_factor * bias_gradient)
        for variable, old, gradient in zip((head.kernel, head.bias), before[head.name], scaled, strict=True):
            first_moment = (1 - how.beta_1) * gradient
            second_moment = (1 - how.beta_2) * np.square(gradient)
            expected = old - rate * first_moment / (np.sqrt(second_moment) + how.epsilon)
            np.testing.assert_allclose(variable.numpy(), expected, atol=1e-6)


def test_losses_are_those_of_numpy_and_the_loss_is_their_sum():
    """Fails if a cross entropy, an accuracy or the weight decay is wrong, or counted twice."""
    probe = make(protocol("rotnet", norm_decay=None, weight_decay=0.05))
    images, labels = batch()
    losses = {name: float(value) for name, value in probe.compute_losses((probe.maps(images), labels)).items()}
    decay = 0.0
    for layer, (kernel, bias) in weights(probe).items():
        logits = inputs(images)[layer].reshape(BATCH, -1) @ kernel + bias
        likelihood = logits[np.arange(BATCH), labels] - np.log(np.exp(logits).sum(axis=1))
        assert losses[f"cross_entropy_{layer}"] == pytest.approx(-likelihood.mean(), rel=1e-5)
        assert losses[f"accuracy_{layer}"] == pytest.approx(np.mean(logits.argmax(axis=1) == labels))
        decay += 0.05 * (np.square(kernel).sum() + np.square(bias).sum()) / 2
    assert losses["l2"] == pytest.approx(decay, rel=1e-5)
    terms = [losses[name] for name in ("cross_entropy_conv_1", "cross_entropy_conv_2", "l2")]
    assert losses["loss"] == pytest.approx(sum(terms), rel=1e-6)


def test_scores_are_the_mean_of_the_views_probabilities():
    """Fails if views of different images are mixed, or logits are averaged."""
    probe = make(protocol("lci"))
    views = np.random.default_rng(3).integers(0, 256, (5, 10, 4, 4, 3)).astype(np.uint8)
    scores = probe.scores(tf.constant(views))
    assert set(scores) == {"conv_1", "conv_2"}
    singles = [probe.scores(tf.constant(views[:, [view]]))["conv_2"] for view in range(10)]
    np.testing.assert_allclose(scores["conv_2"], np.mean(singles, axis=0), rtol=1e-4, atol=1e-6)


def test_the_rate_falls_at_the_beginning_of_the_epochs_5_15_25_35_of_40():
    """Fails if RotNet's rates drop a step too early or too late."""
    schedule = learning_rate(SGD["rotnet"], 40 * 7)
    rates = [0.1, 0.01, 0.002, 0.0004, 0.00008]
    for epoch, before, after in zip((5, 15, 25, 35), rates[:-1], rates[1:], strict=True):
        assert float(schedule(7 * epoch - 1)) == pytest.approx(before)
        assert float(schedule(7 * epoch)) == pytest.approx(after)


def test_the_rate_of_lci_falls_at_8_40_70_90_percent_of_the_steps():
    """Fails if LCI's rates drop elsewhere."""
    schedule = learning_rate(SGD["lci"], 1000)
    for drop in (80, 400, 700, 900):
        assert float(schedule(drop)) < float(schedule(drop - 1))
    assert len({float(schedule(step)) for step in range(0, 1000, 20)}) == 5


def test_the_releases_rate_decays_linearly_to_a_hundredth():
    """Fails if the decay ends at another step or rate."""
    protocol = SGD["stl10_release"]
    schedule = build_optimizer(protocol, 1000, learning_rate(protocol, 1000))._learning_rate
    rates = [float(schedule(step)) for step in (0, 450, 900, 999)]
    np.testing.assert_allclose(rates, [1e-3, 1e-3 * 0.505, 1e-5, 1e-5], rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "padding", "size", "dimensions"),
    [
        ("rotnet", "VALID", 227, [9600, 9216, 9600, 9600, 9216]),
        ("rotnet", "SAME", 227, [9600, 9216, 9600, 9600, 9216]),
        ("lci", "VALID", 227, [9600, 9216, 9600, 9600, 9216]),
        ("lci", "SAME", 227, [9600, 7 * 7 * 256, 9600, 9600, 7 * 7 * 256]),  # larger maps: 29 and 15 cells
        ("stl10_release", "SAME", 96, [24 * 24 * 96, 12 * 12 * 256, 6 * 6 * 384, 6 * 6 * 384, 6 * 6 * 256]),
    ],
)
def test_dimensions_of_alexnet(name, padding, size, dimensions):
    """Fails if a protocol pools AlexNet's layers to other numbers of values than its release."""
    fits = {"SAME": {}, "VALID": {"image_size": 64, "encoder_filters": "8,8,8,8,8,8"}}[padding]
    layers = alexnet_geometry(preset("release", disc_padding=padding, **fits).discriminator)
    for layer, expected in zip(layers, dimensions, strict=True):
        head = Head(2, SGD[name], layer.name)
        head.build((None, layer.cells(size), layer.cells(size), layer.channels))
        assert head.dimensions == expected
        assert head.kernel.shape == (expected, 2)


def test_windows_average_what_they_cover():
    """Fails if padding counts in an average."""
    head = Head(2, dataclasses.replace(SGD["lci"], windows=(("conv_1", 2, "SAME"),)), "conv_1")
    maps = np.arange(9, dtype=np.float32).reshape(1, 3, 3, 1)
    np.testing.assert_allclose(head.pool(maps)[0, ..., 0], [[2, 3.5], [6.5, 8]])


@pytest.mark.parametrize(
    ("name", "deviation"), [("rotnet", 0.04472), ("lci", 0.8796 * (2.6 / 9216) ** 0.5), ("stl10_release", 0.0044)]
)
def test_initialisers(name, deviation):
    """Fails if weights begin with another deviation; that of a truncated normal is 0.8796 of its parameter."""
    head = Head(20, SGD[name], "conv_5")
    head.build((None, 6, 6, 256) if name == "stl10_release" else (None, 13, 13, 256))
    kernel = head.kernel.numpy()
    assert kernel.std() == pytest.approx(deviation, rel=0.01)
    assert abs(kernel.mean()) < 0.01 * deviation
    if name != "rotnet":
        assert np.abs(kernel).max() <= 2.001 * deviation / 0.8796
    assert not head.bias.numpy().any()


def test_a_layer_without_a_window_and_a_map_smaller_than_its_window():
    """Fails if a layer that a protocol cannot pool is not reported."""
    with pytest.raises(ProbeError, match=r"pools only conv_1, .* conv_5\. Received: layer 'conv_0'"):
        Head(2, SGD["lci"], "conv_0")
    with pytest.raises(ProbeError, match=r"4 x 4 cells of conv_2. Received: 3 x 3 cells. Give a larger --image_size"):
        Head(2, SGD["lci"], "conv_2").build((None, 3, 3, 8))


def _on_export(path, name: str) -> HeadsModel:
    """Return heads on two layers of an export."""
    how = dataclasses.replace(SGD[name], learning_rate=0.1, layers=())
    return HeadsModel(saved_model.load(path), ("conv_4", "conv_5"), 3, how, 10, 64)


def _values(probe) -> dict[str, np.ndarray]:
    """Return the backbone's variables."""
    return {variable.name: variable.numpy() for variable in probe.backbone.module.signatures["train"].variables}


def _photos():
    """Return images in [-1, 1] and labels."""
    images = np.random.default_rng(0).uniform(-1, 1, (4, 64, 64, 3)).astype(np.float32)
    return tf.constant(images), tf.constant([0, 1, 2, 0], tf.int32)


def test_training_heads_leaves_every_bit_of_the_backbone(tiny_export):
    """Fails if a gradient or a batch reaches the frozen backbone."""
    probe = _on_export(tiny_export, "rotnet")
    before = _values(probe)
    kernel = probe.network.heads[0].kernel.numpy()
    tf.function(probe.train_step)(_photos())
    for name, value in _values(probe).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    assert not np.array_equal(kernel, probe.network.heads[0].kernel.numpy())


def test_the_trap_batch_statistics_normalise_and_moving_averages_move_but_no_weight(tiny_export):
    """Fails if the backbone of `stl10_release` is not in training mode, as in the release."""
    probe = _on_export(tiny_export, "stl10_release")
    assert len(probe.moving_averages) == 2 * 8  # conv_1, conv_3, and two groups each of conv_2, conv_4, conv_5
    before = _values(probe)
    images, labels = _photos()
    maps = probe.maps(images)
    moved = _values(probe)
    changed = {name for name in before if not np.array_equal(before[name], moved[name])}
    assert changed == {variable.name for variable in probe.moving_averages}

    # The statistics are those of the batch: neither the moving averages nor another batch give the same maps.
    for name, values in probe._inference(images).items():
        assert np.abs(maps[name] - values).max() > 0.1 * np.abs(values).max()
    repeated = probe.maps(tf.tile(images[:1], [4, 1, 1, 1]))["conv_5"][0]
    assert np.abs(repeated - maps["conv_5"][0]).max() > 0.1 * np.abs(maps["conv_5"][0]).max()

    # One moving mean in NumPy: 0.975 of the old one and 0.025 of the batch's.
    first = next(name for name in before if "conv_1" in name and "moving_mean" in name)
    kernel = next(values for name, values in before.items() if "conv_1" in name and "kernel" in name)
    pixels = (images.numpy() + 1) * 127.5 - np.array([123.68, 116.78, 103.94])
    convolved = tf.nn.conv2d(tf.constant(pixels, tf.float32), kernel, 2, "SAME").numpy().mean(axis=(0, 1, 2))
    np.testing.assert_allclose(moved[first], 0.975 * before[first] + 0.025 * convolved, rtol=1e-3, atol=1e-3)

    tf.function(probe.train_step)((images, labels))
    for copy, variable in zip(probe.network.statistics, probe.moving_averages, strict=True):
        np.testing.assert_array_equal(copy.numpy(), variable.numpy())
    for name, value in _values(probe).items():
        assert name in changed or np.array_equal(value, before[name])


def test_the_backbone_gets_its_moving_averages_back_from_a_checkpoint(tiny_export):
    """Fails if a resumed probe is tested with the export's moving averages."""
    trained = _on_export(tiny_export, "stl10_release")
    fresh = _on_export(tiny_export, "stl10_release")
    trained.train_step(_photos())
    for variable, value in zip(fresh.network.variables, trained.network.variables, strict=True):
        variable.assign(value)
    views = tf.cast(np.random.default_rng(0).integers(0, 256, (2, 1, 64, 64, 3)), tf.uint8)
    assert not np.array_equal(fresh.scores(views)["conv_5"], trained.scores(views)["conv_5"])
    fresh.restore_statistics()
    np.testing.assert_array_equal(fresh.scores(views)["conv_5"], trained.scores(views)["conv_5"])
