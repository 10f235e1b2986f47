"""Occlusion maps of scores with a known origin."""

import numpy as np
import pytest

from experiments.cues import occlusion


def test_squares_and_what_they_cover():
    """Fails if a square outside of the image changes a pixel, one at the border is not cut off, or a place has none."""
    image = np.random.default_rng(0).integers(0, 256, (12, 12, 3)).astype(np.uint8)
    before = image.copy()
    for top, left in ((-4, 3), (3, -4), (12, 3), (3, 12)):
        np.testing.assert_array_equal(occlusion.cover(image, top, left, 4), image)
    covered = occlusion.cover(image, -2, 9, 4)
    changed = (covered != image).any(-1)
    assert changed[:2, 9:].mean() > 0.9
    assert not changed[2:].any()
    assert not changed[:, :9].any()
    np.testing.assert_array_equal(covered[0, 10], image.mean((0, 1)).round())
    np.testing.assert_array_equal(image, before)
    assert occlusion.squares(12, 3, 4) == [(top, left) for top in (0, 4, 8) for left in (0, 4, 8)]
    assert occlusion.squares(12, 3, 6)[0] == (-1, -1)


def test_the_map_is_the_change_of_the_log_odds():
    """Fails if a place without influence gets a value, or the sign, the place or the amount is wrong."""
    image = np.zeros([16, 16, 3], np.uint8)
    image[4:8, 8:12] = 240  # cell (1, 2) of 4 x 4

    def probability(images):
        logits = images[:, 4:8, 8:12].mean((1, 2, 3)) / 240 - 0.25
        return (1 / (1 + np.exp(-logits))).astype(np.float32)

    expected = np.zeros([4, 4])
    expected[1, 2] = 1 - 15 / 240  # the mean colour is 15
    np.testing.assert_allclose(occlusion.occlusion_map(probability, image, 4, 4), expected, atol=1e-5)
    flat = np.full([16, 16, 3], 50, np.uint8)
    assert not occlusion.occlusion_map(probability, flat, 4, 6).any()


def test_log_odds_of_certain_scores():
    """Fails if a probability of 0 or 1 gives an infinite change."""
    values = occlusion.log_odds(np.float32([0, 0.5, 0.75, 1]))
    assert np.isfinite(values).all()
    assert values[1:3] == pytest.approx([0, np.log(3)])
    assert values[0] == pytest.approx(-values[3], rel=1e-6)
