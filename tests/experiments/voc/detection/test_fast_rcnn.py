"""The head and its losses against NumPy, proposals in chunks, and where the cells of the map stand."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from experiments.voc.detection import boxes as voc_boxes
from experiments.voc.detection.fast_rcnn import (
    CHUNK,
    DetectionHead,
    box_loss,
    classification_loss,
    score_proposals,
    smooth_l1,
)
from experiments.voc.detection.task import first_cell
from lts.config import DiscriminatorConfig, preset
from lts.networks.backbones import alexnet
from lts.networks.geometry import alexnet_geometry


def head(classes: int = 3, units=(8, 5), cells: int = 2, stride: int = 8, first: float = 7.5) -> DetectionHead:
    keras.utils.set_random_seed(1)
    made = DetectionHead(classes, units, cells, stride, first)
    made.build((None, None, None, 4))
    for index, variable in enumerate(made.variables):
        variable.assign_add(0.1 * np.random.default_rng(index).normal(size=variable.shape))
    return made


def features(batch: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=[batch, 5, 7, 4]).astype(np.float32)


def random_boxes(shape, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    corner, sides = random.uniform(0, 25, [*shape, 2]), random.uniform(4, 25, [*shape, 2])
    return np.concatenate([corner, corner + sides], -1).astype(np.float32)


def by_hand(made: DetectionHead, pooled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores and moves of pooled regions [n, cells, cells, c]."""
    x = pooled.reshape(len(pooled), -1)
    for layer in made.hidden:
        x = np.maximum(x @ layer.kernel.numpy() + layer.bias.numpy(), 0)
    scores, moves = (x @ layer.kernel.numpy() + layer.bias.numpy() for layer in (made.scores, made.moves))
    return scores, moves.reshape(len(pooled), -1, 4)


def test_head_against_numpy():
    """wrong: regions of the other image, cells in another order, classes and coordinates exchanged."""
    made, maps, regions = head(), features(), random_boxes([2, 6])
    logits, moves = made(maps, regions)
    flat, images = regions.reshape(-1, 4), np.repeat([0, 1], 6)
    pooled = voc_boxes.roi_pool(maps, flat, images, 8, 2, 7.5).numpy()
    scores, wanted = by_hand(made, pooled)
    np.testing.assert_allclose(logits, scores, atol=1e-5)
    np.testing.assert_allclose(moves, wanted, atol=1e-5)
    assert logits.shape == (12, 4)
    assert moves.shape == (12, 3, 4)


def test_dropout_reaches_every_hidden_layer():
    made, seen = head(), []

    def drop(x, index):
        seen.append((index, tuple(x.shape)))
        return tf.zeros_like(x)

    logits, moves = made(features(), random_boxes([2, 6]), drop=drop)
    assert seen == [(0, (12, 8)), (1, (12, 5))]
    np.testing.assert_allclose(logits, np.tile(made.scores.bias.numpy(), [12, 1]), atol=1e-6)
    np.testing.assert_allclose(moves.numpy().reshape(12, -1), np.tile(made.moves.bias.numpy(), [12, 1]), atol=1e-6)


def test_first_weights():
    made = DetectionHead(20, (256, 256), 6, 16, 14.5)
    made.build((None, None, None, 32))
    assert np.std(made.scores.kernel) == pytest.approx(0.01, rel=0.1)
    assert np.std(made.moves.kernel) == pytest.approx(0.001, rel=0.1)
    assert np.std(made.hidden[0].kernel) == pytest.approx((2 / (36 * 32)) ** 0.5, rel=0.1)
    assert not any(np.any(layer.bias) for layer in (*made.hidden, made.scores, made.moves))


def test_classification_loss():
    random = np.random.default_rng(0)
    logits, classes = random.normal(size=[5, 4]).astype(np.float32), np.array([0, 3, 1, 0, 2])
    weights = np.array([1, 1, 0, 1, 0], np.float32)
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    wanted = -sum(weights[i] * logs[i, classes[i]] for i in range(5)) / 5
    assert float(classification_loss(logits, classes, weights)) == pytest.approx(wanted, rel=1e-5)


def test_smooth_l1_by_hand():
    """Both branches, where they meet, and a gradient that never exceeds 1."""
    x = tf.constant([-3.0, -1.0, -0.5, 0.0, 0.2, 1.0, 2.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = smooth_l1(x)
    np.testing.assert_allclose(y, [2.5, 0.5, 0.125, 0, 0.02, 0.5, 1.5], rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(y, x), [-1, -1, -0.5, 0, 0.2, 1, 1], rtol=1e-6)


def test_box_loss():
    """Only the true class's box counts, background and padding not at all."""
    random = np.random.default_rng(1)
    moves, targets = random.normal(size=[6, 3, 4]).astype(np.float32), random.normal(size=[6, 4]).astype(np.float32)
    classes, weights = np.array([0, 3, 1, 2, 2, 0]), np.array([1, 1, 1, 1, 0, 0], np.float32)
    wanted = 0.0
    for i in range(6):
        if classes[i] and weights[i]:
            distance = np.abs(moves[i, classes[i] - 1] - targets[i])
            wanted += np.where(distance < 1, distance**2 / 2, distance - 0.5).sum()
    assert float(box_loss(moves, targets, classes, weights)) == pytest.approx(wanted / 6, rel=1e-5)
    moves[0], moves[1, :2], moves[4] = 100, 100, 100
    assert float(box_loss(moves, targets, classes, weights)) == pytest.approx(wanted / 6, rel=1e-5)


@pytest.mark.parametrize("count", [1, CHUNK, CHUNK + 3])
def test_proposals_in_chunks(count):
    """As all at once; what was padded leaves no rows; boxes end at the picture."""
    made, maps, regions = head(), features(1), random_boxes([count])
    scores, boxes = tf.function(lambda maps, regions: score_proposals(made, maps, regions, 30.0, 50.0))(maps, regions)
    logits, moves = made(maps, regions[None])
    np.testing.assert_allclose(scores, tf.nn.softmax(logits), atol=1e-5)
    wanted = voc_boxes.clip_to(voc_boxes.decode(moves, regions[:, None]), 30.0, 50.0)
    np.testing.assert_allclose(boxes, wanted, atol=1e-3)
    assert scores.shape == (count, 4)
    assert float(tf.reduce_max(boxes[..., 2])) <= 30 < float(tf.reduce_max(regions[:, 2]) if count > 1 else 31)
    assert float(tf.reduce_max(boxes[..., 3])) <= 50


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("kernel", [3, 6, 7, 11])
def test_first_cell(padding, kernel, monkeypatch):
    """Hypothesis: with means for maxima and no activation, a cell's gradient balances at its place in the image."""
    monkeypatch.setattr(alexnet, "max_pool", lambda x, padding: tf.nn.avg_pool2d(x, 3, 2, padding))
    changes = {"backbone_norm": "batch_norm", "disc_padding": padding, "conv_1_kernel": kernel}
    config = dataclasses.replace(preset("tiny").discriminator, **changes)
    backbone, stride = alexnet.AlexNet(config), 4 * config.conv_1_stride
    size = 16 * stride
    backbone.build((None, size, size, 3))
    for conv in backbone.convs:
        for block in getattr(conv, "blocks", [conv]):
            block.activation = "linear"
            block.kernel.assign(tf.ones_like(block.kernel))
    image, row, column = tf.Variable(tf.zeros([1, size, size, 3])), 7, 6
    with tf.GradientTape() as tape:
        cell = tf.reduce_sum(backbone(image)["conv_5"][0, row, column])
    seen = tape.gradient(cell, image).numpy().sum((0, 3))
    for axis, index in ((1, row), (0, column)):
        centre = seen.sum(axis) @ (np.arange(size) + 0.5) / seen.sum()
        assert centre == pytest.approx(first_cell(backbone.geometry()[-1]) + index * stride, abs=1e-3)


def test_first_cell_by_hand():
    """The release: conv_1 pads three rows at the top, the pools none; with VALID padding nothing does."""
    assert first_cell(alexnet_geometry(DiscriminatorConfig())[-1]) == 14.5
    assert first_cell(alexnet_geometry(DiscriminatorConfig(disc_padding="VALID"))[-1]) == 17.5
