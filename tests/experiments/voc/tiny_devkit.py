"""A tiny data set in VOC's layout: coloured shapes on noise, with boxes and masks that are known exactly."""

import dataclasses
import pathlib

import numpy as np
from PIL import Image

COLOURS = {"bird": (220, 40, 40), "cat": (40, 200, 60), "dog": (50, 80, 230)}  # the class decides colour and shape
CLASSES = tuple(COLOURS)
MASK_CLASSES = ("background", *CLASSES)
COUNTS = {"train": 8, "val": 4, "test": 4}
EDGE = 2  # pixels around an object that its mask ignores (255)


@dataclasses.dataclass(frozen=True)
class TinyObject:
    """One shape.

    Attributes:
      name: its class.
      box: (ymin, xmin, ymax, xmax) in pixels, from 0, half-open.
      difficult: as annotated.
    """

    name: str
    box: tuple[int, int, int, int]
    difficult: bool = False


def annotation(objects: list[TinyObject], height: int, width: int) -> str:
    """The XML of these objects, with corners as VOC counts them: from 1, the last pixel included."""
    entries = "".join(
        f"<object><name>{one.name}</name><pose>Unspecified</pose><truncated>0</truncated>"
        f"<difficult>{int(one.difficult)}</difficult><bndbox><xmin>{one.box[1] + 1}</xmin><ymin>{one.box[0] + 1}</ymin>"
        f"<xmax>{one.box[3]}</xmax><ymax>{one.box[2]}</ymax></bndbox></object>"
        for one in objects
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation>{size}{entries}</annotation>"


def inside(one: TinyObject, height: int, width: int) -> np.ndarray:
    """A shape that fills its box, bool [height, width]: birds are ellipses, cats rectangles, dogs diamonds."""
    y, x = np.mgrid[:height, :width] + 0.5
    ymin, xmin, ymax, xmax = one.box
    v, u = (2 * y - ymin - ymax) / (ymax - ymin), (2 * x - xmin - xmax) / (xmax - xmin)  # -1 to 1 within the box
    distance = {"bird": np.hypot(u, v), "cat": np.maximum(abs(u), abs(v)), "dog": abs(u) + abs(v)}[one.name]
    return distance <= 1


def draw(objects: list[TinyObject], height: int, width: int, random: np.random.Generator) -> tuple:
    """Image uint8 [height, width, 3] and mask uint8 [height, width]: 0 background, 1 to 3 classes, 255 around them."""
    image = random.integers(90, 160, [height, width, 3]).astype(np.float64)
    mask = np.zeros([height, width], np.uint8)
    for one in objects:
        grown = tuple(np.add(one.box, (-EDGE, -EDGE, EDGE, EDGE)))
        mask[inside(dataclasses.replace(one, box=grown), height, width)] = 255
    for one in objects:
        shape = inside(one, height, width)
        image[shape] = COLOURS[one.name] + random.normal(0, 8, [int(shape.sum()), 3])
        mask[shape] = MASK_CLASSES.index(one.name)
    return np.clip(image, 0, 255).astype(np.uint8), mask


def random_objects(index: int, height: int, width: int, random: np.random.Generator) -> list[TinyObject]:
    """One shape in the left half of an image, in two of three a second one in the right half; some are difficult."""
    objects = []
    for half in range(1 if index % 3 == 2 else 2):
        name = CLASSES[(index + half) % len(CLASSES)]
        h, w = (int(random.integers(side // 4, side // 2 - 4)) for side in (height, width))
        top = int(random.integers(0, height - h + 1))
        left = half * (width // 2) + int(random.integers(0, width // 2 - w + 1))
        objects.append(TinyObject(name, (top, left, top + h, left + w), difficult=half == 1 and index % 4 == 3))
    return objects


def write(root: pathlib.Path, counts: dict[str, int] | None = None, size: tuple[int, int] = (64, 80)) -> dict:
    """Writes JPEGImages, Annotations, SegmentationClass (with VOC's mode, P) and the lists of both tasks.

    Args:
      root: becomes the folder that holds ImageSets.
      counts: number of images by split; None: `COUNTS`.
      size: height and width of even images; odd ones have them exchanged.

    Returns:
      Objects by image id; ids are "train_0" and so on.
    """
    truth = {}
    for folder in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Main", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for number, (split, count) in enumerate((counts or COUNTS).items()):
        ids = [f"{split}_{index}" for index in range(count)]
        for index, name in enumerate(ids):
            random = np.random.default_rng([number, index])
            height, width = size if index % 2 == 0 else size[::-1]
            truth[name] = random_objects(index, height, width, random)
            write_image(root, name, truth[name], height, width, random)
        for folder in ("Main", "Segmentation"):
            (root / "ImageSets" / folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in ids))
    return truth


def write_image(
    root: pathlib.Path, name: str, objects: list[TinyObject], height: int, width: int, random: np.random.Generator
) -> None:
    """Image, annotation and mask of one id."""
    image, mask = draw(objects, height, width, random)
    Image.fromarray(image).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
    (root / "Annotations" / f"{name}.xml").write_text(annotation(objects, height, width))
    labels = Image.fromarray(mask).convert("P")  # an empty palette would be grey all the same
    labels.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes())
    labels.save(root / "SegmentationClass" / f"{name}.png")
