"""Pictures, pixel by pixel where it matters."""

import numpy as np
import pytest

from experiments.voc import drawing
from experiments.voc.drawing import OPACITY, draw_boxes, draw_mask, enlarge, voc_palette

NAMES = ("bird", "cat")
GREY = np.full([60, 90, 3], 100, np.uint8)


def test_the_palette_is_vocs():
    """Colours as they stand in VOC's own masks: aeroplane, person, tvmonitor, the border."""
    palette = voc_palette()
    assert palette.shape == (256, 3)
    for label, colour in {0: (0, 0, 0), 1: (128, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128)}.items():
        assert tuple(palette[label]) == colour
    assert tuple(palette[255]) == (224, 224, 192)
    assert len(np.unique(palette, axis=0)) == 256


def test_small_images_are_enlarged_and_large_ones_left():
    assert enlarge(GREY, 180).shape == (120, 180, 3)
    np.testing.assert_array_equal(enlarge(GREY, 90), GREY)
    np.testing.assert_array_equal(enlarge(GREY, 10), GREY)


def differs(picture, plain):
    """Rows and columns, first and last, of what was drawn."""
    y, x = np.nonzero((picture != plain).any(axis=2))
    return y.min(), y.max(), x.min(), x.max()


def test_a_box_is_drawn_where_it_is():
    """Half-open: a box of (20, 30, 50, 80) has its last line in row 49 and column 79, enlarged or not."""
    for scale in (1, 4):
        plain = enlarge(GREY, 90 * scale)
        picture = draw_boxes(GREY, np.array([[20, 30, 50, 80]]), [1], NAMES, long_side=90 * scale)
        first_y, last_y, first_x, last_x = differs(picture, plain)
        assert (first_y, last_y) == (20 * scale, 50 * scale - 1)
        assert (first_x, last_x) == (30 * scale, 80 * scale - 1)
        colour = voc_palette(3)[2]
        inner = picture[20 * scale + 2, 30 * scale + 2 : 80 * scale - 2]
        assert (inner == colour).all(axis=1).mean() > 0.8  # a closed line of the class's colour
        np.testing.assert_array_equal(picture[42 * scale, 70 * scale], [100, 100, 100])  # nothing inside
    assert (GREY == 100).all()


def test_predictions_look_otherwise_than_the_truth():
    """Dashed instead of closed, letters below instead of above."""
    image, box = np.full([300, 400, 3], 100, np.uint8), np.array([[50, 60, 250, 360]])
    truth = draw_boxes(image, box, [0], NAMES)
    predicted = draw_boxes(image, box, [0], NAMES, scores=np.array([0.5]))
    colour, scale = voc_palette(2)[1], truth.shape[0] / 300
    right = round(360 * scale) - 3
    rows, columns = slice(round(80 * scale), round(220 * scale)), slice(round(65 * scale), round(75 * scale))
    lines = [(picture[rows, right] == colour).all(axis=1) for picture in (truth, predicted)]
    assert lines[0].all()
    assert 0.4 < lines[1].mean() < 0.8
    letters = [(picture[:, columns] == colour).all(axis=2).sum(axis=1) for picture in (truth, predicted)]
    middle = truth.shape[0] // 2
    assert letters[0][:middle].sum() > 2 * letters[0][middle:].sum()
    assert letters[1][middle:].sum() > 2 * letters[1][:middle].sum()


def test_scores_and_difficulty_are_written():
    image, box = np.full([200, 300, 3], 100, np.uint8), np.array([[20, 20, 180, 280]])
    pictures = [draw_boxes(image, box, [0], NAMES, scores=np.array([score])) for score in (0.25, 0.75)]
    assert (pictures[0] != pictures[1]).any()
    easy, hard = (draw_boxes(image, box, [0], NAMES, difficult=np.array([value])) for value in (False, True))
    assert (easy != hard).any()


def test_the_best_prediction_lies_on_top():
    image, boxes = np.full([200, 300, 3], 100, np.uint8), np.array([[20, 20, 180, 280]] * 2)
    both = draw_boxes(image, boxes, [0, 1], NAMES, scores=np.array([0.9, 0.3]))
    swapped = draw_boxes(image, boxes, [1, 0], NAMES, scores=np.array([0.3, 0.9]))
    np.testing.assert_array_equal(both, swapped)
    best = draw_boxes(image, boxes[:1], [0], NAMES, scores=np.array([0.9]))
    assert (both == best).all(axis=2).mean() > 0.99


BOXES = [(-50, -50, 10, 10), (50, 80, 500, 500), (0, 0, 60, 90), (10, 10, 11, 11), (10.4, 10.4, 10.6, 10.6)]


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("scores", [None, np.array([0.5])])
def test_any_box_can_be_drawn(box, scores):
    picture = draw_boxes(GREY, np.array([box], np.float32), [0], NAMES, scores, long_side=90)
    assert picture.shape == GREY.shape
    assert (picture != GREY).any()


def test_no_box_is_no_drawing():
    np.testing.assert_array_equal(draw_boxes(GREY, np.zeros([0, 4]), [], NAMES), enlarge(GREY))


def test_a_mask_is_blended_in_vocs_colours():
    mask = np.zeros([60, 90], np.uint8)
    mask[:, 30:60], mask[:, 60:] = 1, 255
    picture = draw_mask(GREY, mask, NAMES, legend=False, long_side=180)
    assert picture.shape == (120, 180, 3)
    for column, label in ((20, 0), (90, 1), (170, 255)):
        expected = (1 - OPACITY) * 100 + OPACITY * voc_palette()[label].astype(float)
        np.testing.assert_allclose(picture[60, column], expected, atol=1)
    assert (picture[:, :59] == picture[60, 20]).all()  # nearest: labels are never mixed
    assert (picture[:, 61:119] == picture[60, 90]).all()


def test_the_legend_names_the_classes_in_the_picture():
    mask = np.zeros([60, 90], np.uint8)
    mask[0, 0] = 255
    picture = draw_mask(GREY, mask, NAMES, long_side=180)
    legend = picture[120:]
    assert legend.shape[0] > drawing.FONT
    colours = [tuple(colour) for colour in np.unique(legend.reshape(-1, 3), axis=0)]
    assert (224, 224, 192) in colours
    assert (128, 0, 0) not in colours  # class 1 is not in the mask
    many = [f"a class with a long name {index}" for index in range(12)]
    tall = draw_mask(GREY, np.arange(60 * 90).reshape(60, 90) % 12, many, long_side=180)
    assert len(tall) - 120 > 5 * len(legend)  # as many lines as they need
