"""Sources that change while a program runs."""

import importlib
import inspect
import linecache
import sys

import pytest

from lts.bin import common
from lts.utils import sources

MODULE = "module_that_is_pulled"


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of the user, and its file."""
    path = tmp_path / f"{MODULE}.py"
    path.write_text("def loss(images):\n    return images + 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(linecache, "updatecache", sources._read_from_disk)
    monkeypatch.setattr(sources, "_lines", {})
    yield importlib.import_module(MODULE), path
    del sys.modules[MODULE]


def traced(function) -> str:
    """Return the source as AutoGraph of TensorFlow 2.21 reads it."""
    linecache.updatecache(inspect.getfile(function), function.__globals__)
    return inspect.getsource(function)


def test_sources_are_those_of_the_start(module):
    """Fails if a function that is traced after a `git pull` is that of the pulled file."""
    pulled, path = module
    before = traced(pulled.loss)
    sources.begin()
    sources.keep()
    assert sources.changed_file() is None
    path.write_text("import os\n\n\ndef another():\n    return os\n")
    assert sources.changed_file() == str(path)
    assert traced(pulled.loss) == before


def test_a_notebook_reads_sources_anew(module):
    """Fails if an edited and reloaded module is traced as it was before."""
    pulled, path = module
    sources.keep()
    path.write_text("def loss(images):\n    return images + 22\n")
    assert traced(pulled.loss).endswith("+ 22\n")


def test_a_late_import_of_changed_sources(monkeypatch, capsys):
    """Fails if modules that do not fit together any more end a program with a traceback."""

    def main():
        raise AttributeError("no attribute\nsecond line")

    monkeypatch.setattr(sources, "changed_file", lambda: "lts/losses.py")
    assert common._status(main, [], arguments=False) == 1
    received = capsys.readouterr().err
    assert received.count("\n") == 1
    assert "lts/losses.py changed while the program ran (AttributeError: no attribute" in received
    monkeypatch.setattr(sources, "changed_file", lambda: None)
    with pytest.raises(AttributeError):
        common._status(main, [], arguments=False)
