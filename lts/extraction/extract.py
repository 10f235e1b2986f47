"""Features of a dataset in one file.

Values go to disk as they are computed, so the memory does not grow with the dataset. A stopped run resumes:

OUTPUT.partial/progress.json   the request and the number of finished images
OUTPUT.partial/LAYER.raw       the values of these images, one after the other
OUTPUT.partial/lock            held while a process writes here

The output is written from these files when all images are finished (`lts.extraction.feature_files`), because an .npz
needs the number of images and a checksum before its next entry. The disk must hold the values twice until then.
"""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from lts import __version__
from lts.config import ImageConfig
from lts.data import DataError
from lts.export.saved_model import LoadedModel
from lts.extraction import feature_files
from lts.extraction.stream import ImageStream, Views
from lts.utils import files, filesystem
from lts.utils.errors import UserError
from lts.utils.json_files import JsonError, check_shape, read_json
from lts.utils.progress import Progress
from lts.utils.signals import StopRequest, stop_on_signals

SAVE_SECONDS = 10.0  # a killed process loses at most this much work


class ExtractionError(UserError):
    """Extraction that cannot start, resume or finish."""


class _Stopped(Exception):
    """Signal that arrived while the output was written."""


@dataclasses.dataclass(frozen=True)
class Result:
    """Outcome of an extraction."""

    images: int  # number of images in the output, or finished so far
    broken: dict[str, str]  # reason by name of the skipped images
    signal: int | None = None  # number of the stopping signal; None: the output is complete
    already_complete: bool = False  # the output of the same request existed before


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
    """Extract features into a file.

    Resumes a stopped run of the same request.

    Args:
      model: the exported model.
      stream: the images; each is preprocessed to the test view that evaluations use.
      output: X.npz, X.tfrecord or X.parquet.
      layers: names of the layers, without repetition.
      pool: "none" | "avg" | "max" | "grid:N", as `LoadedModel.features` takes it.
      dtype: "float32" | "float16".
      image_size: side of the test view in pixels; None: that of the model's training.
      batch_size: images per forward pass; changes the values in their last bits at most.
      skip_broken_images: skip broken images instead of raising.

    Returns:
      The outcome.

    Raises:
      ExtractionError: `output` holds something else or cannot be written, or `dtype` cannot hold a value.
      FormatError, LayerError, PoolError: no such format, layer, pool.
      DataError: a broken image.

    Example:
      >>> from lts.extraction.stream import open_stream
      >>> extract(lts.load("runs/features"), open_stream("folder:PHOTOS"), "X.npz", pool="avg")
      Result(images=16, broken={}, signal=None, already_complete=False)
    """
    # A link stays: its target is written, with the partial folder on the same disk.
    output = pathlib.Path(os.path.realpath(output))
    feature_files.check_format(output)
    image = ImageConfig(image_size=image_size or model.image_size, test_crop=model.test_crop)
    forward = forward_pass(model, layers, pool, dtype, image.image_size)
    # One black image gives the shapes. Wrong layers and pools raise here, before anything is written.
    features = forward(tf.zeros([1, image.image_size, image.image_size, 3], tf.uint8))
    shapes = {layer: tuple(features[layer].shape[1:]) for layer in layers}

    # A finished output or a partial folder is used only if it belongs to the same request.
    request = _request(model, stream, layers, pool, dtype, image)
    folder = output.with_name(output.name + ".partial")
    if output.exists():
        result = _existing_result(output, request)
        _remove_finished(folder, model.layers)
        return result
    feature_files.check_companion(output)
    unknown = _unknown_names(folder, model.layers)
    if unknown:
        raise ExtractionError(
            f"{folder / unknown[0]} is no partial result, and the folder is removed at the end. "
            f"Received: output={output}. Move it or give another --output."
        )
    try:
        with stop_on_signals() as stop, files.locked(folder):
            partial = _Partial(folder, request, shapes, np.dtype(dtype), len(stream.names))
            views = stream.views(image, batch_size=batch_size, first=partial.done, skip_broken=skip_broken_images)
            _fill(partial, forward, views, len(stream.names), stop)
            broken = dict(stream.unlisted)
            broken.update({stream.names[number]: partial.broken[number] for number in sorted(partial.broken)})
            metadata = request | _description(model, stream, partial.rows, broken) | {"shapes": shapes}
            complete = not stop and _write(output, partial.table(metadata, stream), stop)
            return Result(partial.rows, broken, None if complete else stop.signal)
    except files.InUse as holder:
        raise ExtractionError(f"{folder} is in use by {holder}. Stop it, or give another --output.") from None
    except OSError as error:
        raise ExtractionError(f"{folder} could not be written. Received: {error.strerror or error}.") from None


def forward_pass(model: LoadedModel, layers: Sequence[str], pool: str, dtype: str, image_size: int) -> Any:
    """Return a function from images to features.

    It takes uint8 [batch, image_size, image_size, 3] of any batch size.

    Raises:
      LayerError, PoolError: no such layer, no such pool.
    """

    def forward(images: tf.Tensor) -> dict[str, tf.Tensor]:
        features = model.features(images, layer=tuple(layers), pool=pool)
        return {layer: tf.cast(features[layer], dtype) for layer in layers}

    # Traced once for every batch size, so that the last, smaller batch does not compile again.
    spec = tf.TensorSpec([None, image_size, image_size, 3], tf.uint8)
    return tf.function(forward, autograph=False).get_concrete_function(spec)


def _request(
    model: LoadedModel, stream: ImageStream, layers: Sequence[str], pool: str, dtype: str, image: ImageConfig
) -> dict[str, Any]:
    """Return everything that determines the values."""
    preprocessing = {
        "central_crop": image.test_crop,
        "resize": "bilinear, legacy (no half-pixel centres)",
        "image_size": image.image_size,
        "values": "uint8 RGB",
    }
    if stream.stored_size:
        preprocessing["shrunk_to"] = stream.stored_size  # shorter side in pixels, before the crop
    return {
        "model_fingerprint": model.fingerprint,
        "data_fingerprint": stream.fingerprint,
        "layers": list(layers),
        "pool": pool,
        "dtype": dtype,
        "preprocessing": preprocessing,
    }


def _description(model: LoadedModel, stream: ImageStream, images: int, broken: dict[str, str]) -> dict[str, Any]:
    """Return the other metadata."""
    # They do not determine the values, so a resumed run may differ in them.
    about = {key: value for key, value in model.description.items() if not isinstance(value, dict)}
    return {
        "model": {"name": model.path.resolve().name, **about},
        "dataset": stream.name,
        "split": stream.split,
        "images": images,
        "class_names": list(stream.class_names),
        "broken": broken,
        "lts_version": __version__,
    }


def _existing_result(output: pathlib.Path, request: dict[str, Any]) -> Result:
    """Return the result of an existing output."""
    metadata = feature_files.read_metadata(output)
    try:
        check_shape(metadata, {"images": int, "broken": {str: str}}, str(output))
    except JsonError as error:
        raise ExtractionError(str(error)) from None
    if changed := _differences(metadata, request):
        raise ExtractionError(f"{output} exists and differs. Received: {changed}. Remove it, or give another --output.")
    return Result(metadata["images"], metadata["broken"], already_complete=True)


def _unknown_names(folder: pathlib.Path, layers: Iterable[str]) -> list[str]:
    """Return the names in a partial folder that no extraction of these layers writes."""
    output_name = folder.name.removesuffix(".partial")
    known = {"progress.json", files.LOCK, output_name, f"{output_name}.json"}
    known.update(f"{layer}.raw" for layer in layers)  # NB: a photograph may be called 1.raw
    names = files.contents(folder) if folder.is_dir() else []
    return [name for name in names if name not in known]


def _remove_finished(folder: pathlib.Path, layers: Iterable[str]) -> None:
    """Remove the partial folder of a finished output."""
    # It stays when a process is killed after its last rename. A living process removes it itself.
    if folder.is_dir() and not _unknown_names(folder, layers):
        with contextlib.suppress(files.InUse), files.locked(folder):
            shutil.rmtree(folder)


def _differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Return the differences of two requests."""
    return "; ".join(f"{key}: {old.get(key)} -> {value}" for key, value in new.items() if old.get(key) != value)


class _Partial:
    """Features of the first images, on disk."""

    def __init__(
        self,
        folder: pathlib.Path,
        request: dict[str, Any],
        shapes: dict[str, tuple[int, ...]],
        dtype: np.dtype,
        count: int,
    ):
        self.folder = folder
        self.done = 0  # number of finished images, including broken ones
        self.broken: dict[int, str] = {}  # number to reason
        self._request = request
        self._shapes = shapes
        self._dtype = dtype
        self._count = count  # of all images
        # An earlier run of the same request is continued; another request is an error.
        self._read_progress()
        self._files = {layer: open(self._path(layer), "ab", buffering=0) for layer in shapes}  # noqa: SIM115
        # A killed process may have written more than it recorded: cut the files back to the record.
        for layer, file in self._files.items():
            recorded_bytes = self._rows(layer).row_bytes * self.rows
            if file.tell() < recorded_bytes:
                raise ExtractionError(f"{self._path(layer)} is shorter than progress.json records. Remove {folder}.")
            file.truncate(recorded_bytes)

    @property
    def rows(self) -> int:
        """Number of images with values in the files."""
        return self.done - len(self.broken)

    def append(self, values: dict[str, np.ndarray], stop: int, broken: dict[int, str]) -> None:
        """Append the images up to `stop`."""
        for layer, array in values.items():
            if self._dtype == np.float16 and not np.isfinite(array).all():
                raise ExtractionError(f"float16 cannot hold a value of {layer}. Give --dtype=float32.")
            remaining = array.data.cast("B")
            # NB: an unbuffered write may write less than it is given.
            while remaining:
                remaining = remaining[self._files[layer].write(remaining) :]
        self.broken.update(broken)
        self.done = stop

    def save(self) -> None:
        """Record the progress, after its values are stored."""
        for file in self._files.values():
            os.fsync(file.fileno())
        # NB: the record must not run ahead of the values: it decides where a resumed run continues.
        record = {"request": self._request, "done": self.done, "broken": self.broken}
        files.write_json(self.folder / "progress.json", record)

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()

    def table(self, metadata: dict[str, Any], stream: ImageStream) -> feature_files.Table:
        """Return the contents of the output."""
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
            shape = {"request": dict, "done": int, "broken": {str: str}}
            record = read_json(self.folder / "progress.json", shape)
            changed = _differences(record["request"], self._request)
            self.done = record["done"]
            self.broken = {int(number): reason for number, reason in record["broken"].items()}
        except FileNotFoundError:
            return
        except ValueError as error:
            raise ExtractionError(f"{self.folder} is damaged. Remove it to start again. Received: {error}") from None
        if not 0 <= self.done <= self._count or not all(0 <= number < self.done for number in self.broken):
            raise ExtractionError(
                f"{self.folder} is damaged. Remove it to start again. Received: progress.json with numbers outside of "
                f"the {self._count} images."
            )
        if changed:
            raise ExtractionError(
                f"{self.folder} holds part of another extraction. Received: {changed}. Give the same flags to resume "
                "it, give another --output, or remove it."
            )

    def _path(self, layer: str) -> pathlib.Path:
        return self.folder / f"{layer}.raw"

    def _rows(self, layer: str) -> feature_files.Rows:
        return feature_files.Rows(self._path(layer), (self.rows, *self._shapes[layer]), self._dtype)


def _fill(partial: _Partial, forward: Any, views: Iterable[Views], count: int, stop: StopRequest) -> None:
    """Extract until the end or a signal."""
    if partial.done:
        print(f"resuming after {partial.done} of {count} images", flush=True)
    last_save = time.monotonic()
    try:
        with Progress("extracting", count, first=partial.done) as progress:
            for view, features in _delayed(_forward_all(forward, views)):
                progress.advance(view.stop - partial.done)
                partial.append({layer: features[layer].numpy() for layer in features}, view.stop, view.broken)
                if stop:
                    break
                # Saving waits for the disk, so it does not follow every batch.
                if time.monotonic() - last_save > SAVE_SECONDS:
                    partial.save()
                    last_save = time.monotonic()
        partial.save()
    except BaseException:
        with contextlib.suppress(OSError):  # the disk may be full
            partial.save()
        raise  # finished images stay on the disk, and the next run resumes
    finally:
        partial.close()


def _forward_all(forward: Any, views: Iterable[Views]) -> Iterator[tuple[Views, dict[str, tf.Tensor]]]:
    """Yield views and features."""
    # A range of broken images has no features.
    for view in views:
        yield view, forward(tf.convert_to_tensor(view.images)) if len(view.images) else {}


def _delayed(items: Iterable) -> Iterator:
    """Yield each item after starting the next."""
    # A GPU computes the next batch while this one is written.
    waiting = []
    try:
        for item in items:
            yield from waiting
            waiting = [item]
    except Exception:
        yield from waiting  # the images before a broken one are finished and saved
        raise
    yield from waiting


def _write(output: pathlib.Path, table: feature_files.Table, stop: StopRequest) -> bool:
    """Write the output; False after a signal."""
    if not table.names:
        broken = table.metadata["broken"]
        name, reason = next(iter(broken.items()))
        raise DataError(f"all {len(broken)} images are broken. The first is {name} ({reason}).")

    # Writing can take minutes, so a signal ends it between two pieces. The partial folder stays.
    def check() -> None:
        if stop:
            raise _Stopped

    folder = output.with_name(output.name + ".partial")
    try:
        written = feature_files.write(folder / output.name, dataclasses.replace(table, check=check))
    except _Stopped:
        return False
    # The main file comes last: an output that exists is complete.
    for path in written:
        filesystem.replace(path, output.with_name(path.name))
    shutil.rmtree(folder)
    return True
