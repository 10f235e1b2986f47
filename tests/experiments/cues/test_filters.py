"""Filters against NumPy."""

import numpy as np

from experiments.cues import filters
from experiments.cues.protocol import ShortcutsProtocol


def test_low_pass_is_a_gaussian():
    """Fails if the filter mixes images or colours, or has another width."""
    images = np.random.default_rng(0).integers(0, 256, (2, 9, 12, 3)).astype(np.uint8)
    sigma = 1.3
    offsets = np.arange(-5, 6)  # four deviations
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights /= weights.sum()
    expected = images.astype(np.float64)
    for axis in (1, 2):
        margins = [(5, 5) if number == axis else (0, 0) for number in range(4)]
        padded = np.pad(expected, margins, mode="symmetric")
        shifted = [np.take(padded, 5 + offset + np.arange(images.shape[axis]), axis) for offset in offsets]
        expected = np.tensordot(weights, shifted, 1)
    np.testing.assert_allclose(filters.low_pass(images, sigma), expected, atol=0.51)


def test_filters_keep_what_has_no_details():
    """Fails if a filter moves or changes a flat image, or the mild filters do not come first."""
    protocol = ShortcutsProtocol()
    flat = np.full([2, 16, 24, 3], 77, np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, flat.shape).astype(np.uint8)
    changes = {}
    for filter_ in filters.chosen(protocol):
        assert np.abs(filter_(flat).astype(int) - 77).max() <= 1
        filtered = filter_(noise)
        assert (filtered.shape, filtered.dtype) == (noise.shape, np.uint8)
        change = float(np.square(filtered.astype(float) - noise).mean())
        changes.setdefault(filter_.kind, []).append(change)
    assert {kind: len(values) for kind, values in changes.items()} == {"low-pass": 4, "jpeg": 5, "resampling": 2}
    for values in changes.values():
        assert values == sorted(values)
        assert values[0] > 0


def test_resampling_keeps_the_details_that_fit():
    """Fails if an image whose blocks are as large as the factor loses its contrast."""
    blocks = np.kron(np.random.default_rng(0).integers(0, 2, (4, 4)), np.ones([8, 8]))
    image = np.repeat(255 * blocks[None, ..., None], 3, axis=3).astype(np.uint8)
    halved = filters.resample(image, 2)
    assert np.abs(halved.astype(float) - image).mean() < 30
    assert ((halved > 127) == (image > 127)).mean() > 0.97
