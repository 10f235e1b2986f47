"""Checks of output folders, and atomic files."""

import json
import os

import pytest

from lts.utils import files
from lts.utils.files import OutputError


@pytest.mark.parametrize("below", ["", "run", "many/folders/down"])
def test_a_place_for_a_folder_is_left_as_it_was(tmp_path, below):
    files.check_folder(tmp_path / below)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("below", ["", "run"])
def test_a_file_in_the_place_of_a_folder_is_named(tmp_path, below):
    file = tmp_path / "notes.txt"
    file.write_text("precious")
    with pytest.raises(OutputError, match=r"notes\.txt is a file, not a folder\. Received"):
        files.check_folder(file / below)
    assert file.read_text() == "precious"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="is not writable"):
        files.check_folder(tmp_path / "run")
    tmp_path.chmod(0o700)


def test_files_are_written_atomically(tmp_path):
    """Fails if a writer that dies changes the old file, or leaves another one."""
    path = tmp_path / "a.json"
    files.write_json(path, {"one": 1})

    def die():
        with files.atomic_write(path) as partial:
            partial.write_text("half")
            raise RuntimeError("dead")

    with pytest.raises(RuntimeError):
        die()
    assert json.loads(path.read_text()) == {"one": 1}
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]


def test_a_path_that_is_no_utf8_is_refused(tmp_path):
    """Fails if hours of training end in a path that TensorFlow cannot write to."""
    with pytest.raises(OutputError, match=r"UTF-8. Received: .*K\\xf6pfe/run. Give a folder"):
        files.check_folder(tmp_path / os.fsdecode(b"K\xf6pfe") / "run")
    files.check_folder(tmp_path / "Köpfe")
