"""Feature files without a model."""

import os

import numpy as np
import pytest

from lts.extraction.feature_files import Rows, Table, read_metadata, write

NAME = os.fsdecode(b"gr\xf6n.png")


@pytest.mark.parametrize("suffix", ["npz", "tfrecord", "parquet"])
def test_names_that_are_no_utf8(tmp_path, suffix):
    """Fails if a file in a folder from an old disk cannot be written or read, or its names cannot be stored."""
    folder = tmp_path / os.fsdecode(b"K\xf6pfe")
    folder.mkdir()
    values = np.arange(4, dtype=np.float32)
    values.tofile(folder / "raw")
    rows = Rows(folder / "raw", (2, 2), np.dtype(np.float32))
    table = Table({"conv_1": rows}, [NAME, "b.png"], None, (NAME,), {"dataset": f"folder:{folder}"})
    path = folder / f"X.{suffix}"
    write(path, table)
    assert read_metadata(path) == table.metadata
