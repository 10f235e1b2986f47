"""A small procedural set: ten toys, all built of the same parts, that differ only in how the parts are put together.

Every picture, whatever its class, shows one body, one ball, one cone, two eyes, two steep and two shallow sticks, on a
cluttered ground. Colours, patterns, light, ground, pose and clutter are drawn without looking at the class. So the
colours and the local texture of a picture say nothing about its class, and one has to know what parts look like and
where they belong: the knowledge that it takes to spot a damaged picture, too. (ours)

Each image is a function of (split, index) alone. Shapes are signed distances, drawn with antialiased edges.
"""

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np

VERSION = "toys-1"
SIZE = 64  # pixels a side
SPLITS = {"unlabelled": 4000, "train": 2000, "test": 1000}  # classes take turns

_MARGIN = 24  # pixels around the canvas, so that parts may stick out
_CHUNK = 64  # images drawn together
_STEEP, _SHALLOW = 0.4, np.pi / 2 - 0.4  # how far sticks lean from the vertical, radians

# Where the parts are, in units of the toy's radius, y down: body, ball, cone, two eyes, two steep sticks, two shallow
# sticks. Sticks lean left or right, cones point up (1) or down (-1): (x, y, lean or direction).
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
    """Draws images of the set.

    Args:
      split: "unlabelled" | "train" | "test".
      indices: which images of the split.

    Returns:
      uint8 [N, 64, 64, 3], and int64 labels [N]: -1 in the unlabelled split.

    Example:
      >>> images, labels = render("train", range(10))
      >>> [CLASS_NAMES[label] for label in labels][:3]
      ['robot', 'beetle', 'wagon']
    """
    indices = np.array(list(indices), np.int64)
    labels = indices % len(CLASS_NAMES)
    chunks = [slice(start, start + _CHUNK) for start in range(0, len(indices), _CHUNK)]
    images = [_draw(_Dice(split, indices[chunk]), labels[chunk]) for chunk in chunks]
    return np.concatenate(images), np.full_like(labels, -1) if split == "unlabelled" else labels


class _Dice:
    """Uniform random numbers for a chunk of images, each image with a stream of its own."""

    def __init__(self, split: str, indices: np.ndarray):
        key = list(SPLITS).index(split)
        self._streams = [np.random.Generator(np.random.PCG64([key, int(index)])) for index in indices]

    def __call__(self, low: float, high: float, *shape: int) -> np.ndarray:
        """float32 [n, *shape] in [low, high)."""
        drawn = np.stack([stream.random(shape, np.float32) for stream in self._streams])
        return low + (high - low) * drawn


@dataclasses.dataclass(frozen=True)
class _Shape:
    """A part of a toy.

    Attributes:
      reach: pixels from its centre to its farthest point, at most.
      distance: signed distance in pixels from (x, y) in pixels, negative inside.
    """

    reach: int
    distance: Callable[[np.ndarray, np.ndarray], np.ndarray]


def _draw(dice: _Dice, labels: np.ndarray) -> np.ndarray:
    """The chunk of images that these dice stand for: uint8 [n, 64, 64, 3]."""
    canvas = _ground(dice)
    light = dice(0, 2 * np.pi)
    scale = dice(20.0, 26.0)
    column = scale[:, None, None]
    stick = _Shape(10, lambda x, y: np.hypot(x, np.maximum(np.abs(y) - 0.24 * column, 0)) - 0.075 * column)
    cone = _Shape(12, lambda x, y: np.maximum(0.866 * np.abs(x) - 0.5 * y, y) - 0.18 * column)
    body = _Shape(15, lambda x, y: _box(x, y, 0.25 * column) - 0.1 * column)
    ball = _Shape(10, lambda x, y: np.hypot(x, y) - 0.3 * column)
    eye = _Shape(5, lambda x, y: np.hypot(x, y) - 0.15 * column)
    pupil = _Shape(3, lambda x, y: np.hypot(x, y) - 0.07 * column)

    def paint(shape: _Shape, centre: np.ndarray, angle: np.ndarray, colour: np.ndarray, pattern: float = 0.22) -> None:
        _stamp(canvas, shape, centre, angle, colour, light, dice(0, pattern), dice(0.6, 1.3), dice(0, 2 * np.pi))

    for shape in (stick, ball, eye, cone):
        paint(shape, dice(0, SIZE, 2), dice(0, 2 * np.pi), _colour(dice))

    # the pose of the toy: where its own coordinates lie on the canvas
    toys = np.array([[(*part, 0)[:3] for part in _TOYS[name]] for name in CLASS_NAMES], np.float32)[labels]
    mirror = np.where(dice(0, 1) < 0.5, -1.0, 1.0)[:, None]
    turn = dice(-0.45, 0.45)
    middle = SIZE / 2 + dice(-5, 5, 2)
    x, y = np.moveaxis(toys[..., :2] + dice(-0.04, 0.04, toys.shape[1], 2), -1, 0)
    x, lean = x * mirror, toys[..., 2] * mirror
    cos, sin = np.cos(turn)[:, None], np.sin(turn)[:, None]
    places = middle[:, None] + scale[:, None, None] * np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)
    angles = turn[:, None] + dice(-0.15, 0.15, toys.shape[1])
    paints = [_colour(dice) for _ in range(4)]
    for part in (5, 6):
        paint(stick, places[:, part], angles[:, part] + _STEEP * lean[:, part], paints[0])
    for part in (7, 8):
        paint(stick, places[:, part], angles[:, part] + _SHALLOW * lean[:, part], paints[0])
    paint(body, places[:, 0], angles[:, 0], paints[1])
    paint(cone, places[:, 2], angles[:, 2] + np.where(toys[:, 2, 2] > 0, 0, np.pi), paints[2])
    paint(ball, places[:, 1], angles[:, 1], paints[3])
    white, black = dice(0.85, 1.0, 3), dice(0.0, 0.15, 3)
    gaze = dice(-0.8, 0.8, 2)
    for part in (3, 4):
        paint(eye, places[:, part], angles[:, part], white, pattern=0)
        paint(pupil, places[:, part] + gaze, angles[:, part], black, pattern=0)
    inner = canvas[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    return np.round(255 * np.clip(inner, 0, 1)).astype(np.uint8)


def _stamp(
    canvas: np.ndarray,
    shape: _Shape,
    centre: np.ndarray,
    angle: np.ndarray,
    colour: np.ndarray,
    light: np.ndarray,
    pattern: np.ndarray,
    pitch: np.ndarray,
    phase: np.ndarray,
) -> None:
    """Paints one part into every image of a chunk, in a window around it.

    Args:
      canvas: float32 [n, 64 + 2 margins, 64 + 2 margins, 3], changed in place.
      shape: the part.
      centre: [n, 2], (x, y) in pixels of the image.
      angle: [n], radians, clockwise.
      colour: [n, 3] in [0, 1].
      light: [n], direction that the light comes from, radians.
      pattern: [n], contrast of the stripes.
      pitch: [n], radians of the stripes a pixel.
      phase: [n], radians, of the stripes.
    """
    span = np.arange(-shape.reach, shape.reach + 1)
    corner = np.clip(np.floor(centre).astype(int), -_MARGIN + shape.reach, SIZE + _MARGIN - 1 - shape.reach)
    columns, rows = (corner[:, axis, None] + span for axis in (0, 1))
    window = np.arange(len(canvas))[:, None, None], rows[:, :, None] + _MARGIN, columns[:, None, :] + _MARGIN
    dx = (columns + 0.5 - centre[:, :1]).astype(np.float32)[:, None, :]
    dy = (rows + 0.5 - centre[:, 1:]).astype(np.float32)[:, :, None]
    cos, sin = (f(angle).astype(np.float32)[:, None, None] for f in (np.cos, np.sin))
    x, y = cos * dx + sin * dy, cos * dy - sin * dx
    distance = shape.distance(x, y)
    depth = np.clip(-distance / shape.reach, 0, 1)
    slope = (np.cos(light)[:, None, None] * dx + np.sin(light)[:, None, None] * dy) / shape.reach
    stripes = pattern[:, None, None] * np.sin(pitch[:, None, None] * x + phase[:, None, None])
    shade = 0.75 + 0.45 * np.sqrt(depth) + 0.25 * slope + stripes
    shade *= 1 - 0.65 * np.clip(distance + 1.3, 0, 1)  # a dark rim
    cover = np.clip(0.5 - distance, 0, 1)[..., None]
    under = canvas[window]
    canvas[window] = under + cover * (colour[:, None, None] * shade[..., None] - under)


def _box(x: np.ndarray, y: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Signed distance to a square with sides of 2 * half."""
    x, y = np.abs(x) - half, np.abs(y) - half
    return np.hypot(np.maximum(x, 0), np.maximum(y, 0)) + np.minimum(np.maximum(x, y), 0)


def _colour(dice: _Dice) -> np.ndarray:
    """A random colour [n, 3] of any hue, neither grey nor black."""
    hue = dice(0, 1)[:, None] + np.array([0, 1 / 3, 2 / 3], np.float32)
    wave = 0.5 + 0.5 * np.cos(2 * np.pi * hue)
    return dice(0.45, 0.95, 1) * (1 - dice(0.4, 0.9, 1) * (1 - wave))


def _ground(dice: _Dice) -> np.ndarray:
    """Smooth noise of three grain sizes between two colours: float32 [n, side, side, 3] with the margins."""
    side = SIZE + 2 * _MARGIN
    mix = 0.5
    for cells, low, high in ((3, 0.4, 0.9), (9, 0.1, 0.4), (28, 0.0, 0.3)):
        place = np.linspace(0, cells - 1, side)
        weights = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(cells)))
        weights = (weights**2 * (3 - 2 * weights)).astype(np.float32)  # smooth steps between the cells
        mix = mix + dice(low, high, 1, 1) * (weights @ dice(-1, 1, cells, cells) @ weights.T)
    first, second = _colour(dice)[:, None, None], _colour(dice)[:, None, None]
    return (first + (second - first) * np.clip(mix, 0, 1)[..., None]).astype(np.float32)
