"""A tiny devkit, and the real sets where they are."""

import pathlib

import pytest

from tests.fixtures import tiny_devkit

SHARED = pathlib.Path(__file__).resolve().parents[4] / "shared" / "data"


@pytest.fixture
def devkit(tmp_path):
    """The root of a tiny devkit of the test's own, and the objects by image id."""
    root = tmp_path / "VOCdevkit" / "VOC2007"
    return root, tiny_devkit.write(root)


@pytest.fixture
def real():
    """Path of a real set by its name; skips where it is absent."""

    def find(name: str) -> pathlib.Path:
        if not (SHARED / name).is_dir():
            pytest.skip(f"no shared data {name}")
        return SHARED / name

    return find
