"""Paths that TensorFlow would take for patterns."""

import os

import pytest

from lts.utils.patterns import CHARACTERS, plain_path


@pytest.mark.parametrize("name", ["a [b]", "a*", "a?", "a\\b"])
def test_link_to_a_folder_that_is_a_pattern(tmp_path, name):
    """Fails if the yielded path is a pattern, shows another folder or stays behind."""
    folder = tmp_path / name
    folder.mkdir()
    with plain_path(folder) as plain:
        assert not CHARACTERS.intersection(str(plain))
        (plain / "file").write_text("content")
    assert (folder / "file").read_text() == "content"
    assert not plain.exists()


def test_plain_folder_is_used_as_it_is(tmp_path):
    """Fails if errors of TensorFlow name a temporary link where none is needed."""
    with plain_path(tmp_path) as plain:
        assert plain == tmp_path


def test_link_to_a_folder_that_is_no_utf8(tmp_path):
    """Fails if TensorFlow gets a path that it cannot take."""
    folder = tmp_path / os.fsdecode(b"K\xf6pfe")
    folder.mkdir()
    with plain_path(folder) as plain:
        str(plain).encode()
        assert plain.samefile(folder)
