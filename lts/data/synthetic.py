"""Synthetic image set of ten toys.

The toys differ in the arrangement of their parts only. Every picture shows one body, one ball, one cone, two eyes, two
steep and two shallow sticks. Colours, patterns, light, background, pose and clutter do not depend on the class.
Colours and local texture therefore say nothing about the class. A classifier must know what the parts look like and
where they belong, and spotting a damaged picture needs the same knowledge. The set is this project's.

Each image is a function of (split, index). Shapes are signed distance functions, drawn with antialiased edges.
"""

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np

VERSION = "toys-1"
SIZE = 64  # pixels per side
SPLITS = {"unlabelled": 4000, "train": 2000, "test": 1000}  # image i has the class i % 10

_MARGIN = 24  # pixels around the canvas, so that parts may extend beyond the image
_CHUNK = 64  # images drawn together
_STEEP = 0.4  # angle of steep sticks from the vertical, in radians
_SHALLOW = np.pi / 2 - 0.4

# (x, y, lean or direction) of each part, in units of the toy's radius, y down. The order is body, ball, cone, two eyes,
# two steep sticks, two shallow sticks. Sticks lean to the right (1) or left (-1); cones point up (1) or down (-1).
_TOYS = {
    "robot": [
        (0, 0.12), (0, -0.46), (0, -0.86, 1), (-0.12, -0.46), (0.12, -0.46),
        (-0.2, 0.68, -1), (0.2, 0.68, 1), (-0.58, 0.1, 1), (0.58, 0.1, -1),
    ],
    "beetle": [
        (0.15, 0.0), (-0.45, 0.05), (0.2, -0.52, 1), (-0.55, 0.0), (-0.34, 0.0),
        (0.0, 0.55, -1), (0.35, 0.55, 1), (-0.75, -0.3, -1), (0.72, -0.1, -1),
    ],
    "wagon": [
        (0, 0.05), (-0.1, -0.3), (0.52, 0.0, -1), (-0.32, 0.48), (0.32, 0.48),
        (-0.5, -0.4, -1), (0.35, -0.5, 1), (-0.6, 0.15, 1), (0.68, 0.42, 1),
    ],
    "boat": [
        (0, 0.5), (-0.36, 0.34), (0.1, -0.62, 1), (-0.58, -0.45), (-0.3, -0.57),
        (-0.04, -0.02, 1), (0.28, -0.08, -1), (0.6, 0.4, 1), (0.6, 0.68, -1),
    ],
    "flower": [
        (0, 0.56), (0, -0.4), (0.2, 0.5, 1), (-0.38, -0.52), (0.38, -0.52),
        (-0.2, 0.06, 1), (0.22, 0.06, -1), (-0.52, 0.1, 1), (0.52, -0.02, -1),
    ],
    "cat": [
        (0, 0.0), (0, 0.56), (0, -0.52, -1), (-0.16, -0.06), (0.16, -0.06),
        (-0.36, -0.52, -1), (0.36, -0.52, 1), (-0.57, 0.1, 1), (0.57, 0.1, -1),
    ],
    "house": [
        (0.05, 0.25), (-0.42, -0.1), (0.05, -0.36, 1), (-0.06, 0.36), (0.2, 0.14),
        (0.5, -0.4, 1), (-0.5, 0.42, -1), (0.0, 0.75, 1), (0.6, 0.5, -1),
    ],
    "rocket": [
        (0, 0.05), (0, 0.62), (0, -0.52, 1), (0, -0.1), (0, 0.2),
        (-0.46, 0.5, 1), (0.46, 0.5, -1), (-0.58, -0.1, -1), (0.58, -0.1, 1),
    ],
    "acrobat": [
        (0, -0.4), (0, 0.2), (0, 0.66, -1), (-0.16, 0.2), (0.16, 0.2),
        (-0.26, -0.96, -1), (0.26, -0.96, 1), (-0.5, 0.25, -1), (0.5, 0.25, 1),
    ],
    "snail": [
        (-0.1, 0.35), (0.14, 0.02), (-0.35, -0.22, -1), (0.62, -0.5), (0.88, -0.38),
        (0.44, -0.56, 1), (0.64, 0.08, -1), (-0.62, 0.55, 1), (0.48, 0.58, -1),
    ],
}  # fmt: skip
CLASS_NAMES = tuple(_TOYS)


def render(split: str, indices: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
    """Draw images of the set.

    Args:
      split: "unlabelled" | "train" | "test".
      indices: numbers of the images in the split.

    Returns:
      uint8 [N, 64, 64, 3], and int64 labels [N]: -1 in the unlabelled split.

    Example:
      >>> images, labels = render("train", range(10))
      >>> [CLASS_NAMES[label] for label in labels][:3]
      ['robot', 'beetle', 'wagon']
    """
    indices = np.array(list(indices), np.int64)
    labels = indices % len(CLASS_NAMES)
    images = []
    for start in range(0, len(indices), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        images.append(_draw(_Dice(split, indices[chunk]), labels[chunk]))
    return np.concatenate(images), np.full_like(labels, -1) if split == "unlabelled" else labels


class _Dice:
    """Uniform random numbers for a chunk of images."""

    def __init__(self, split: str, indices: np.ndarray):
        key = list(SPLITS).index(split)
        # One generator per image, so that an image does not depend on its neighbours in the chunk.
        self._generators = [np.random.Generator(np.random.PCG64([key, int(index)])) for index in indices]

    def __call__(self, low: float, high: float, *shape: int) -> np.ndarray:
        """Return float32 [n, *shape] in [low, high)."""
        numbers = np.stack([generator.random(shape, np.float32) for generator in self._generators])
        return low + (high - low) * numbers


@dataclasses.dataclass(frozen=True)
class _Shape:
    """Part of a toy."""

    reach: int  # largest distance from its centre to its edge, in pixels
    distance: Callable[[np.ndarray, np.ndarray], np.ndarray]  # (x, y) to the signed distance, negative inside


def _draw(dice: _Dice, labels: np.ndarray) -> np.ndarray:
    """Draw images, uint8 [n, 64, 64, 3]."""
    # NB: every call of `dice` advances its generators. Another order of the calls gives another set.
    canvas = _background(dice)
    light = dice(0, 2 * np.pi)
    scale = dice(20.0, 26.0)
    column = scale[:, None, None]
    stick = _Shape(10, lambda x, y: np.hypot(x, np.maximum(np.abs(y) - 0.24 * column, 0)) - 0.075 * column)
    cone = _Shape(12, lambda x, y: np.maximum(0.866 * np.abs(x) - 0.5 * y, y) - 0.18 * column)
    body = _Shape(15, lambda x, y: _box(x, y, 0.25 * column) - 0.1 * column)
    ball = _Shape(10, lambda x, y: np.hypot(x, y) - 0.3 * column)
    eye = _Shape(5, lambda x, y: np.hypot(x, y) - 0.15 * column)
    pupil = _Shape(3, lambda x, y: np.hypot(x, y) - 0.07 * column)

    def paint(shape: _Shape, centre: np.ndarray, angle: np.ndarray, colour: np.ndarray, contrast: float = 0.22) -> None:
        amplitude = dice(0, contrast)[:, None, None]
        pitch = dice(0.6, 1.3)[:, None, None]
        phase = dice(0, 2 * np.pi)[:, None, None]
        _stamp(canvas, shape, centre, angle, colour, light, lambda x: amplitude * np.sin(pitch * x + phase))

    # Clutter: one of each small part anywhere on the background.
    for shape in (stick, ball, eye, cone):
        paint(shape, dice(0, SIZE, 2), dice(0, 2 * np.pi), _colour(dice))

    # The pose of the toy maps its coordinates to the canvas: jitter, mirror, scale, rotate, move.
    parts = np.array([[(*part, 0)[:3] for part in _TOYS[name]] for name in CLASS_NAMES], np.float32)[labels]
    mirror = np.where(dice(0, 1) < 0.5, -1.0, 1.0)[:, None]
    turn = dice(-0.45, 0.45)
    middle = SIZE / 2 + dice(-5, 5, 2)
    jittered = parts[..., :2] + dice(-0.04, 0.04, parts.shape[1], 2)
    x = jittered[..., 0] * mirror
    y = jittered[..., 1]
    lean = parts[..., 2] * mirror
    cos = np.cos(turn)[:, None]
    sin = np.sin(turn)[:, None]
    centres = middle[:, None] + column * np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)
    angles = turn[:, None] + dice(-0.15, 0.15, parts.shape[1])

    # Paint from back to front.
    stick_colour, body_colour, cone_colour, ball_colour = (_colour(dice) for _ in range(4))
    for part in (5, 6):
        paint(stick, centres[:, part], angles[:, part] + _STEEP * lean[:, part], stick_colour)
    for part in (7, 8):
        paint(stick, centres[:, part], angles[:, part] + _SHALLOW * lean[:, part], stick_colour)
    paint(body, centres[:, 0], angles[:, 0], body_colour)
    paint(cone, centres[:, 2], angles[:, 2] + np.where(parts[:, 2, 2] > 0, 0, np.pi), cone_colour)
    paint(ball, centres[:, 1], angles[:, 1], ball_colour)
    white = dice(0.85, 1.0, 3)
    black = dice(0.0, 0.15, 3)
    gaze = dice(-0.8, 0.8, 2)
    for part in (3, 4):
        paint(eye, centres[:, part], angles[:, part], white, contrast=0)
        paint(pupil, centres[:, part] + gaze, angles[:, part], black, contrast=0)
    inner = canvas[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    return np.round(255 * np.clip(inner, 0, 1)).astype(np.uint8)


def _stamp(
    canvas: np.ndarray,
    shape: _Shape,
    centre: np.ndarray,
    angle: np.ndarray,
    colour: np.ndarray,
    light: np.ndarray,
    stripes: Callable[[np.ndarray], np.ndarray],
) -> None:
    """Paint one part into every image of a chunk, in place.

    Shapes: canvas [n, side, side, 3]; centre [n, 2], (x, y) in pixels of the image; angle [n], radians, clockwise;
    colour [n, 3] in [0, 1]; light [n], its direction in radians. `stripes` returns the pattern at x of the part.
    """
    # A square window around the part, clipped to the canvas.
    span = np.arange(-shape.reach, shape.reach + 1)
    corner = np.clip(np.floor(centre).astype(int), -_MARGIN + shape.reach, SIZE + _MARGIN - 1 - shape.reach)
    columns = corner[:, 0, None] + span
    rows = corner[:, 1, None] + span
    window = np.arange(len(canvas))[:, None, None], rows[:, :, None] + _MARGIN, columns[:, None, :] + _MARGIN

    # Coordinates of its pixels: (dx, dy) around the centre, (x, y) turned with the part.
    dx = (columns + 0.5 - centre[:, :1]).astype(np.float32)[:, None, :]
    dy = (rows + 0.5 - centre[:, 1:]).astype(np.float32)[:, :, None]
    cos = np.cos(angle).astype(np.float32)[:, None, None]
    sin = np.sin(angle).astype(np.float32)[:, None, None]
    x = cos * dx + sin * dy
    y = cos * dy - sin * dx

    # Shading: brighter towards the middle and the light, stripes, a dark rim, antialiased edges.
    distance = shape.distance(x, y)
    depth = np.clip(-distance / shape.reach, 0, 1)
    slope = (np.cos(light)[:, None, None] * dx + np.sin(light)[:, None, None] * dy) / shape.reach
    shade = 0.75 + 0.45 * np.sqrt(depth) + 0.25 * slope + stripes(x)
    shade *= 1 - 0.65 * np.clip(distance + 1.3, 0, 1)
    opacity = np.clip(0.5 - distance, 0, 1)[..., None]
    below = canvas[window]
    canvas[window] = below + opacity * (colour[:, None, None] * shade[..., None] - below)


def _box(x: np.ndarray, y: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Return the signed distance to a square."""
    dx = np.abs(x) - half
    dy = np.abs(y) - half
    return np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0)


def _colour(dice: _Dice) -> np.ndarray:
    """Return random colours [n, 3], neither grey nor black."""
    hue = dice(0, 1)[:, None] + np.array([0, 1 / 3, 2 / 3], np.float32)
    wave = 0.5 + 0.5 * np.cos(2 * np.pi * hue)
    return dice(0.45, 0.95, 1) * (1 - dice(0.4, 0.9, 1) * (1 - wave))


def _background(dice: _Dice) -> np.ndarray:
    """Return smooth noise between two colours, with margins."""
    side = SIZE + 2 * _MARGIN
    mix = 0.5
    # Three grain sizes: number of cells per side, and range of the contrast.
    for cells, low, high in ((3, 0.4, 0.9), (9, 0.1, 0.4), (28, 0.0, 0.3)):
        place = np.linspace(0, cells - 1, side)
        weights = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(cells)))
        weights = (weights**2 * (3 - 2 * weights)).astype(np.float32)  # smooth steps between the cells
        mix = mix + dice(low, high, 1, 1) * (weights @ dice(-1, 1, cells, cells) @ weights.T)
    first = _colour(dice)[:, None, None]
    second = _colour(dice)[:, None, None]
    return (first + (second - first) * np.clip(mix, 0, 1)[..., None]).astype(np.float32)
