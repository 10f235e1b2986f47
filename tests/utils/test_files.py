"""Checks of output folders, atomic files, and locks."""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from lts.utils import files, filesystem
from lts.utils.files import OutputError

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Writes a file, and waits until it is killed.
WRITER = """
import sys
from lts.utils import files
with files.atomic_write(sys.argv[1]) as partial:
    partial.write_text("half")
    print("started", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["exchange", "two renames"])
def renames(request, monkeypatch):
    """Systems with and without an atomic exchange of two folders."""
    if request.param == "two renames":
        monkeypatch.setattr(filesystem, "exchange", lambda first, second: False)
    return request.param


def write_folder(path, text: str) -> None:
    with files.atomic_write(path) as partial:
        partial.mkdir()
        (partial / "text").write_text(text)


def names(folder) -> list[str]:
    return sorted(os.listdir(folder))


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


@pytest.mark.parametrize("name", ["out", "old", "new", "n" * 250])
def test_folders_are_replaced(tmp_path, renames, name):
    """Fails if an earlier folder stays, or if a name of a temporary folder or a long one is not possible."""
    for text in ("first", "second"):
        write_folder(tmp_path / name, text)
        assert (tmp_path / name / "text").read_text() == text
    assert names(tmp_path) == [name]


@pytest.mark.parametrize("call", [1, 2])
def test_a_signal_between_two_renames_loses_nothing(tmp_path, monkeypatch, call):
    """Fails if the earlier output and the new one are both deleted."""
    monkeypatch.setattr(filesystem, "exchange", lambda first, second: False)
    write_folder(tmp_path / "out", "hours")
    replace = os.replace
    calls = []

    def replace_and_stop(*paths):
        replace(*paths)
        calls.append(paths)
        if len(calls) == call:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(os, "replace", replace_and_stop)
        write_folder(tmp_path / "out", "more hours")
    assert (tmp_path / "out" / "text").read_text() == ("hours" if call == 1 else "more hours")
    assert names(tmp_path) == ["out"]


def test_a_kill_between_two_renames_is_repaired_by_the_next_run(tmp_path, capsys):
    """Fails if a folder that was moved away is not put back, or if a replaced one is."""
    for name in ("gone", "there"):
        old = tmp_path / f".{name}.partial-12345678" / "old" / name
        old.mkdir(parents=True)
        (old / "text").write_text("hours")
        (old.parents[1] / "owner").write_text("process 1 on elsewhere\n")
    write_folder(tmp_path / "there", "new")
    files.remove_partial(tmp_path)
    assert (tmp_path / "gone" / "text").read_text() == "hours"
    assert (tmp_path / "there" / "text").read_text() == "new"
    assert names(tmp_path) == ["gone", "there"]
    assert "gone was put back" in capsys.readouterr().err


@pytest.mark.parametrize("locks", [True, False])
def test_temporary_folders_of_dead_processes_are_removed(tmp_path, monkeypatch, locks):
    """Fails if gigabytes of a killed process stay, or if those of a living one are removed."""
    if not locks:
        monkeypatch.setattr(filesystem, "try_lock", lambda file: False)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WRITER, str(tmp_path / "a.txt")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as writer:
        assert writer.stdout.readline() == b"started\n"
        files.remove_partial(tmp_path, unowned=True)
        assert len(names(tmp_path)) == 1
        writer.send_signal(signal.SIGKILL)
    files.write_text(tmp_path / "b.txt", "of the next run")
    assert names(tmp_path) == ["b.txt"]


def test_folders_of_other_programs_with_such_a_name_stay(tmp_path):
    """Fails if a folder is deleted in which no process of this program wrote its name."""
    (tmp_path / ".photos.partial-upload").mkdir()
    files.remove_partial(tmp_path)
    assert names(tmp_path) == [".photos.partial-upload"]


def test_modes_follow_the_umask(tmp_path, renames):
    """Fails if other users cannot read an output, or if a mode that a user has set is lost."""
    umask = os.umask(0o022)
    try:
        write_folder(tmp_path / "out", "")
        files.write_text(tmp_path / "a.txt", "")
        assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755
        assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644
        (tmp_path / "out").chmod(0o750)
        (tmp_path / "a.txt").chmod(0o660)
        write_folder(tmp_path / "out", "")
        files.write_text(tmp_path / "a.txt", "")
        assert (tmp_path / "out").stat().st_mode & 0o777 == 0o750
        assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o660
    finally:
        os.umask(umask)


def test_the_target_of_a_link_is_replaced(tmp_path, renames):
    """Fails if a link to another disk is replaced by a folder, or cannot be written."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    for text in ("first", "second"):
        write_folder(tmp_path / "link", text)
        assert (tmp_path / "disk" / "text").read_text() == text
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path) == ["disk", "link"]


def test_the_current_folder_keeps_its_place(tmp_path, monkeypatch):
    """Fails if a shell is left in a removed folder, or if the contents of the current folder are lost."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    inode = os.stat(".").st_ino
    write_folder(".", "first")
    assert os.stat(".").st_ino == os.stat(tmp_path / "here").st_ino == inode
    with pytest.raises(OutputError, match=r"Received: output=\.\. Give a new folder"):
        write_folder(".", "second")
    assert (tmp_path / "here" / "text").read_text() == "first"
    assert names(tmp_path) == ["here"]


def test_a_folder_is_not_replaced_by_a_file(tmp_path):
    """Fails if a folder of the user is deleted because a file gets its name."""
    (tmp_path / "results.md").mkdir()
    (tmp_path / "results.md" / "notes").write_text("precious")
    with pytest.raises(OSError, match=r"results\.md"):
        files.write_text(tmp_path / "results.md", "")
    assert (tmp_path / "results.md" / "notes").read_text() == "precious"


def test_contents_reach_the_disk_before_the_rename(tmp_path, monkeypatch):
    """Fails if a power cut can leave a name without its contents after older files were removed."""
    events = []
    fsync = os.fsync
    replace = os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (events.append(os.fstat(number).st_ino), fsync(number)))
    monkeypatch.setattr(os, "replace", lambda old, new: (events.append("rename"), replace(old, new)))
    with files.atomic_write(tmp_path / "out") as partial:
        partial.mkdir()
        (partial / "text").write_text("text")
        inodes = {partial.stat().st_ino, (partial / "text").stat().st_ino}
    rename = events.index("rename")
    assert inodes <= set(events[:rename])
    assert tmp_path.stat().st_ino in events[rename:]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_file_of_the_user_called_lock_stays(tmp_path, kind):
    """Fails if it, or the file behind a link, is truncated or overwritten."""
    precious = tmp_path / ("lock" if kind == "file" else "thesis")
    precious.write_text("precious")
    if kind == "link":
        (tmp_path / "lock").symlink_to(precious)
    with pytest.raises(OutputError, match="is not a lock of this program"), files.locked(tmp_path):
        pass
    assert precious.read_text() == "precious"


def test_a_lock_leaves_no_folder_without_an_output(tmp_path):
    """Fails if a start that failed leaves files, or removes an empty folder of the user, or a run loses its lock."""
    (tmp_path / "old").mkdir()
    for folder in ("new", "old"):
        with pytest.raises(OutputError), files.locked(tmp_path / folder):
            raise OutputError("wrong flags")
    assert names(tmp_path) == ["old"]
    assert names(tmp_path / "old") == []
    with files.locked(tmp_path / "old"):
        files.write_text(tmp_path / "old" / "a.txt", "text")
    assert names(tmp_path / "old") == ["a.txt", "lock"]
    assert files.was_locked(tmp_path / "old")
    assert not files.was_locked(tmp_path)


def test_a_link_to_a_folder_that_is_not_there_yet(tmp_path):
    """Fails if an output that is such a link is answered with "File exists"."""
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "new")
    with files.locked(tmp_path / "link"):
        files.write_text(tmp_path / "link" / "a.txt", "text")
    assert names(tmp_path / "disk" / "new") == ["a.txt", "lock"]


def test_a_lock_that_its_holder_removed_is_no_lock(tmp_path, monkeypatch):
    """Fails if two processes work in one folder, with different locks."""

    def remove_first(file):
        os.unlink(tmp_path / "lock")
        return True

    monkeypatch.setattr(filesystem, "try_lock", remove_first)
    with pytest.raises(files.InUse), files.locked(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_gives_a_warning(tmp_path, monkeypatch, capsys, number):
    """Fails if nothing can be trained on such a file system, or if the user is not warned."""

    def flock(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with files.locked(tmp_path):
        files.write_text(tmp_path / "a.txt", "text")
    assert "lies on a file system without locks" in capsys.readouterr().err
    assert names(tmp_path) == ["a.txt", "lock"]


def test_pipes_in_folders_that_libraries_open(tmp_path):
    """Fails if a named pipe in a checkpoint or an export stops a program forever, or a link without target does."""
    (tmp_path / "variables").mkdir()
    (tmp_path / "variables" / "index").write_text("x")
    (tmp_path / "link").symlink_to("nowhere")
    files.check_regular_files(tmp_path)
    os.mkfifo(tmp_path / "variables" / "data")
    with pytest.raises(OSError, match="not a regular file"):
        files.check_regular_files(tmp_path)
