"""Artifact spotting in a set of images.

OUTPUT/overlays/NAME.jpg  image | image under its artifact map, in the image's proportions
OUTPUT/scores.csv         one line per image, highest probability first
OUTPUT/scores.json        the same, with model, images and view
OUTPUT/sheet.html         the overlays in that order
"""

import concurrent.futures
import dataclasses
import hashlib
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
from lts.utils.json_files import JsonError, read_json
from lts.utils.outputs import OutputFolder, dataset_folder
from lts.utils.progress import Progress
from lts.utils.text import csv_table
from lts.visualization import overlay

PICTURE_SIZE = 256  # longer side of an overlay in pixels: at 64 a person sees little
MAX_NAME_BYTES = 255  # of a file name, on common file systems
JPEG_QUALITY = 90
BATCH_SIZE = 32
SCORES = "scores.json"
DECIMALS = 6  # of a score


class SpottingError(UserError):
    """Images that cannot be scored as requested."""


def _overlays(folder: pathlib.Path) -> list[str]:
    """Return the overlays that an output lists."""
    try:
        scores = read_json(folder / SCORES, {"scores": [{"overlay": str}]})["scores"]
    except (JsonError, OSError):
        return []
    return [score["overlay"] for score in scores]


SPOTTED = OutputFolder(marker=SCORES, names=(SCORES, "scores.csv", "sheet.html"), listed=_overlays)


@dataclasses.dataclass(frozen=True)
class Score:
    """Scores of one image; the columns of scores.csv."""

    image: str  # name
    probability: float  # that it was repaired, in [0, 1]
    artifact_mean: float  # mean of the map: the share that looks repaired
    artifact_max: float  # most suspicious cell of the map
    overlay: str  # file in the output folder


def spot_images(
    model,
    source: data.ImageDataset,
    output: str | os.PathLike,
    *,
    image_size: int | None = None,
    test_crop: float | None = None,
) -> list[Score]:
    """Score every image and write the output folder.

    The folder is written atomically. Only scores are kept in memory.

    Args:
      model: from `lts.export.saved_model.load`.
      source: the images.
      output: folder to write; an earlier output is replaced.
      image_size: side of the view in pixels; None: that of training. On larger views the model averages its probability
        over positions.
      test_crop: central crop of the view, fraction of each side; None: that of the model's test view.

    Returns:
      The scores, highest probability first.

    Raises:
      SpottingError: an image size below the model's, an invalid crop, or scores that are not finite.
      OutputError: `output` holds something else.
    """
    view = _view(model, image_size, test_crop)
    SPOTTED.check(output, [model.path, dataset_folder(source.name)])
    with SPOTTED.write(output) as folder:
        (folder / "overlays").mkdir(parents=True)
        # Sorted before rounding: equal rounded probabilities keep their order.
        scores = sorted(_score(model, source, view, folder), key=_rank)
        scores = [_rounded(score) for score in scores]
        origin = _origin(model, source, view)
        (folder / "scores.csv").write_text(csv_table(_rows(scores)), encoding="utf-8")
        (folder / "sheet.html").write_text(sheet.render(origin, scores), encoding="utf-8")
        files.write_json(folder / SCORES, {**origin, "scores": [dataclasses.asdict(score) for score in scores]})
    return scores


def _view(model, image_size: int | None, test_crop: float | None) -> ImageConfig:
    """Return the model's view of an image."""
    # A smaller view than that of training would give fc_1 zeros that it never saw.
    size = model.image_size if image_size is None else image_size
    crop = model.test_crop if test_crop is None else test_crop
    if size < model.image_size:
        raise SpottingError(f"image_size must be at least the model's {model.image_size}. Received: image_size={size}")
    if not 0 < crop <= 1:
        raise SpottingError(f"test_crop must be in (0, 1]. Received: test_crop={crop}")
    return ImageConfig(image_size=size, test_crop=crop)


def _score(model, source: data.ImageDataset, view: ImageConfig, folder: pathlib.Path) -> Iterator[Score]:
    """Yield all scores; write the overlays."""
    first = 0
    with Progress("spotting", source.num_examples) as progress, concurrent.futures.ThreadPoolExecutor() as pool:
        for views, pictures, sizes in _batches(source, view):
            outputs = model.spot(views)
            probabilities = outputs["probability"].numpy()  # [B]
            maps = outputs["artifact_map"].numpy()  # [B, h, w]
            names = [image_name(source, first + row) for row in range(len(maps))]
            if not (np.isfinite(probabilities).all() and np.isfinite(maps).all()):
                raise SpottingError(f"{model.path} gives scores that are not finite, in the batch from {names[0]} on")
            paths = [folder / overlay_path(name) for name in names]
            # `list` waits for the threads and raises their errors.
            list(pool.map(_write_overlay, paths, pictures.numpy(), sizes.numpy(), maps))
            for name, probability, cells in zip(names, probabilities, maps, strict=True):
                yield Score(name, float(probability), float(cells.mean()), float(cells.max()), overlay_path(name))
            first += len(maps)
            progress.advance(len(maps))


def _batches(source: data.ImageDataset, view: ImageConfig) -> tf.data.Dataset:
    """Return batches of views, pictures and picture sizes."""

    # Views are uint8 [B, size, size, 3], what the model sees. Pictures are uint8 [B, PICTURE_SIZE, PICTURE_SIZE, 3],
    # the same crops in the images' proportions at the top left. Sizes are int [B, 2]: height, width.
    def example(index: tf.Tensor):
        image = source.read(index)
        crop = tf.image.central_crop(image, view.test_crop)
        shape = tf.cast(tf.shape(crop)[:2], tf.float32)  # [height, width]
        size = tf.cast(tf.round(shape * (PICTURE_SIZE / tf.reduce_max(shape))), tf.int32)
        size = tf.maximum(1, size)  # NB: a very elongated crop would have no pixels
        picture = tf.cast(tf.round(tf.image.resize(crop, size, "area")), tf.uint8)
        padded = tf.image.pad_to_bounding_box(picture, 0, 0, PICTURE_SIZE, PICTURE_SIZE)
        return test_view(image, view), padded, size

    examples = tf.data.Dataset.range(source.num_examples).map(example, num_parallel_calls=tf.data.AUTOTUNE)
    return examples.batch(BATCH_SIZE).prefetch(2)


def overlay_path(name: str) -> str:
    """Return the path of an image's overlay."""
    # No two images share a path: the suffix stays, and a name too long for a file system ends with its hash.
    folder, _, leaf = name.rpartition("/")
    if len(leaf.encode()) > MAX_NAME_BYTES - len(".jpg"):
        leaf = f"{leaf[:50]}-{hashlib.sha256(leaf.encode()).hexdigest()[:16]}"
    return "/".join(part for part in ("overlays", folder, f"{leaf}.jpg") if part)


def _write_overlay(path: pathlib.Path, padded: np.ndarray, size: np.ndarray, cells: np.ndarray) -> None:
    height, width = size
    path.parent.mkdir(parents=True, exist_ok=True)
    both = overlay.side_by_side(padded[:height, :width], cells)
    # Separate files, which the sheet loads when they scroll into view: a sheet of 10,000 images has 3 MB.
    Image.fromarray(both).save(path, quality=JPEG_QUALITY)


def _rank(score: Score) -> tuple:
    """Return the sort key, most suspicious first."""
    return (-score.probability, -score.artifact_mean, score.image)  # the name makes the order unique


def _rounded(score: Score) -> Score:
    numbers = {name: round(value, DECIMALS) for name, value in vars(score).items() if isinstance(value, float)}
    return dataclasses.replace(score, **numbers)


def _origin(model, source: data.ImageDataset, view: ImageConfig) -> dict[str, Any]:
    """Return what the scores were computed from."""
    return {
        "model": describe_model(model),
        "images": describe_source(source),
        "view": {"image_size": view.image_size, "test_crop": view.test_crop},
        "colours": {"map": overlay.COLOURS, "opacity": overlay.STRENGTH},
        "versions": versions(),
    }


def _rows(scores: list[Score]) -> list[list[Any]]:
    """Return the table of scores.csv, its header first."""
    header = [field.name for field in dataclasses.fields(Score)]
    return [header, *(list(vars(score).values()) for score in scores)]
