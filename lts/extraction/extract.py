"""Features of a set of images, from an exported model into one file.

Values go to disk as they come, so memory does not grow with the set, and a run that was stopped goes on where it was:

OUTPUT.partial/progress.json   what is extracted, and how many images are done
OUTPUT.partial/LAYER.raw       the values of these images, one after the other
OUTPUT.partial/lock            held while a process writes here

When all images are done the file is written from these (`lts.extraction.feature_files`), takes its name, and the
folder is removed: on the way there is room for the values twice on the disk.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from lts import __version__
from lts.config import ImageConfig
from lts.data import DataError
from lts.export.saved_model import LoadedModel
from lts.extraction import feature_files
from lts.extraction.stream import ImageStream
from lts.utils import files
from lts.utils.errors import UserError
from lts.utils.progress import Progress
from lts.utils.signals import StopRequest, stop_on_signals

DTYPES = ("float32", "float16")
SAVE_SECONDS = 10.0  # of work that a killed process loses at most

T = TypeVar("T")


class ExtractionError(UserError):
    """An extraction that cannot begin, go on or end."""


class _Stopped(Exception):
    """A signal came while the file was written."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of an extraction.

    Attributes:
      images: number of images in the output, or done so far.
      broken: reason by name of the images that were left out.
      signal: number of the signal that stopped it; None: the output is whole.
      before: the output was there already, whole and of the same request; nothing was done.
    """

    images: int
    broken: dict[str, str]
    signal: int | None = None
    before: bool = False


def extract(
    model: LoadedModel,
    stream: ImageStream,
    output: str | os.PathLike,
    layers: Sequence[str] = ("conv_5",),
    pool: str = "none",
    *,
    dtype: str = "float32",
    image_size: int | None = None,
    batch_size: int = 128,
    skip_broken_images: bool = False,
) -> Result:
    """Extracts features into a file, going on with what a stopped run of the same request left.

    Args:
      model: the export.
      stream: the images; each becomes the test view that evaluations see.
      output: X.npz, X.tfrecord or X.parquet.
      layers: names of the layers, each once.
      pool: "none" | "avg" | "max" | "grid:N", as `LoadedModel.features` takes it.
      dtype: of the values, "float32" | "float16".
      image_size: pixels a side of the views; None: that of the model's training.
      batch_size: images at a time; the values do not depend on it, beyond their last bits.
      skip_broken_images: leave broken images out instead of stopping at the first.

    Returns:
      What became of it.

    Raises:
      ExtractionError: other work at `output`, no room or no right to write there, or values that `dtype` cannot hold.
      FormatError, InputError, PoolError: no such format, layer, pool.
      DataError: a broken image.

    Example:
      >>> extract(saved_model.load("runs/features"), open_stream("folder:PHOTOS"), "X.npz", pool="avg")
      Result(images=1000, broken={}, signal=None, before=False)
    """
    output = pathlib.Path(output)
    feature_files.check_format(output)
    image = ImageConfig(image_size=image_size or model.image_size, test_crop=model.test_crop)
    forward = forward_pass(model, layers, pool, dtype, image.image_size)
    one = forward(tf.zeros([1, image.image_size, image.image_size, 3], tf.uint8))
    shapes = {layer: tuple(one[layer].shape[1:]) for layer in layers}
    request = _request(model, stream, layers, pool, dtype, image)
    if output.exists():
        return _done_before(output, request)
    folder = output.with_name(output.name + ".partial")
    try:
        with stop_on_signals() as stop, files.locked(folder):
            partial = _Partial(folder, request, shapes, np.dtype(dtype))
            views = stream.views(image, batch_size=batch_size, first=partial.done, skip_broken=skip_broken_images)
            _fill(partial, forward, views, len(stream.names), stop)
            broken = {stream.names[number]: reason for number, reason in sorted(partial.broken.items())}
            facts = {**request, **_facts(model, stream, image, broken), "shapes": shapes}
            whole = not stop and _write(output, partial.table(facts, stream), stop)
            return Result(partial.rows, broken, None if whole else stop.signal)
    except files.InUse as holder:
        raise ExtractionError(f"{folder} is in use by {holder}: stop it, or give another --output") from None
    except OSError as error:
        raise ExtractionError(f"{folder} could not be written: {error.strerror or error}") from None


def forward_pass(model: LoadedModel, layers: Sequence[str], pool: str, dtype: str, image_size: int) -> Any:
    """The model as one compiled function for batches of any number: uint8 images to a dict of values by layer.

    Raises:
      InputError, PoolError: no such layer, no such pool.
    """

    def forward(images: tf.Tensor) -> dict[str, tf.Tensor]:
        values = model.features(images, layer=tuple(layers), pool=pool)
        return {layer: tf.cast(values[layer], dtype) for layer in layers}

    spec = tf.TensorSpec([None, image_size, image_size, 3], tf.uint8)
    return tf.function(forward, autograph=False).get_concrete_function(spec)


def _request(
    model: LoadedModel, stream: ImageStream, layers: Sequence[str], pool: str, dtype: str, image: ImageConfig
) -> dict[str, Any]:
    """All that decides the values: what goes on must agree in it."""
    return {
        "model_fingerprint": model.fingerprint,
        "data_fingerprint": stream.fingerprint,
        "layers": list(layers),
        "pool": pool,
        "dtype": dtype,
        "preprocessing": {
            "central_crop": image.test_crop,
            "resize": "bilinear, legacy (no half-pixel centres)",
            "image_size": image.image_size,
            "values": "uint8 RGB",
        },
    }


def _facts(model: LoadedModel, stream: ImageStream, image: ImageConfig, broken: dict[str, str]) -> dict[str, Any]:
    """The rest of the metadata: what a reader wants to know of the file."""
    about = {key: value for key, value in model.description.items() if not isinstance(value, dict)}
    return {
        "model": {"name": model.path.resolve().name, **about},
        "dataset": stream.name,
        "split": stream.split,
        "images": len(stream.names) - len(broken),
        "class_names": list(stream.class_names),
        "broken": broken,
        "lts_version": __version__,
    }


def _done_before(output: pathlib.Path, request: dict[str, Any]) -> Result:
    """What an output that is there holds, if it is what was asked for."""
    metadata = feature_files.read_metadata(output)
    if changed := _differences(metadata, request):
        raise ExtractionError(f"{output} exists and differs ({changed}): remove it, or give another --output")
    return Result(metadata["images"], metadata["broken"], before=True)


def _differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    """In which entries of the request two differ; empty if in none."""
    return "; ".join(f"{key}: {old.get(key)} -> {value}" for key, value in new.items() if old.get(key) != value)


class _Partial:
    """Features of the first images, on disk.

    Args:
      folder: where; what lies there is gone on with.
      request: what is extracted.
      shapes: of one image's values, by layer.
      dtype: of the values.

    Attributes:
      done: images that are done, broken ones included.
      broken: reason by number.

    Raises:
      ExtractionError: what lies there is of another request, or damaged.
    """

    def __init__(
        self, folder: pathlib.Path, request: dict[str, Any], shapes: dict[str, tuple[int, ...]], dtype: np.dtype
    ):
        self.folder, self._request, self._shapes, self._dtype = folder, request, shapes, dtype
        self.done, self.broken = 0, {}
        self._read_progress()
        self._files = {layer: open(self._path(layer), "ab", buffering=0) for layer in shapes}  # noqa: SIM115
        for layer, file in self._files.items():
            whole = self._rows(layer).row_bytes * self.rows
            if file.tell() < whole:
                raise ExtractionError(f"{self._path(layer)} is shorter than {folder} says: remove the folder")
            file.truncate(whole)

    @property
    def rows(self) -> int:
        """Images whose values are there."""
        return self.done - len(self.broken)

    def append(self, values: dict[str, np.ndarray], stop: int, broken: dict[int, str]) -> None:
        """Takes the values of the images up to `stop`, without the broken ones."""
        for layer, array in values.items():
            if self._dtype == np.float16 and not np.isfinite(array).all():
                raise ExtractionError(f"{layer} has values that float16 cannot hold: give --dtype=float32")
            left = array.data.cast("B")
            while left:
                left = left[self._files[layer].write(left) :]
        self.broken.update(broken)
        self.done = stop

    def save(self) -> None:
        """Makes sure that what was taken is found again, whatever happens."""
        for file in self._files.values():
            os.fsync(file.fileno())
        files.write_json(
            self.folder / "progress.json", {"request": self._request, "done": self.done, "broken": self.broken}
        )

    def close(self) -> None:
        """Closes the files."""
        for file in self._files.values():
            file.close()

    def table(self, metadata: dict[str, Any], stream: ImageStream) -> feature_files.Table:
        """Everything that goes into the output."""
        kept = [number for number in range(self.done) if number not in self.broken]
        return feature_files.Table(
            layers={layer: self._rows(layer) for layer in self._shapes},
            names=[stream.names[number] for number in kept],
            labels=None if stream.labels is None else stream.labels[kept],
            class_names=stream.class_names,
            metadata=metadata,
        )

    def _read_progress(self) -> None:
        try:
            progress = json.loads((self.folder / "progress.json").read_text(encoding="utf-8"))
            changed = _differences(progress["request"], self._request)
            self.done, self.broken = progress["done"], {int(key): why for key, why in progress["broken"].items()}
        except FileNotFoundError:
            return
        except (AttributeError, KeyError, TypeError, ValueError):
            raise ExtractionError(f"{self.folder} is damaged: remove it to begin again") from None
        if changed:
            raise ExtractionError(
                f"{self.folder} holds part of another extraction ({changed}): give the same flags to go on with it, "
                "another --output, or remove it"
            )

    def _path(self, layer: str) -> pathlib.Path:
        return self.folder / f"{layer}.raw"

    def _rows(self, layer: str) -> feature_files.Rows:
        return feature_files.Rows(self._path(layer), (self.rows, *self._shapes[layer]), self._dtype)


def _fill(partial: _Partial, forward: Any, views: Iterable, count: int, stop: StopRequest) -> None:
    """Extracts until all images are done or a signal comes; saves every few seconds, and however it ends."""
    saved = time.monotonic()
    if partial.done:
        print(f"going on after {partial.done} of {count} images", flush=True)
    batches = ((view, forward(tf.convert_to_tensor(view.images)) if len(view.images) else {}) for view in views)
    try:
        with Progress("extracting", count, first=partial.done) as progress:
            for view, outputs in _one_behind(batches):
                before = partial.done
                partial.append({layer: outputs[layer].numpy() for layer in outputs}, view.stop, view.broken)
                progress.advance(partial.done - before)
                if stop:
                    break
                if time.monotonic() - saved > SAVE_SECONDS:
                    partial.save()
                    saved = time.monotonic()
        partial.save()
    except BaseException:
        with contextlib.suppress(OSError):  # the disk may be full
            partial.save()
        raise
    finally:
        partial.close()


def _one_behind(items: Iterable[T]) -> Iterator[T]:
    """The items, each when the next one is there: a GPU computes it while this one is fetched and written."""
    waiting = []
    try:
        for item in items:
            yield from waiting
            waiting = [item]
    except Exception:
        yield from waiting
        raise
    yield from waiting


def _write(output: pathlib.Path, table: feature_files.Table, stop: StopRequest) -> bool:
    """Writes the output inside of the partial folder, gives it its name, and removes the folder.

    Returns:
      Whether it did; False: a signal came before.

    Raises:
      DataError: there is no image.
    """
    if not table.names:
        name, reason = next(iter(table.metadata["broken"].items()))
        raise DataError(f"all {len(table.metadata['broken'])} images are broken, the first is {name} ({reason})")

    def check() -> None:
        if stop:
            raise _Stopped

    folder = output.with_name(output.name + ".partial")
    try:
        written = feature_files.write(folder / output.name, dataclasses.replace(table, check=check))
    except _Stopped:
        return False
    for path in written:
        os.replace(path, output.with_name(path.name))
    shutil.rmtree(folder)
    return True
