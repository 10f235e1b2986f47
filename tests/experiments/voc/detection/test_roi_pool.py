"""RoI pooling against a slow version, sample by sample, and its gradient."""

import numpy as np
import pytest
import tensorflow as tf

from experiments.voc.detection.boxes import roi_pool


def at(cells: np.ndarray, y: float, x: float) -> np.ndarray:
    """Bilinear value of [h, w, c] at (y, x); beyond the ends that of the end."""
    y, x = min(max(y, 0), cells.shape[0] - 1), min(max(x, 0), cells.shape[1] - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, cells.shape[0] - 1), min(left + 1, cells.shape[1] - 1)
    v, u = y - top, x - left
    upper = (1 - u) * cells[top, left] + u * cells[top, right]
    return (1 - v) * upper + v * ((1 - u) * cells[bottom, left] + u * cells[bottom, right])


def slow_pool(features, rois, images, stride, size, first=None) -> np.ndarray:
    first = stride / 2 if first is None else first
    out = np.zeros([len(rois), size, size, features.shape[-1]])
    for number, (box, image) in enumerate(zip(rois, images, strict=True)):
        height, width = (box[2] - box[0]) / size, (box[3] - box[1]) / size  # of a bin
        for i in range(size):
            for j in range(size):
                samples = []
                for v in (0.25, 0.75):
                    for u in (0.25, 0.75):
                        y, x = box[0] + (i + v) * height, box[1] + (j + u) * width
                        samples.append(at(features[image], (y - first) / stride, (x - first) / stride))
                out[number, i, j] = np.max(samples, axis=0)
    return out


# On a map of 7 x 9 cells of 16 pixels, which shows 112 x 144.
ROIS = np.array(
    [
        [0, 0, 112, 144],  # all of it
        [0, 0, 10, 7],  # within half a cell of the corner
        [100, 130, 112, 144],  # in the other corner
        [-40, -20, 200, 300],  # beyond all borders
        [33.3, 17.9, 70.1, 119.5],
        [50, 60, 50, 60],  # a point
        [8, 8, 9, 136],  # a line
        [0, 0, 0, 0],  # padding
    ],
    np.float32,
)
IMAGES = np.array([0, 1, 1, 0, 1, 0, 1, 0], np.int32)


def maps(seed: int = 0, channels: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=[2, 7, 9, channels]).astype(np.float32)


@pytest.mark.parametrize("first", [None, 0.0, 14.5, 81.0])
@pytest.mark.parametrize("size", [1, 3, 6])
def test_as_the_slow_one(size, first):
    features = maps()
    result = roi_pool(tf.constant(features), tf.constant(ROIS), tf.constant(IMAGES), 16, size, first)
    assert result.shape == (8, size, size, 5)
    np.testing.assert_allclose(result, slow_pool(features, ROIS, IMAGES, 16, size, first), atol=1e-5)


def test_by_hand():
    """On a ramp of 1 a pixel a bin is its sample at 3/4: bins of 16 pixels that begin at 32 and 48 give 44 and 60."""
    ramp = np.tile((np.arange(9, dtype=np.float32) * 16 + 8)[None, None, :, None], [1, 7, 1, 1])
    box = tf.constant([[20.0, 32.0, 52.0, 64.0]])
    result = roi_pool(tf.constant(ramp), box, tf.constant([0]), 16, 2).numpy()[0, :, :, 0]
    np.testing.assert_allclose(result, [[44, 60], [44, 60]], atol=1e-4)


def test_a_region_moves_with_its_image():
    """A map moved by two cells, and the region by two strides: the same values (away from the borders)."""
    features = maps()
    moved = np.roll(features, (2, 2), axis=(1, 2))
    box = np.array([[20, 24, 60, 90]], np.float32)
    first = roi_pool(tf.constant(features), tf.constant(box), tf.constant([0]), 16, 3)
    second = roi_pool(tf.constant(moved), tf.constant(box + 32), tf.constant([0]), 16, 3)
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_never_above_the_largest_cell_nor_below_the_smallest():
    random = np.random.default_rng(0)
    rois = np.sort(random.uniform(-20, 160, [50, 2, 2]), axis=1).reshape(50, 4).astype(np.float32)
    features, images = maps(), random.integers(2, size=50)
    result = roi_pool(tf.constant(features), tf.constant(rois), tf.constant(images), 16, 4).numpy()
    ends = features.max((1, 2))[images], features.min((1, 2))[images]
    assert (result <= ends[0][:, None, None] + 1e-5).all()
    assert (result >= ends[1][:, None, None] - 1e-5).all()


def gradient(features, rois, images, upstream) -> np.ndarray:
    features = tf.constant(features)
    with tf.GradientTape() as tape:
        tape.watch(features)
        loss = tf.reduce_sum(roi_pool(features, tf.constant(rois), tf.constant(images), 16, 3) * upstream)
    return tf.convert_to_tensor(tape.gradient(loss, features)).numpy()


def test_gradient():
    """Against differences of the slow version, cell by cell; an image without a region gets none."""
    features = maps(1, channels=2)
    upstream = np.random.default_rng(2).normal(size=[len(ROIS), 3, 3, 2]).astype(np.float32)
    result = gradient(features, ROIS, IMAGES, upstream)
    exact = features.astype(np.float64)
    random = np.random.default_rng(3)
    for _ in range(40):
        place = tuple(random.integers(size) for size in features.shape)
        step = np.zeros_like(exact)
        step[place] = 1e-6
        change = slow_pool(exact + step, ROIS, IMAGES, 16, 3) - slow_pool(exact - step, ROIS, IMAGES, 16, 3)
        assert result[place] == pytest.approx((change * upstream).sum() / 2e-6, abs=1e-3)
    assert np.abs(gradient(features, ROIS, np.zeros_like(IMAGES), upstream)[1]).max() == 0


def test_gradient_repeats_and_adds_up():
    """Many regions on the same cells: bit-identical each time, and every bin's weights sum to one."""
    random = np.random.default_rng(0)
    rois = np.sort(random.uniform(0, 112, [128, 2, 2]), axis=1).reshape(128, 4).astype(np.float32)
    images, upstream = random.integers(2, size=128), np.ones([128, 3, 3, 64], np.float32)
    results = [gradient(maps(channels=64), rois, images, upstream) for _ in range(5)]
    assert all((each == results[0]).all() for each in results)
    np.testing.assert_allclose(results[0].sum((1, 2)), np.tile(np.bincount(images)[:, None] * 9, 64), rtol=1e-4)


def test_in_a_graph_of_any_size():
    """Batch, height, width and regions are unknown when it is traced; half precision stays what it is."""
    spec = [tf.TensorSpec([None, None, None, 5]), tf.TensorSpec([None, 4]), tf.TensorSpec([None], tf.int32)]
    pool = tf.function(lambda *parts: roi_pool(*parts, 16, 3), input_signature=spec)
    result = pool(maps(), ROIS, IMAGES)
    np.testing.assert_allclose(result, slow_pool(maps(), ROIS, IMAGES, 16, 3), atol=1e-5)
    assert pool.get_concrete_function().structured_outputs.shape.as_list() == [None, 3, 3, 5]
    half = roi_pool(tf.constant(maps(), tf.bfloat16), tf.constant(ROIS), tf.constant(IMAGES), 16, 3)
    assert half.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(half, tf.float32), result, atol=0.05)
