"""Replacement of output folders."""

import pytest

from lts.utils.files import OutputError
from lts.utils.outputs import OutputFolder, check_outside, dataset_folder

TABLE = OutputFolder(marker="table.json", names=("table.json", "rows/*.csv"))


def write(output) -> None:
    with TABLE.write(output) as folder:
        (folder / "rows").mkdir(parents=True)
        (folder / "table.json").write_text("{}")
        (folder / "rows" / "1.csv").write_text("1")


def test_an_earlier_output_is_replaced_and_reported(tmp_path, capsys):
    """Fails if a user does not learn that an output was replaced."""
    write(tmp_path / "out")
    assert capsys.readouterr().out == ""
    write(tmp_path / "out")
    assert capsys.readouterr().out == f"replaced the earlier output in {tmp_path / 'out'}\n"


@pytest.mark.parametrize("name", ["notes.txt", "rows/notes.txt", "new/1.png", ".hidden"])
def test_other_files_in_an_earlier_output_are_kept(tmp_path, name):
    """Fails if a file of the user is deleted with an earlier output."""
    write(tmp_path / "out")
    (tmp_path / "out" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "out" / name).write_text("precious")
    with pytest.raises(OutputError, match=f"holds {name}, which is no part of an earlier output"):
        write(tmp_path / "out")
    assert (tmp_path / "out" / name).read_text() == "precious"


def test_links_in_an_earlier_output_are_kept(tmp_path):
    """Fails if a link of the user to a folder is deleted."""
    write(tmp_path / "out")
    (tmp_path / "out" / "photos").symlink_to(tmp_path)
    with pytest.raises(OutputError, match="holds photos, which is no part"):
        write(tmp_path / "out")


def test_files_that_appear_during_the_work_are_kept(tmp_path):
    """Fails if only the start of hours of work protects files of the user."""
    write(tmp_path / "out")

    def work():
        with TABLE.write(tmp_path / "out") as folder:
            folder.mkdir()
            (tmp_path / "out" / "notes.txt").write_text("precious")

    with pytest.raises(OutputError, match=r"holds notes\.txt"):
        work()
    assert (tmp_path / "out" / "notes.txt").read_text() == "precious"


@pytest.mark.parametrize("through", ["path", "link"])
def test_inputs_in_the_output_are_kept(tmp_path, through):
    """Fails if a program deletes what it reads, although all names are those of an output."""
    write(tmp_path / "out")
    given = tmp_path / "out" / "rows"
    if through == "link":
        (tmp_path / "link").symlink_to(given)
        given = tmp_path / "link"
    with pytest.raises(OutputError, match=f"{given.name} is inside the output folder"):
        TABLE.check(tmp_path / "out", [None, given])
    TABLE.check(tmp_path / "out", [None, tmp_path / "output"])


def test_folders_of_other_programs_are_kept(tmp_path):
    """Fails if a folder without an earlier output is replaced."""
    (tmp_path / "out" / "rows").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"holds no table\.json of an earlier run"):
        write(tmp_path / "out")


@pytest.mark.parametrize("output", ["photos", "photos/run", "photos/cat/../run", "link/run", "photos/new/deep/run"])
def test_outputs_among_the_images_are_refused(tmp_path, output):
    """Fails if the pictures of a run become training images, or a class, when the program is started again."""
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    for images in (tmp_path / "photos", tmp_path / "link"):
        with pytest.raises(OutputError, match="would be read as images"):
            check_outside(tmp_path / output, f"folder:{images}")


@pytest.mark.parametrize("output", ["photos/.runs/ae", "photos_run", "run", "photos/../run"])
def test_outputs_that_no_reader_of_images_finds(tmp_path, output):
    """Fails if a folder next to the images, or a hidden one, is refused."""
    (tmp_path / "photos").mkdir()
    check_outside(tmp_path / output, f"folder:{tmp_path / 'photos'}")
    check_outside(tmp_path / output, "synthetic")
    check_outside(tmp_path / output, None)


def test_the_folder_of_a_data_set():
    """Fails if a data set without a folder is taken for one."""
    assert dataset_folder("folder:a:b") == "a:b"
    assert dataset_folder("synthetic") is None
    assert dataset_folder(None) is None
