"""Features in a file: .npz, .tfrecord or .parquet, written piece by piece from rows that lie on disk.

All three hold the same: an array for each layer, the images' names, their labels where there are any, and the metadata,
which are JSON (`lts.extraction` says what is in them).

X.npz       one array a layer, `names`, `labels`, `class_names`, and `metadata`, a string
X.tfrecord  a tf.train.Example an image: the bytes of each layer (in C order), `name` (bytes), `label` (int64);
            the metadata, with shapes and dtype, are in X.tfrecord.json beside it
X.parquet   a row an image: a fixed-size list a layer (in C order), `name`, `label`; the metadata, with the
            shape of each layer, are the schema's entry "lts"
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

from lts.utils.errors import FormatError, UserError

PIECE_BYTES = 16_000_000  # read and written at a time


class FeatureFileError(UserError):
    """A file of features that cannot be written as asked, or cannot be read."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """An array in a raw file, with its shape.

    Attributes:
      path: of the file: the values alone, in C order.
      shape: of the whole array; the first dimension counts images.
      dtype: of the values.
    """

    path: pathlib.Path
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def row_bytes(self) -> int:
        """Bytes of one image."""
        return int(np.prod(self.shape[1:])) * self.dtype.itemsize

    def read(self, file: Any, count: int) -> np.ndarray:
        """The next `count` images from where the open file stands."""
        values = np.fromfile(file, self.dtype, count * self.row_bytes // self.dtype.itemsize)
        return values.reshape(-1, *self.shape[1:])


@dataclasses.dataclass(frozen=True)
class Table:
    """What goes into a file.

    Attributes:
      layers: values by layer.
      names: of the images.
      labels: int64, or None.
      class_names: names of the classes.
      metadata: JSON-ready.
      check: called between pieces; may raise to stop.
    """

    layers: dict[str, Rows]
    names: list[str]
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    metadata: dict[str, Any]
    check: Callable[[], None] = lambda: None

    def pieces(self) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
        """The images of a piece, and its values by layer."""
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
    """Whether there is a format for this file name, and what it needs.

    Raises:
      FormatError: no, or not on this machine.
    """
    suffix = pathlib.Path(output).suffix
    if suffix not in WRITERS:
        raise FormatError(f"output must end in {', '.join(WRITERS)}. Received: output={str(output)!r}")
    if suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise FormatError("files of Parquet need the package pyarrow: pip install pyarrow, or give --output=X.npz")


def write(path: pathlib.Path, table: Table) -> list[pathlib.Path]:
    """Writes a file in the format of its suffix.

    Returns:
      The files that were written, the one that makes the others valid last.
    """
    return WRITERS[path.suffix](path, table)


def read_metadata(path: str | os.PathLike) -> dict[str, Any]:
    """The metadata of a file of features.

    Raises:
      FeatureFileError: the file is none, or is damaged.
    """
    path = pathlib.Path(path)
    try:
        return json.loads(READERS[path.suffix](path))
    except Exception as error:  # readers of damaged files raise nearly anything
        raise FeatureFileError(f"{path} cannot be read as a file of features ({type(error).__name__})") from None


def _write_npz(path: pathlib.Path, table: Table) -> list[pathlib.Path]:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, rows in table.layers.items():
            alone = dataclasses.replace(table, layers={name: rows})
            with _npz_entry(archive, name) as entry:
                header = np.lib.format.header_data_from_array_1_0(np.empty([0], rows.dtype)) | {"shape": rows.shape}
                np.lib.format.write_array_header_1_0(entry, header)
                for _, piece in alone.pieces():
                    entry.write(piece[name].data)
        arrays = {"names": table.names, "class_names": table.class_names, "metadata": json.dumps(table.metadata)}
        arrays = {name: np.array(value, np.str_) for name, value in arrays.items()}
        if table.labels is not None:
            arrays["labels"] = table.labels
        for name, array in arrays.items():
            with _npz_entry(archive, name) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
    return [path]


def _npz_entry(archive: zipfile.ZipFile, name: str) -> Any:
    """A file inside an .npz, of any length; without the time of day, so that equal contents are equal files."""
    return archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)


def _read_npz(path: pathlib.Path) -> str:
    with np.load(path) as arrays:
        return str(arrays["metadata"])


def _write_tfrecord(path: pathlib.Path, table: Table) -> list[pathlib.Path]:
    import tensorflow as tf

    beside = path.with_name(path.name + ".json")
    beside.write_text(json.dumps(table.metadata, indent=2) + "\n", encoding="utf-8")
    with tf.io.TFRecordWriter(str(path)) as writer:
        for piece, layers in table.pieces():
            for row, number in enumerate(range(piece.start, piece.stop)):
                label = -1 if table.labels is None else int(table.labels[number])
                values = {name: array[row] for name, array in layers.items()}
                writer.write(_example(table.names[number], label, values))
    return [beside, path]


def _read_tfrecord(path: pathlib.Path) -> str:
    return path.with_name(path.name + ".json").read_text(encoding="utf-8")


def _example(name: str, label: int, values: dict[str, np.ndarray]) -> bytes:
    """One image as a serialised tf.train.Example."""
    import tensorflow as tf

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
    with parquet.ParquetWriter(path, schema, use_dictionary=False, write_statistics=False) as writer:
        for piece, layers in table.pieces():
            names = [name.encode(errors="backslashreplace").decode() for name in table.names[piece]]
            labels = np.full(len(names), -1) if table.labels is None else table.labels[piece]
            columns = [pa.array(names), pa.array(labels, mask=labels < 0)]
            for name, values in layers.items():
                columns.append(pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), widths[name]))
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
    return [path]


def _read_parquet(path: pathlib.Path) -> str:
    from pyarrow import parquet

    return parquet.read_schema(path).metadata[b"lts"].decode()


WRITERS = {".npz": _write_npz, ".tfrecord": _write_tfrecord, ".parquet": _write_parquet}
READERS = {".npz": _read_npz, ".tfrecord": _read_tfrecord, ".parquet": _read_parquet}
