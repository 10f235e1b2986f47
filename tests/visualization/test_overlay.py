"""Heat maps over images."""

import re

import numpy as np
from matplotlib import colormaps

from lts.visualization import overlay


def test_the_map_decides_the_colour():
    image = np.full([4, 6, 3], 100, np.uint8)
    artifact = np.zeros([4, 6])
    artifact[:, 3:] = 1
    blended = overlay.blend(image, artifact)
    np.testing.assert_array_equal(blended[:, :3], image[:, :3])
    hot = 100 * (1 - overlay.STRENGTH) + 255 * np.array(colormaps[overlay.COLOURS](1.0)[:3]) * overlay.STRENGTH
    np.testing.assert_allclose(blended[:, 3:], np.broadcast_to(hot, [4, 3, 3]), atol=1)


def test_the_heat_grows_with_the_map():
    """Fails if brightness does not grow with the map: it must be readable without colour vision."""
    ramp = overlay.blend(np.zeros([1, 101, 3], np.uint8), np.linspace(0, 1, 101)[None])
    brightness = ramp[0] @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(brightness) > -0.75).all()
    assert brightness[-1] > 3 * brightness[50] > 0


def test_values_outside_are_clipped():
    image = np.full([1, 2, 3], 50, np.uint8)
    np.testing.assert_array_equal(
        overlay.blend(image, np.array([[-1.0, 2.0]])), overlay.blend(image, np.array([[0.0, 1.0]]))
    )


def test_a_map_is_stretched_over_an_image_of_any_proportions():
    image = np.zeros([8, 24, 3], np.uint8)
    blended = overlay.overlay(image, np.array([[0.0, 1.0], [0.0, 1.0]]))
    assert blended.shape == image.shape
    assert not blended[:, :6].any()
    np.testing.assert_array_equal(blended[:, 18:], overlay.blend(image[:, 18:], np.ones([8, 6])))
    assert (np.diff(blended[4, :, 0].astype(int)) >= 0).all()


def test_image_and_overlay_stand_side_by_side():
    image = np.random.default_rng(0).integers(0, 256, (8, 10, 3)).astype(np.uint8)
    both = overlay.side_by_side(image, np.full([2, 2], 0.5))
    assert both.shape == (8, 20 + overlay.GAP, 3)
    np.testing.assert_array_equal(both[:, :10], image)
    assert (both[:, 10 : 10 + overlay.GAP] == 255).all()
    np.testing.assert_array_equal(both[:, 10 + overlay.GAP :], overlay.overlay(image, np.full([2, 2], 0.5)))


def test_the_legend_has_the_colours_of_the_overlay():
    stops = re.findall(r"rgb\((\d+) (\d+) (\d+) / ([\d.]+)\)", overlay.css_gradient(3))
    assert len(stops) == 3
    for at, (*colour, opacity) in zip((0, 0.5, 1), stops, strict=True):
        shown = np.array(colour, float) * float(opacity) + 77 * (1 - float(opacity))
        expected = overlay.blend(np.full([1, 1, 3], 77, np.uint8), np.array([[at]]))[0, 0]
        np.testing.assert_allclose(shown, expected, atol=1.5)


def test_a_signed_map():
    """Fails if a sign has the other colour, a zero hides the image, or a value above the limit overflows."""
    image = np.full([4, 6, 3], 100, np.uint8)
    blended = overlay.signed_overlay(image, np.array([[-1.0, 0.0, 9.0]]), limit=1)
    for columns, colour in ((slice(0, 2), overlay.BLUE), (slice(4, 6), overlay.RED)):
        expected = 100 + overlay.STRENGTH * (colour - 100)
        np.testing.assert_allclose(blended[:, columns], np.broadcast_to(expected, [4, 2, 3]), atol=0.51)
    np.testing.assert_array_equal(blended[:, 2:4], image[:, 2:4])
    np.testing.assert_array_equal(overlay.signed_overlay(image, np.zeros([1, 3]), limit=0), image)
