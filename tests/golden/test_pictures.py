"""G9: the release's montages of images and of kernels, bit by bit."""

import numpy as np
import pytest

from lts.visualization.montage import filter_montage, montage


def test_montage(golden):
    """Rows and columns exchanged, images out of order."""
    np.testing.assert_array_equal(montage(golden["g9_imgs"], columns=3), golden["g9_montage"][0])


@pytest.mark.parametrize("pad", [1, 2])
def test_filter_montage(golden, pad):
    """Order, scale of each kernel, rounding to bytes, frame."""
    ours = filter_montage(golden["g9_weights"], pad=pad)
    theirs = golden[f"g9_weights_montage_pad{pad}"][0]
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)
