"""Images at several scales and mirrored: boxes follow the picture; regions are reproducible; difficult objects."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from experiments.voc import metrics
from experiments.voc.data.dataset import Objects
from experiments.voc.detection.boxes import decode
from experiments.voc.detection.regions import Candidates, flip_boxes, scale_to, scaled_view, training_example
from experiments.voc.protocols import DetectionProtocol

LAYER = SimpleNamespace(stride=8, smallest=11)
BOX = (13, 22, 41, 70)  # of an image of 60 x 90


def picture(box=BOX, height: int = 60, width: int = 90) -> np.ndarray:
    """Black with one white box."""
    image = np.zeros([height, width, 3], np.uint8)
    ymin, xmin, ymax, xmax = box
    image[ymin:ymax, xmin:xmax] = 255
    return image


def white(view: np.ndarray) -> np.ndarray:
    """The box of what is white, to parts of a pixel: sums of rows and columns, their ends by the share of white."""
    share = (view[..., 0] + 1) / 2
    ends = []
    for axis in (1, 0):
        line = share.max(axis)
        middle = round((line * np.arange(len(line))).sum() / line.sum())
        ends.append((middle - line[:middle].sum(), middle + line[middle:].sum()))
    return np.array([ends[0][0], ends[1][0], ends[0][1], ends[1][1]])


@pytest.mark.parametrize(
    ("size", "side", "longest", "wanted"),
    [((60, 90), 120, 1000, (120, 180)), ((90, 60), 30, 1000, (45, 30)), ((60, 90), 120, 100, (67, 100))],
)
def test_sizes(size, side, longest, wanted):
    assert tuple(scale_to(*size, side, longest).numpy()) == wanted


@pytest.mark.parametrize(("side", "longest"), [(60, 500), (120, 500), (33, 500), (100, 77)])
def test_boxes_follow_the_scale(side, longest):
    """wrong: height and width exchanged, boxes scaled to the padded image, one factor for both axes."""
    view, factors = scaled_view(tf.constant(picture()), side, longest, LAYER)
    assert all(length % LAYER.stride == 0 for length in view.shape[:2])
    height, width = scale_to(60, 90, side, longest).numpy()
    assert 0 <= view.shape[0] - height < LAYER.stride
    assert 0 <= view.shape[1] - width < LAYER.stride
    np.testing.assert_array_equal(view[height:], 0)
    np.testing.assert_array_equal(view[:, width:], 0)
    np.testing.assert_allclose(white(view[:height, :width].numpy()), BOX * factors.numpy(), atol=0.6)


def test_small_images_are_padded_to_the_smallest():
    view, _ = scaled_view(tf.constant(picture()), 3, 500, LAYER)
    assert view.shape == (16, 16, 3)


def test_flip():
    boxes = tf.constant([BOX], tf.float32)
    np.testing.assert_allclose(white(picture()[:, ::-1] / 127.5 - 1), flip_boxes(boxes, 90.0)[0], atol=1e-4)
    np.testing.assert_array_equal(flip_boxes(flip_boxes(boxes, 90.0), 90.0), boxes)


def candidates(easy=(BOX,), difficult=(), proposals=None) -> Candidates:
    rows = np.array([*easy, *difficult], np.float32).reshape(-1, 4)
    marks = np.arange(len(rows)) >= len(easy)
    found = Objects(rows, np.arange(len(rows)), marks)
    random = np.random.default_rng(0)
    if proposals is None:
        corners = np.sort(random.uniform(0, 1, [200, 2, 2]), 1) * [60, 90]
        proposals = corners.reshape(-1, 4)
    return Candidates(SimpleNamespace(objects=(found,)), (np.asarray(proposals, np.float32),))


PROTOCOL = DetectionProtocol(regions=64, sides=(40, 60, 120), longest=150)


def examples(count: int = 40, protocol=PROTOCOL, **options):
    known = candidates(**options)
    make = tf.function(lambda seed: training_example(tf.constant(picture()), known.of(0), seed, protocol, LAYER))
    return [make(tf.constant([3, number], tf.int64)) for number in range(count)]


def test_regions_follow_scale_and_flip():
    """Hypothesis: what the positives regress to is the white box of the view, whatever was drawn."""
    sizes, lefts = set(), set()
    for view, regions in examples():
        view, positives = view.numpy(), regions.classes.numpy() > 0
        assert positives.any()  # the true box is a candidate itself
        truth = decode(regions.targets, regions.boxes).numpy()[positives]
        height = {40: 40, 64: 60, 104: 100}[view.shape[0]]  # 150 pixels are the longest: 100 x 150
        np.testing.assert_allclose(truth - truth[:1], 0, atol=1e-2)
        shown = np.where(np.abs(view) < 1e-6, -1, view)  # grey at the right and bottom is not white
        np.testing.assert_allclose(truth[0], white(shown), atol=1.2)
        sizes.add(height)
        lefts.add(round(float(truth[0][1]) / height, 1))
        overlap = metrics.box_iou(regions.boxes.numpy(), truth[:1])[:, 0]
        assert (overlap[positives] >= 0.5 - 1e-3).all()
        assert (overlap[~positives] < 0.5 + 1e-3).all()
        assert positives.sum() <= 0.25 * 32
    assert sizes == {40, 60, 100}
    assert len(lefts) == 2  # mirrored or not


def test_the_same_seed_gives_the_same_example():
    for (view, regions), (other, again) in zip(examples(4), examples(4), strict=True):
        np.testing.assert_array_equal(view, other)
        for part, same in zip(regions, again, strict=True):
            np.testing.assert_array_equal(part, same)


def test_an_image_without_objects_is_background():
    for view, regions in examples(3, easy=()):
        assert view.shape[-1] == 3
        assert not np.any(regions.classes)
        np.testing.assert_array_equal(regions.weights, 1)


def test_difficult_objects_are_neither():
    """Proposals over a difficult object are no background, those over an easy one next to it stay."""
    easy, difficult, far = (0, 0, 30, 30), (20, 50, 50, 80), (40, 0, 60, 20)
    near = [(21, 50, 50, 80), (20, 52, 50, 80)]
    known = candidates(easy=[easy], difficult=[difficult], proposals=[*near, (1, 0, 30, 30), far])
    proposals, truths, labels = known.of(tf.constant(0))
    np.testing.assert_array_equal(proposals, [(1, 0, 30, 30), far])
    np.testing.assert_array_equal(truths, [easy, (0, 0, 0, 0)])
    np.testing.assert_array_equal(labels, [1, 0])
    both = candidates(easy=[difficult], difficult=[difficult], proposals=near)
    assert both.of(tf.constant(0))[0].shape == (2, 4)
