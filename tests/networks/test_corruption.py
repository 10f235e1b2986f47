"""Corruptions of the features against NumPy, and what holds for all of them."""

import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from lts.config import DamageConfig
from lts.models.gan import DamageRepairGAN
from lts.networks.corruption import CORRUPTIONS, FILLS, CellDrop, draw_keep_mask
from lts.utils.registry import UnknownNameError
from tests.fixtures import models, oracles

ROOT = pathlib.Path(__file__).parents[2]
RS = np.random.RandomState(0)
FEATURES = RS.standard_normal((2, 5, 5, 3)).astype(np.float32)
KEEP_MASK = (RS.uniform(size=(2, 5, 5, 1)) < 0.5).astype(np.float32)  # both values at border and centre
GRID = 6
CHANNELS = 16
NAMES = tuple(CORRUPTIONS)
OTHERS = ("cell_drop", "block_drop", "cell_shuffle", "cell_swap")
SLOW = pytest.mark.slow


def fill(name: str):
    """Return the features of `cell_drop` with a fill."""
    return CellDrop(DamageConfig(damage_fill=name)).apply(tf.constant(FEATURES), KEEP_MASK)


@functools.cache
def case(name: str, images: int = 8, keep_probability: float = 0.3):
    """Return a corruption, random features, its numbers, mask and damaged features, as NumPy arrays."""
    corruption = CORRUPTIONS[name](DamageConfig(keep_probability=keep_probability))
    random = np.random.default_rng(1)
    features = random.standard_normal((images, GRID, GRID, CHANNELS)).astype(np.float32)
    uniform = random.random((images, GRID, GRID, corruption.numbers_per_cell(CHANNELS)), np.float32)
    keep_mask = corruption.draw(tf.constant(uniform), GRID).numpy()
    damaged = corruption.apply(tf.constant(features), keep_mask, tf.constant(uniform)).numpy()
    return corruption, features, uniform, keep_mask, damaged


def test_average():
    """Fails for averages of damaged features, or over missing cells.

    BUILD_NOTES trap 1; kept cells are not rescaled.
    """
    wanted = FEATURES * KEEP_MASK + (1 - KEEP_MASK) * oracles.average(FEATURES)
    np.testing.assert_allclose(fill("average"), wanted, rtol=1e-5, atol=1e-6)


def test_zero():
    """Fails if the ablation fills dropped cells with anything."""
    np.testing.assert_array_equal(fill("zero"), FEATURES * KEEP_MASK)


def test_global_average():
    """Fails if the average is over the batch, or over damaged cells."""
    wanted = FEATURES * KEEP_MASK + (1 - KEEP_MASK) * FEATURES.mean((1, 2), keepdims=True)
    np.testing.assert_allclose(fill("global_average"), wanted, rtol=1e-5, atol=1e-6)


def test_unknown_names():
    """Fails if a misspelt name is taken for the default, or the error does not list the known ones."""
    with pytest.raises(UnknownNameError, match=r"unknown fill. Received: 'mean'. Known: average, zero, global_average"):
        fill("mean")
    with pytest.raises(UnknownNameError, match=r"unknown corruption. Received: 'blocks'. Known: cell_drop, block_drop"):
        CORRUPTIONS["blocks"]


@pytest.mark.parametrize("probability", [0.3, 0.5])
def test_keep_probability(probability):
    """Fails if it is the probability to drop (BUILD_NOTES trap 1)."""
    uniform = np.random.RandomState(0).uniform(size=(100, 30, 30, 1)).astype(np.float32)
    keep_mask = draw_keep_mask(uniform, probability).numpy()
    assert set(np.unique(keep_mask)) == {0.0, 1.0}
    np.testing.assert_allclose(keep_mask.mean(), probability, atol=0.006)  # 4 sd of 90,000 cells
    np.testing.assert_array_equal(keep_mask, uniform >= np.float32(1) - np.float32(probability))


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_keep_probability_at_the_ends(probability):
    """Fails if a cell is dropped at 1 or kept at 0."""
    uniform = np.linspace(0, 1, 1000, endpoint=False, dtype=np.float32)
    np.testing.assert_array_equal(draw_keep_mask(uniform, probability), np.full(1000, probability))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("probability", [0.3, 0.7])
def test_expected_share_of_kept_cells(name, probability):
    """Fails if a corruption keeps another share of cells, at the border for example, than `keep_probability`."""
    images = 4000
    _, _, _, keep_mask, _ = case(name, images, probability)
    shares = keep_mask.mean((1, 2, 3))
    np.testing.assert_allclose(shares.mean(), probability, atol=4 * shares.std() / images**0.5)
    by_cell = keep_mask.mean(0)
    np.testing.assert_allclose(by_cell, probability, atol=5 * (probability * (1 - probability) / images) ** 0.5)


@pytest.mark.parametrize("name", NAMES)
def test_kept_cells_keep_their_bits(name):
    """Fails if a kept cell changes, a dropped one does not, or the mask is not one number per cell."""
    _, features, _, keep_mask, damaged = case(name)
    assert keep_mask.shape == (8, GRID, GRID, 1)
    assert set(np.unique(keep_mask)) == {0.0, 1.0}
    kept = keep_mask[..., 0] == 1
    np.testing.assert_array_equal(damaged[kept], features[kept])
    assert (damaged[~kept] != features[~kept]).any(-1).all()


@pytest.mark.parametrize("name", NAMES)
def test_dtype(name):
    """Fails if a float32 mask or float32 numbers make bfloat16 features float32."""
    corruption, features, uniform, keep_mask, _ = case(name)
    low = corruption.apply(tf.cast(features, tf.bfloat16), tf.constant(keep_mask), tf.constant(uniform))
    assert low.dtype == tf.bfloat16
    assert low.shape == features.shape


@pytest.mark.parametrize("fill", ["average", "zero", "global_average"])
@pytest.mark.parametrize("name", ["cell_drop", "block_drop", "channel_drop"])
def test_fills(name, fill):
    """Fails if a corruption that drops cells ignores `damage_fill`."""
    corruption, features, uniform, keep_mask, _ = case(name)
    config = dataclasses.replace(corruption.config, damage_fill=fill)
    damaged = CORRUPTIONS[name](config).apply(tf.constant(features), keep_mask, tf.constant(uniform)).numpy()
    filled = np.broadcast_to(FILLS[fill](tf.constant(features)), features.shape)
    changed = damaged != features
    np.testing.assert_array_equal(damaged[changed], filled[changed])


def test_blocks_are_rectangles():
    """Fails if the cells of a block are not dropped together, or blocks are single cells or the whole image."""
    corruption = CORRUPTIONS["block_drop"](DamageConfig(keep_probability=0.3))
    random = np.random.default_rng(2)
    uniform = random.random((500, GRID, GRID, 5), np.float32)
    keep_mask = corruption.draw(tf.constant(uniform), GRID).numpy()[..., 0]
    sides = 2 + np.floor(uniform[:, 0, 0, 1:3] * 2).astype(int)  # 2 or 3 of 6 cells
    offsets = np.floor(uniform[:, 0, 0, 3:5] * sides).astype(int)
    assert set(map(tuple, sides)) == {(2, 2), (2, 3), (3, 2), (3, 3)}
    for image in range(500):
        rows = (np.arange(GRID) + offsets[image, 0]) // sides[image, 0]
        columns = (np.arange(GRID) + offsets[image, 1]) // sides[image, 1]
        for row in set(rows):
            for column in set(columns):
                block = keep_mask[image][rows == row][:, columns == column]
                assert block.min() == block.max()


@pytest.mark.parametrize("grid", [1, 2, 3])
def test_small_grids(grid):
    """Fails if a corruption cannot damage few cells."""
    for name in NAMES:
        corruption = CORRUPTIONS[name](DamageConfig(keep_probability=0.5))
        uniform = tf.random.stateless_uniform([4, grid, grid, corruption.numbers_per_cell(3)], [1, 2])
        keep_mask = corruption.draw(uniform, grid)
        assert keep_mask.shape == (4, grid, grid, 1)
        assert corruption.apply(tf.ones([4, grid, grid, 3]), keep_mask, uniform).shape == (4, grid, grid, 3)


def test_half_of_the_channels():
    """Fails if a dropped cell loses another share of its channels, or all cells lose the same ones."""
    _, features, _, keep_mask, damaged = case("channel_drop", 4000)
    changed = (damaged != features)[keep_mask[..., 0] == 0]  # [dropped cells, channels]
    np.testing.assert_allclose(changed.mean(0), 0.5, atol=5 * 0.5 / len(changed) ** 0.5)
    assert len(np.unique(changed, axis=0)) > 1000


def test_cells_of_the_same_image():
    """Fails if a dropped cell keeps its features, or takes a mixture or those of another image."""
    _, features, _, keep_mask, damaged = case("cell_shuffle", 200)
    distances = []
    for image, row, column in np.argwhere(keep_mask[..., 0] == 0):
        source = np.argwhere((features[image] == damaged[image, row, column]).all(-1))
        assert len(source) == 1
        distances.append(int(source[0] @ [GRID, 1] - (row * GRID + column)) % GRID**2)
    counts = np.bincount(distances, minlength=GRID**2)
    assert counts[0] == 0
    assert counts[1:].min() > 0.5 * counts[1:].mean()  # all other cells serve


@pytest.mark.parametrize("images", [2, 8, 7])
def test_cells_of_the_partner(images):
    """Fails if a dropped cell takes features of another image than its partner, or of another place."""
    _, features, _, keep_mask, damaged = case("cell_swap", images)
    partners = [1, 0, 3, 2, 5, 4, 7, 6][:images]
    if images == 7:
        partners[6] = 5  # the last of an odd batch
    np.testing.assert_array_equal(damaged, np.where(keep_mask == 1, features, features[partners]))


@functools.cache
def on_replicas() -> dict:
    """Return what tests/fixtures/corruption_replicas.py prints: name to replicas to whether all is equal."""
    command = [sys.executable, "-m", "tests.fixtures.corruption_replicas"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", NAMES)
def test_replicas(name):
    """Fails if masks, numbers or damaged features of a step differ by a bit between 1, 2 and 4 replicas."""
    assert on_replicas()[name] == {"2": True, "4": True}


@pytest.mark.parametrize("name", ["channel_drop", *(pytest.param(name, marks=SLOW) for name in OTHERS)])
def test_a_step_of_training(name):
    """Fails if a corruption does not run inside a training step, or the step does not get its numbers."""
    model = models.gan("mixed_bfloat16", corruption=name)
    logs = tf.function(model.train_step)(models.images(8))
    assert all(np.isfinite(value) for value in logs.values())


@pytest.mark.parametrize("name", NAMES)
def test_picture_strip(name):
    """Fails if the strip shows another corruption than that of training, or draws differ when a run resumes."""
    model = DamageRepairGAN(models.small_config(corruption=name))
    model.build((None, 32, 32, 3))
    keep_mask, _, uniform = model.draw(0, 8)
    pictures = model.pictures(models.images(8))
    features = model.encoder(models.images(8))
    damaged = model.decoder(model.corruption.apply(features, keep_mask, uniform))
    np.testing.assert_array_equal(pictures["damaged"], damaged)
    assert (np.asarray(pictures["damaged"]) != np.asarray(pictures["reconstruction"])).any()
    resumed = DamageRepairGAN(models.small_config(corruption=name))
    for first, second in zip(model.draw(0, 8), resumed.draw(tf.constant(0, tf.int64), 8), strict=True):
        np.testing.assert_array_equal(first, second)
