"""Figures of the quickstart's page."""

import numpy as np

from experiments.reporting import quickstart


def test_overlay_leaves_kept_cells_unchanged():
    """Fails if the heat map covers cells whose probability is 0."""
    images = np.full([1, 4, 4, 3], 100, np.uint8)
    dropped = np.array([[[0.0, 1.0], [0.0, 0.0]]])
    changed = (quickstart.artifact_overlay(images, dropped) != images).any(axis=-1)[0]
    expected = np.zeros([4, 4], bool)
    expected[:2, 2:] = True
    np.testing.assert_array_equal(changed, expected)


def test_artifact_figure_shows_probabilities():
    """Fails if a column shows another image's probability."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 255, (3, 8, 8, 3)).astype(np.uint8)
    figure = quickstart.artifact_figure(images, generator.random((3, 2, 2)), np.array([0.0, 0.5, 1.0]))
    assert [axis.get_title() for axis in figure.axes[3:]] == ["repaired: 0 %", "repaired: 50 %", "repaired: 100 %"]


def test_every_metric_is_drawn_and_explained():
    """Fails if a plot stands under the text of another metric, says not which direction is better, or fails on nan."""
    names = [*quickstart.CURVES["gan"]]
    values = {name: [number, float("nan"), 0.5] for number, name in enumerate(names)}
    panels = quickstart.curve_panels([1, 2, 3], values, quickstart.CURVES["gan"])
    for number, (name, panel) in enumerate(zip(names, panels, strict=True)):
        (axes,) = panel.content.axes
        assert axes.lines[0].get_ydata()[0] == number
        assert panel.title == f"{quickstart.CURVES['gan'][name].title}."
        assert "is better" in panel.text
        panel.content.draw_without_rendering()
