"""Provenance of results: cores and commit."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from lts.bin import common
from lts.utils import provenance

SCRIPT = "from lts.utils import provenance; print(provenance.commit())"
SETTINGS = "-c user.name=test -c user.email=test@example.com -c commit.gpgsign=false"
PULL = f"git {SETTINGS} commit --quiet --allow-empty --message=pulled"
PACKAGE = pathlib.Path(provenance.__file__).parents[1]


def git(folder: pathlib.Path, *arguments: str) -> str:
    """Run git in a repository, without the settings of the user."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    command = ["git", *SETTINGS.split(), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True).stdout


def commit(folder: pathlib.Path, script: str = SCRIPT, **environment: str) -> str:
    """Return what the package in `folder` prints as its commit."""
    command = [sys.executable, "-c", script]
    variables = {**os.environ, "PYTHONPATH": str(folder), **environment}
    process = subprocess.run(command, cwd=folder, env=variables, check=True, capture_output=True, text=True)
    return process.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    """A repository that holds the package."""
    folder = tmp_path / "checkout"
    (folder / "lts" / "utils").mkdir(parents=True)
    (folder / "lts" / "__init__.py").touch()
    for name in ("utils/__init__.py", "utils/provenance.py"):
        shutil.copy(PACKAGE / name, folder / "lts" / name)
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message=first")
    return folder


@pytest.fixture
def other(tmp_path):
    """Another repository, with one file."""
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "theirs.txt").write_text("theirs")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message=theirs")
    return folder


def test_commit_of_the_checkout(checkout):
    """Fails if the digits are others, or a change of a tracked file is not marked."""
    digits = git(checkout, "rev-parse", "--short=12", "HEAD").strip()
    (checkout / "untracked.txt").write_text("results")
    assert commit(checkout) == digits
    with open(checkout / "lts" / "utils" / "provenance.py", "a") as file:
        file.write("# changed\n")
    assert commit(checkout) == f"{digits}+"


def test_a_later_pull(checkout, monkeypatch):
    """Fails if results name a commit that was pulled while the program ran."""
    digits = git(checkout, "rev-parse", "--short=12", "HEAD").strip()
    pull = f"import subprocess; subprocess.run(['sh', '-c', {PULL!r}], check=True)"
    script = f"from lts.utils import provenance; provenance.commit(); {pull}; print(provenance.commit())"
    assert commit(checkout, script=script) == digits
    assert commit(checkout) != digits
    calls = []
    monkeypatch.setattr(provenance, "commit", lambda: calls.append(1))
    common.import_tensorflow()
    assert calls


def test_git_variables_of_another_repository(checkout, other):
    """Fails if GIT_DIR of a hook or a CI job names the commit of another repository."""
    digits = git(checkout, "rev-parse", "--short=12", "HEAD").strip()
    assert commit(checkout, GIT_DIR=str(other / ".git"), GIT_WORK_TREE=str(other)) == digits


@pytest.mark.parametrize("place", ["", "site-packages"])
def test_package_inside_another_repository(checkout, other, place):
    """Fails if a copy of the package reports the commit of the repository around it."""
    shutil.copytree(checkout / "lts", other / place / "lts")
    assert commit(other / place) == "None"


def test_without_git(checkout):
    """Fails if a machine without git ends with an error."""
    assert commit(checkout, PATH="") == "None"


def test_cores_without_affinity(monkeypatch):
    """Fails on macOS and Windows, or if the cores of a restricted process are not counted."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 5, 6}, raising=False)
    assert provenance.cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert provenance.cores() == 8
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert provenance.cores() == 1
