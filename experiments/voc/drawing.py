"""Drawings of boxes, masks and scores.

Pure functions that return uint8 arrays. Boxes are those of `experiments.voc.data.records`.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

LONG_SIDE = 480  # pixels to which smaller images are enlarged, so that lines and letters fit
FONT = 14  # pixels
MARGIN = 3  # pixels around letters
GAP = 6  # white pixels between the panels of a montage
OPACITY = 0.55  # of mask colours
IGNORED = 255
BRIGHTEST = 255 * 0.6  # letters are black on lighter colours, white on darker ones


def voc_palette(count: int = 256) -> np.ndarray:
    """Return VOC's colours of labels.

    Bits 0, 3, 6 of a label give red, 1, 4, 7 green, 2, 5 blue, from the highest bit down (VOC development kit).

    Args:
      count: number of labels.

    Returns:
      uint8 [count, 3].

    Example:
      >>> voc_palette(3)
      array([[  0,   0,   0],
             [128,   0,   0],
             [  0, 128,   0]], dtype=uint8)
    """
    labels = np.arange(count)
    palette = np.zeros([count, 3], np.uint8)
    for level in range(8):
        for channel in range(3):
            bit = (labels >> (3 * level + channel)) & 1
            palette[:, channel] |= (bit << (7 - level)).astype(np.uint8)
    return palette


def enlarge(image: np.ndarray, long_side: int = LONG_SIDE) -> np.ndarray:
    """Enlarge an image [height, width, 3] whose long side is shorter than `long_side`."""
    height, width = image.shape[:2]
    scale = max(1.0, long_side / max(height, width))
    size = (round(width * scale), round(height * scale))
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    scores: np.ndarray | None = None,
    difficult: np.ndarray | None = None,
    long_side: int = LONG_SIDE,
) -> np.ndarray:
    """Draw boxes with class names, one colour per class.

    True boxes (no scores) have solid lines and their names at the top. Predicted boxes have dashed lines, and names and
    scores at the bottom; the best is drawn last.

    Args:
      image: uint8 [height, width, 3].
      boxes: float [n, 4], (ymin, xmin, ymax, xmax) in pixels of `image`; parts outside are clipped.
      labels: int [n], indices of `class_names`.
      class_names: names of the classes.
      scores: float [n] of predictions; None: true boxes.
      difficult: bool [n], marked "(difficult)"; or None.
      long_side: pixels to which a smaller image is enlarged.

    Returns:
      uint8 [h, w, 3].
    """
    canvas = Image.fromarray(enlarge(image, long_side))
    scales = np.tile([canvas.height / image.shape[0], canvas.width / image.shape[1]], 2)
    draw = ImageDraw.Draw(canvas)
    colours = voc_palette(len(class_names) + 1)[1:]  # without black
    order = range(len(boxes)) if scores is None else np.argsort(scores, kind="stable")
    for index in order:
        label = int(labels[index])
        text = class_names[label]
        if scores is not None:
            text = f"{text} {scores[index]:.2f}"
        if difficult is not None and difficult[index]:
            text = f"{text} (difficult)"
        box = _corners(boxes[index] * scales, canvas.size)
        colour = tuple(int(value) for value in colours[label])
        _rectangle(draw, box, colour, dashed=scores is not None)
        _caption(draw, box, text, colour, at_bottom=scores is not None)
    return np.array(canvas)


def draw_mask(
    image: np.ndarray,
    mask: np.ndarray,
    class_names: Sequence[str],
    legend: bool = True,
    long_side: int = LONG_SIDE,
) -> np.ndarray:
    """Draw an image under its mask in VOC's colours.

    Args:
      image: uint8 [height, width, 3].
      mask: int [height, width], indices of `class_names`, or 255 for no class, drawn nearly white.
      class_names: names of the classes.
      legend: whether to print the names of the present classes below the image.
      long_side: pixels to which a smaller image is enlarged.

    Returns:
      uint8 [h + legend, w, 3].
    """
    canvas = Image.fromarray(enlarge(image, long_side))
    palette = voc_palette()
    large = Image.fromarray(np.asarray(mask, np.uint8)).resize(canvas.size, Image.Resampling.NEAREST)
    drawn = Image.blend(canvas, Image.fromarray(palette[np.asarray(large)]), OPACITY)
    if not legend:
        return np.array(drawn)
    names = {label: name for label, name in [*enumerate(class_names), (IGNORED, "ignored")]}
    present = [label for label in np.unique(mask) if label in names]
    return np.concatenate([np.array(drawn), _legend(present, names, palette, canvas.width)])


def draw_scores(
    scores: np.ndarray, labels: np.ndarray, class_names: Sequence[str], height: int, width: int = LONG_SIDE
) -> np.ndarray:
    """Draw one line per class, the best score first.

    A line has a square (filled: present, grey: difficult), the name, and a bar for the probability.

    Args:
      scores: float [C], probabilities.
      labels: int [C]: 1 present, -1 only difficult, 0 absent.
      class_names: names of the classes.
      height: pixels of the picture; classes that do not fit are skipped.
      width: pixels of the picture.

    Returns:
      uint8 [height, width, 3].
    """
    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    line = FONT + 3 * MARGIN
    bar = width // 2  # left end of the bars
    order = np.argsort(-np.asarray(scores), kind="stable")[: height // line]
    for place, index in enumerate(order):
        y = place * line + MARGIN
        fill = {1: "green", -1: "lightgrey"}.get(int(labels[index]), "white")
        draw.rectangle((MARGIN, y, MARGIN + FONT, y + FONT), fill=fill, outline="black")
        draw.text((FONT + 3 * MARGIN, y - 1), f"{class_names[index]} {scores[index]:.2f}", "black", font=_font())
        right = bar + round(float(scores[index]) * (width - bar - MARGIN))
        draw.rectangle((bar, y, right, y + FONT), fill="green" if labels[index] == 1 else "darkgrey")
    return np.array(canvas)


def _font() -> ImageFont.ImageFont:
    return ImageFont.load_default(FONT)


def _corners(box: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the first and last pixels of a box, (left, top, right, bottom), clipped to a canvas (width, height)."""
    top, left, bottom, right = (round(float(value)) for value in box)
    width, height = size
    left = min(max(left, 0), width - 1)
    top = min(max(top, 0), height - 1)
    return left, top, max(min(right, width) - 1, left), max(min(bottom, height) - 1, top)


def _rectangle(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], colour: tuple, dashed: bool) -> None:
    """Draw a line of three pixels with a white edge inside the box."""
    left, top, right, bottom = box
    draw.rectangle(box, outline="white", width=5)
    inner = (min(left + 1, right), min(top + 1, bottom), max(right - 1, left), max(bottom - 1, top))
    if not dashed:
        draw.rectangle((inner[0], inner[1], max(inner[0], inner[2]), max(inner[1], inner[3])), outline=colour, width=3)
        return
    dash = 8
    period = 14
    for x in range(left, right, period):
        for y in (top + 1, max(bottom - 3, top + 1)):
            draw.rectangle((x, y, min(x + dash, right), y + 2), fill=colour)
    for y in range(top, bottom, period):
        for x in (left + 1, max(right - 3, left + 1)):
            draw.rectangle((x, y, x + 2, min(y + dash, bottom)), fill=colour)


def _caption(
    draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], text: str, colour: tuple, at_bottom: bool
) -> None:
    """Print text on the class's colour at the top or bottom of a box, moved into the picture."""
    left, top, _, bottom = box
    width = round(draw.textlength(text, font=_font())) + 2 * MARGIN
    height = FONT + 2 * MARGIN
    x = max(0, min(left, draw.im.size[0] - width))
    y = max(0, min(bottom - height + 1 if at_bottom else top, draw.im.size[1] - height))
    draw.rectangle((x, y, x + width - 1, y + height - 1), fill=colour)
    draw.text((x + MARGIN, y + MARGIN - 1), text, _ink(colour), font=_font())


def _ink(colour: Sequence[int]) -> str:
    """Return black or white, whichever is legible on a colour."""
    return "black" if np.dot([0.299, 0.587, 0.114], colour) > BRIGHTEST else "white"


def _legend(labels: Sequence[int], names: dict[int, str], palette: np.ndarray, width: int) -> np.ndarray:
    """Draw class names next to their colours, uint8 [h, width, 3]."""
    line = FONT + 3 * MARGIN
    swatch = FONT
    positions = []
    x = MARGIN
    y = MARGIN
    for label in labels:
        needed = swatch + 3 * MARGIN + round(_font().getlength(names[label])) + 2 * MARGIN
        if x > MARGIN and x + needed > width:
            x = MARGIN
            y += line
        positions.append((label, x, y))
        x += needed
    canvas = Image.new("RGB", (width, y + line), "white")
    draw = ImageDraw.Draw(canvas)
    for label, x, y in positions:
        colour = tuple(int(value) for value in palette[label])
        draw.rectangle((x, y, x + swatch, y + swatch), fill=colour, outline="black")
        draw.text((x + swatch + MARGIN, y - 1), names[label], "black", font=_font())
    return np.array(canvas)
