"""Spots artifacts in a set of images: an overlay each, scores as CSV and JSON, a contact sheet.

OUTPUT/overlays/NAME.jpg  image | image under its artifact map, in the image's own proportions
OUTPUT/scores.csv         a line each, highest probability first
OUTPUT/scores.json        the same, with what model, images and view they come from
OUTPUT/sheet.html         the overlays in that order
"""

import concurrent.futures
import csv
import dataclasses
import hashlib
import io
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from lts import data
from lts.config import ImageConfig
from lts.data.pipeline import test_view
from lts.spotting import sheet
from lts.spotting.metadata import describe_model, describe_source, image_name, versions
from lts.utils import files
from lts.utils.errors import UserError
from lts.utils.progress import Progress
from lts.visualization import overlay

PICTURE = 256  # pixels of an overlay's longer side
LONGEST = 255  # bytes of a file's name
QUALITY = 90  # of JPEG
BATCH_SIZE = 32
SCORES = "scores.json"  # by which an earlier output is known
DIGITS = 6  # of a score, behind the point


class SpottingError(UserError):
    """Images that cannot be spotted as asked: one line that says why."""


@dataclasses.dataclass(frozen=True)
class Score:
    """What the model says of one image; the columns of scores.csv.

    Attributes:
      image: its name.
      probability: of having been repaired, [0, 1].
      artifact_mean: mean over the artifact map's cells: share of the image that looks repaired.
      artifact_max: of the most suspicious cell.
      overlay: file in the output folder.
    """

    image: str
    probability: float
    artifact_mean: float
    artifact_max: float
    overlay: str


def spot_images(
    model,
    source: data.ImageDataset,
    output: str | os.PathLike,
    *,
    image_size: int | None = None,
    test_crop: float | None = None,
) -> list[Score]:
    """Scores every image and writes the output folder, whole or not at all; only scores are kept in memory.

    Args:
      model: from `lts.export.saved_model.load`.
      source: the images.
      output: folder to write; an earlier output is replaced.
      image_size: pixels a side that the model sees; None: what it was trained at. On larger ones it averages its
        probability over positions.
      test_crop: central crop that the model sees, fraction of each side; None: that of its own test view.

    Returns:
      The scores, highest probability first.

    Raises:
      SpottingError: an image size below the model's, a crop that is none, scores that are not finite.
      OutputError: `output` holds something else.
    """
    view = _view(model, image_size, test_crop)
    files.check_replaceable(output, SCORES)
    with files.atomic_write(output) as folder:
        (folder / "overlays").mkdir(parents=True)
        scores = sorted(_scan(model, source, view, folder), key=_rank)
        scores = [_rounded(score) for score in scores]
        facts = _facts(model, source, view)
        _write_csv(folder / "scores.csv", scores)
        (folder / "sheet.html").write_text(sheet.render(facts, scores), encoding="utf-8")
        files.write_json(folder / SCORES, {**facts, "scores": [dataclasses.asdict(score) for score in scores]})
    return scores


def _view(model, image_size: int | None, test_crop: float | None) -> ImageConfig:
    """What the model sees of an image."""
    size = model.image_size if image_size is None else image_size
    crop = model.test_crop if test_crop is None else test_crop
    if size < model.image_size:
        raise SpottingError(f"image_size must be at least the model's {model.image_size}. Received: image_size={size}")
    if not 0 < crop <= 1:
        raise SpottingError(f"test_crop must be in (0, 1]. Received: test_crop={crop}")
    return ImageConfig(image_size=size, test_crop=crop)


def _scan(model, source: data.ImageDataset, view: ImageConfig, folder: pathlib.Path) -> Iterator[Score]:
    """Scores in the order of the source; the overlays are written by threads beside the model."""
    with Progress("spotting", source.num_examples) as progress, concurrent.futures.ThreadPoolExecutor() as pool:
        index = 0
        for views, pictures, sizes in _batches(source, view):
            found = {name: value.numpy() for name, value in model.spot(views).items()}
            cells = found["artifact_map"]
            names = [image_name(source, index + row) for row in range(len(cells))]
            if not (np.isfinite(found["probability"]).all() and np.isfinite(cells).all()):
                raise SpottingError(f"{model.path} gives scores that are not finite, on {names[0]} or one behind it")
            pictures = [p[:height, :width] for p, (height, width) in zip(pictures.numpy(), sizes.numpy(), strict=True)]
            paths = [folder / overlay_path(name) for name in names]
            list(pool.map(_write_overlay, paths, pictures, cells))
            for name, probability, grid in zip(names, found["probability"], cells, strict=True):
                yield Score(name, float(probability), float(grid.mean()), float(grid.max()), overlay_path(name))
            index += len(cells)
            progress.advance(len(cells))


def _batches(source: data.ImageDataset, view: ImageConfig) -> tf.data.Dataset:
    """What is looked at and what is shown of it: the one place where images are read.

    Returns:
      Dataset of uint8 [B, size, size, 3], the model's views; uint8 [B, PICTURE, PICTURE, 3], the same crops in their
      own proportions at the top left; int [B, 2], their height and width.
    """

    def example(index: tf.Tensor):
        image = source.read(index)
        crop = tf.image.central_crop(image, view.test_crop)
        shape = tf.cast(tf.shape(crop)[:2], tf.float32)
        size = tf.maximum(1, tf.cast(tf.round(shape * (PICTURE / tf.reduce_max(shape))), tf.int32))
        picture = tf.cast(tf.round(tf.image.resize(crop, size, "area")), tf.uint8)
        return (
            test_view(image, view),
            tf.image.pad_to_bounding_box(picture, 0, 0, PICTURE, PICTURE),
            size,
        )

    examples = tf.data.Dataset.range(source.num_examples).map(example, num_parallel_calls=tf.data.AUTOTUNE)
    return examples.batch(BATCH_SIZE).prefetch(2)


def overlay_path(name: str) -> str:
    """Where the overlay of an image lies in the output.

    No two images share one: a suffix is added, and what would be too long for a file system ends with its hash.
    """
    folder, _, leaf = name.rpartition("/")
    if len(leaf.encode()) > LONGEST - len(".jpg"):
        leaf = f"{leaf[:50]}-{hashlib.sha256(leaf.encode()).hexdigest()[:16]}"
    return "/".join(part for part in ("overlays", folder, f"{leaf}.jpg") if part)


def _write_overlay(path: pathlib.Path, picture: np.ndarray, cells: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(overlay.side_by_side(picture, cells)).save(path, quality=QUALITY)


def _rank(score: Score) -> tuple:
    return (-score.probability, -score.artifact_mean, score.image)


def _rounded(score: Score) -> Score:
    numbers = {name: round(value, DIGITS) for name, value in vars(score).items() if isinstance(value, float)}
    return dataclasses.replace(score, **numbers)


def _facts(model, source: data.ImageDataset, view: ImageConfig) -> dict[str, Any]:
    """What the scores come from."""
    return {
        "model": describe_model(model),
        "images": describe_source(source),
        "view": {"image_size": view.image_size, "test_crop": view.test_crop},
        "colours": {"map": overlay.COLOURS, "opacity": overlay.STRENGTH},
        "versions": versions(),
    }


def _write_csv(path: pathlib.Path, scores: list[Score]) -> None:
    text = io.StringIO()
    rows = csv.DictWriter(text, [field.name for field in dataclasses.fields(Score)], lineterminator="\n")
    rows.writeheader()
    rows.writerows(dataclasses.asdict(score) for score in scores)
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
