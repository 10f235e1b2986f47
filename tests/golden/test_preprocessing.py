"""G7: the release's preprocessing, bit by bit: central crop, legacy resizes, colour."""

import numpy as np
import pytest
import tensorflow as tf

from lts.config import ImageConfig
from lts.data import augment


@pytest.mark.parametrize("index", [0, 1, 2])
def test_test_image(golden, index):
    """The rounding of the crop's window, legacy bilinear, one clip at the end: square, high and wide images."""
    ours = augment.test_image(golden[f"g7_img{index}"], ImageConfig())
    np.testing.assert_array_equal(ours, golden[f"g7_img{index}_process_test"])


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_resize_window(golden, method):
    """The legacy grid without half-pixel centres, and bicubic's A = -0.75, clipped after scaling only."""
    ours = augment.resize_window(golden["g7_img0"], golden["g7_window"], 96, method)
    np.testing.assert_array_equal(ours, golden[f"g7_{method}"])
    scaled = augment.to_signed_range(augment.to_unit_range(ours))
    np.testing.assert_array_equal(scaled, golden[f"g7_{method}_scaled"])


@pytest.mark.parametrize(
    ("name", "brightness", "saturation", "saturation_first"),
    [
        ("g7_bright0.1_sat1.3", 0.1, 1.3, False),
        ("g7_sat1.3_bright0.1", 0.1, 1.3, True),
        ("g7_bright-0.12_sat0.6", -0.12, 0.6, False),
    ],
)
def test_colour(golden, name, brightness, saturation, saturation_first):
    """The order of brightness and saturation, and that neither clips; to rounding: the way is another (see notes)."""
    image = augment.to_unit_range(tf.cast(golden["g7_img0"], tf.float32))
    ours = augment.adjust_colour(image, brightness, saturation, saturation_first)
    np.testing.assert_allclose(ours * 2.0 - 1.0, golden[name], rtol=0, atol=1e-6)
