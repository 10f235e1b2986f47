"""Feature files: .npz, .tfrecord and .parquet.

The files are written piece by piece from raw values on disk. All three formats hold the features of each layer, names
and labels of the images, and metadata as JSON (see `lts.extraction.extract`).

X.npz       one array per layer, `names`, `labels`, `class_names`, and `metadata`, a string
X.tfrecord  one tf.train.Example per image: the bytes of each layer in C order, `name` (bytes), `label` (int64);
            X.tfrecord.json holds the metadata with shapes and dtype
X.parquet   one row per image: a fixed-size list per layer in C order, `name`, `label`;
            entry "lts" of the schema holds the metadata with the shapes
"""

import dataclasses
import importlib.util
import json
import os
import pathlib
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lts.utils import npz
from lts.utils.errors import FormatError, UserError
from lts.utils.files import check_regular, read_regular
from lts.utils.json_files import JsonError, read_json
from lts.utils.text import utf8

PIECE_BYTES = 16_000_000  # size of the pieces in memory
MAX_METADATA = 2**28  # bytes in an .npz


class FeatureFileError(UserError):
    """Feature file that cannot be read."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """Array in a raw file."""

    path: pathlib.Path  # values in C order without a header
    shape: tuple[int, ...]  # the first dimension counts images
    dtype: np.dtype

    @property
    def row_bytes(self) -> int:
        """Bytes of one image."""
        return int(np.prod(self.shape[1:])) * self.dtype.itemsize

    def read(self, file: Any, count: int) -> np.ndarray:
        """Return the file's next `count` images."""
        values = np.fromfile(file, self.dtype, count * self.row_bytes // self.dtype.itemsize)
        return values.reshape(-1, *self.shape[1:])


@dataclasses.dataclass(frozen=True)
class Table:
    """Contents of a feature file."""

    layers: dict[str, Rows]
    names: list[str]
    labels: np.ndarray | None  # int64 [N], -1 for an image without a label; or None
    class_names: tuple[str, ...]
    metadata: dict[str, Any]  # values that JSON can hold
    check: Callable[[], None] = lambda: None  # called before each piece; may raise to stop

    def pieces(self) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
        """Yield each piece: images, features by layer."""
        # Images per piece; at least one, however large its features are.
        count = max(1, PIECE_BYTES // sum(rows.row_bytes for rows in self.layers.values()))
        files = {layer: open(rows.path, "rb") for layer, rows in self.layers.items()}  # noqa: SIM115
        try:
            for start in range(0, len(self.names), count):
                self.check()
                piece = slice(start, min(start + count, len(self.names)))
                yield piece, {name: rows.read(files[name], piece.stop - start) for name, rows in self.layers.items()}
        finally:
            for file in files.values():
                file.close()


def check_format(output: str | os.PathLike) -> None:
    """Raise `FormatError` unless the format is available."""
    suffix = pathlib.Path(output).suffix
    if suffix not in WRITERS:
        raise FormatError(f"output must end in {', '.join(WRITERS)}. Received: output={str(output)!r}.")
    if suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise FormatError(f"Parquet files need pyarrow. Received: output={str(output)!r}. Run: pip install pyarrow")


def check_companion(output: pathlib.Path) -> None:
    """Raise `FeatureFileError` if a second file of the output would replace another file."""
    companion = output.with_name(output.name + ".json")
    if output.suffix != ".tfrecord" or not companion.exists():
        return
    # It is written first: one of ours is left by a process that was killed in between.
    try:
        read_json(companion, {"model_fingerprint": str, "data_fingerprint": str})
    except JsonError:
        raise FeatureFileError(
            f"{companion} is no metadata of features and would be replaced. Received: output={output}. "
            "Move it or give another --output."
        ) from None


def write(path: pathlib.Path, table: Table) -> list[pathlib.Path]:
    """Write a feature file; return files, main one last."""
    return WRITERS[path.suffix](path, table)


def read_metadata(path: str | os.PathLike) -> dict[str, Any]:
    """Return a file's metadata, or raise `FeatureFileError`."""
    path = pathlib.Path(path)
    try:
        check_regular(path)
        return json.loads(READERS[path.suffix](path))
    except Exception as error:  # readers of damaged files raise nearly any type
        raise FeatureFileError(f"{path} cannot be read as a feature file ({type(error).__name__}).") from None


def _write_npz(path: pathlib.Path, table: Table) -> list[pathlib.Path]:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, rows in table.layers.items():
            one_layer = dataclasses.replace(table, layers={name: rows})
            with _npz_entry(archive, name) as entry:
                # The shape is written before the values are known to NumPy.
                header = np.lib.format.header_data_from_array_1_0(np.empty([0], rows.dtype)) | {"shape": rows.shape}
                np.lib.format.write_array_header_1_0(entry, header)
                for _, piece in one_layer.pieces():
                    entry.write(piece[name].data)
        arrays = {
            "names": np.array(table.names, np.str_),
            "class_names": np.array(table.class_names, np.str_),
            "metadata": np.array(json.dumps(table.metadata), np.str_),
        }
        if table.labels is not None:
            arrays["labels"] = table.labels
        for name, array in arrays.items():
            with _npz_entry(archive, name) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
    return [path]


def _npz_entry(archive: zipfile.ZipFile, name: str) -> Any:
    """Open an entry of an .npz."""
    # ZipInfo without a time: equal contents give equal files. NB: force_zip64 allows entries over 2 GiB.
    return archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)


def _read_npz(path: pathlib.Path) -> str:
    with npz.open_npz(path) as archive:
        return str(npz.read_array(archive, "metadata", MAX_METADATA))


def _write_tfrecord(path: pathlib.Path, table: Table) -> list[pathlib.Path]:
    import tensorflow as tf

    # Records have no header, so the metadata stand in a second file.
    metadata_path = path.with_name(path.name + ".json")
    metadata_path.write_text(json.dumps(table.metadata, indent=2) + "\n", encoding="utf-8")
    with tf.io.TFRecordWriter(os.fsencode(path)) as writer:
        for piece, layers in table.pieces():
            for row, number in enumerate(range(piece.start, piece.stop)):
                label = -1 if table.labels is None else int(table.labels[number])
                values = {name: array[row] for name, array in layers.items()}
                writer.write(_example(table.names[number], label, values))
    return [metadata_path, path]


def _read_tfrecord(path: pathlib.Path) -> str:
    return read_regular(path.with_name(path.name + ".json")).decode("utf-8")


def _example(name: str, label: int, values: dict[str, np.ndarray]) -> bytes:
    """Return one image as a serialised tf.train.Example."""
    import tensorflow as tf

    # Bytes, because a float list needs Python numbers: 2 milliseconds per image.
    features = {layer: tf.train.BytesList(value=[array.tobytes()]) for layer, array in values.items()}
    features["name"] = tf.train.BytesList(value=[os.fsencode(name)])
    entries = {key: tf.train.Feature(bytes_list=value) for key, value in features.items()}
    if label >= 0:
        entries["label"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
    return tf.train.Example(features=tf.train.Features(feature=entries)).SerializeToString(deterministic=True)


def _write_parquet(path: pathlib.Path, table: Table) -> list[pathlib.Path]:
    import pyarrow as pa
    from pyarrow import parquet

    widths = {name: int(np.prod(rows.shape[1:])) for name, rows in table.layers.items()}
    fields = [pa.field("name", pa.string()), pa.field("label", pa.int64())]
    for name, rows in table.layers.items():
        fields.append(pa.field(name, pa.list_(pa.from_numpy_dtype(rows.dtype), widths[name])))
    schema = pa.schema(fields, {"lts": json.dumps(table.metadata)})
    # Float features hardly repeat, so dictionaries and statistics would not make the file smaller.
    # NB: pyarrow opens no path that is not UTF-8.
    options = {"use_dictionary": False, "write_statistics": False}
    with path.open("wb") as file, parquet.ParquetWriter(file, schema, **options) as writer:
        for piece, layers in table.pieces():
            # Parquet strings must be UTF-8; file names need not be.
            names = [utf8(name) for name in table.names[piece]]
            # An image without a label has a null.
            labels = np.full(len(names), -1) if table.labels is None else table.labels[piece]
            columns = [pa.array(names), pa.array(labels, mask=labels < 0)]
            for name, values in layers.items():
                columns.append(pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), widths[name]))
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
    return [path]


def _read_parquet(path: pathlib.Path) -> str:
    from pyarrow import parquet

    with path.open("rb") as file:
        return parquet.read_schema(file).metadata[b"lts"].decode()


WRITERS = {".npz": _write_npz, ".tfrecord": _write_tfrecord, ".parquet": _write_parquet}
READERS = {".npz": _read_npz, ".tfrecord": _read_tfrecord, ".parquet": _read_parquet}
