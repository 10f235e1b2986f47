"""Arrays of foreign .npz files."""

import zipfile

import numpy as np
import pytest

from lts.utils import npz


def write_zeros(path, shape, entry_bytes) -> None:
    """Write an array of zeros whose header declares `shape`."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as entry:
        header = {"descr": "<f8", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(entry, header)
        entry.write(bytes(entry_bytes))


def test_arrays_are_those_of_numpy(tmp_path):
    """Fails if names or values differ from those that NumPy writes."""
    arrays = {"a/b": np.arange(6.0).reshape(2, 3), "texts": np.array("\u00e9"), "c": np.zeros([0, 4], np.float16)}
    np.savez(tmp_path / "x.npz", **arrays)
    with npz.open_npz(tmp_path / "x.npz") as archive:
        assert npz.names_of(archive) == set(arrays)
        for name, values in arrays.items():
            np.testing.assert_array_equal(npz.read_array(archive, name, 10**4), values)


@pytest.mark.parametrize(
    ("shape", "entry_bytes", "error"),
    [
        ((10**7,), 8 * 10**7, "a has 80,000,128 bytes, more than 1,000,000"),
        ((10**12, 4), 64, "Unable to allocate|EOF: reading array data"),
    ],
)
def test_an_archive_that_inflates_to_gigabytes_is_refused(tmp_path, shape, entry_bytes, error):
    """Fails if a small file fills the memory."""
    write_zeros(tmp_path / "x.npz", shape, entry_bytes)
    assert (tmp_path / "x.npz").stat().st_size < 10**5
    with npz.open_npz(tmp_path / "x.npz") as archive, pytest.raises((ValueError, MemoryError), match=error):
        npz.read_array(archive, "a", 10**6)


def test_pickles_are_not_loaded(tmp_path):
    """Fails if reading an array can run a program."""
    np.savez(tmp_path / "x.npz", a=np.array([{}]))
    with npz.open_npz(tmp_path / "x.npz") as archive, pytest.raises(ValueError, match="allow_pickle"):
        npz.read_array(archive, "a", 10**6)
    (tmp_path / "y.npz").write_bytes(np.array([{}]).dumps())
    with pytest.raises(zipfile.BadZipFile), npz.open_npz(tmp_path / "y.npz"):
        pass
