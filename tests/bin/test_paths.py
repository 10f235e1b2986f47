"""Paths and numbers in flags, in every binary."""

import importlib
import os
import pathlib
import sys
import types

import pytest
from absl import flags
from absl.testing import flagsaver

from lts.bin import common, paths
from lts.config import ConfigError
from lts.utils import keras_setup
from tests.bin.test_binaries import BINARIES
from tests.fixtures.binaries import flags_of, invoke
from tests.fixtures.runs import run

# Flags of files and folders. A new one is added here, and defined by `lts.bin.paths`.
PATHS = {
    *(
        "autoencoder",
        "baseline",
        "cache_dir",
        "checkout",
        "checkpoint",
        "class_names",
        "data_dir",
        "evaluate",
        "export",
        "folds",
        "images",
        "init_from",
    ),
    *("keep_last_checkpoint", "model", "output", "pages", "proposal_cache", "proposals", "workdir"),
}


@pytest.mark.parametrize("binary", BINARIES)
def test_home_folder_in_every_path(binary, monkeypatch):
    """Fails if a binary writes to a folder named `~`, in any of its flags."""
    monkeypatch.setenv("HOME", "/home/me")
    program = importlib.import_module(binary)
    with flagsaver.flagsaver():
        earlier = set(flags.FLAGS)
        program.define_flags()
        defined = set(flags.FLAGS) - earlier
        # In `benchmark_extraction`, `images` is a number. A name may be one path in a program and a list in another.
        named = [name for name in PATHS & defined if flags.FLAGS[name].flag_type() != "int"]
        lists = [name for name in named if isinstance(flags.FLAGS[name].parser, paths._PathListParser)]
    expected = {name: "/home/me/x" for name in named}
    expected |= {name: ["/home/me/x", "/home/me/y"] for name in lists}
    given = [f"--{name}=~/x,~/y" if isinstance(value, list) else f"--{name}=~/x" for name, value in expected.items()]
    if "dataset" in defined:
        given.append("--dataset=folder:~/x")
        expected["dataset"] = "folder:/home/me/x"
    required = {"budget_minutes": "1", "task": "lci", "preset": "tiny", "dataset": "synthetic", "model": "x"}
    required["repo"] = "me/x"
    given += [f"--{name}={value}" for name, value in required.items() if name in defined - expected.keys()]
    with flags_of(program, *given):
        assert {name: flags.FLAGS[name].value for name in expected} == expected


@pytest.mark.parametrize("path", ["", " ", "~nobody-of-this-name/x"])
def test_path_that_is_no_path(path):
    """Fails if an empty path means the working directory, or a folder named `~nobody` is made."""
    with pytest.raises(ConfigError, match=r"Received: workdir="):
        paths.expand("workdir", path)


@pytest.mark.parametrize("path", ["./~", "~x/../y", "a~b", "/~", "folder with spaces"])
def test_other_paths_are_kept(path, monkeypatch):
    """Fails if a path is changed that names no home folder."""
    monkeypatch.setattr("os.path.expanduser", lambda text: text.replace("~x", "/home/x", 1) if text[0] == "~" else text)
    assert paths.expand("output", path) == path.replace("~x", "/home/x")


@pytest.mark.parametrize(
    ("module", "flag"),
    [
        ("lts.bin.train_autoencoder", "--workdir="),
        ("lts.bin.train_autoencoder", "--dataset=folder:"),
        ("lts.bin.train_gan", "--autoencoder="),
        ("lts.bin.export_features", "--output="),
        ("lts.bin.train_autoencoder", "--steps=10000000000000000000"),
        ("lts.bin.train_autoencoder", "--batch_size=9223372036854775807"),
        ("lts.bin.train_autoencoder", "--replicas=1000000000000"),
        ("lts.bin.train_autoencoder", "--learning_rate=inf"),
        ("lts.bin.train_autoencoder", f"--steps={'9' * 400}"),
        ("lts.bin.train_autoencoder", "--checkpoint_minutes=nan"),
        ("lts.bin.train_autoencoder", "--cache_gb=nan"),
        ("lts.bin.export_features", "--seed=4294967296"),
        ("lts.bin.spot_artifacts", "--test_crop=-inf"),
        ("lts.bin.spot_artifacts", "--resamples=100000000000"),
        ("experiments.compare", "--budget_minutes=inf"),
        ("experiments.linear_probe", "--baseline=x,"),
        ("experiments.finetune", "--seeds=1,99999999999"),
    ],
)
def test_refused_values_are_one_line(module, flag, tmp_path, monkeypatch):
    """Fails if such a value is accepted, shows a traceback, or leaves a file."""
    monkeypatch.chdir(tmp_path)
    required = {"preset": "tiny", "dataset": "synthetic", "model": "x", "output": "x", "workdir": "x"}
    with flagsaver.flagsaver():
        earlier = set(flags.FLAGS)
        importlib.import_module(module).define_flags()
        defined = set(flags.FLAGS) - earlier
    given = [f"--{name}={value}" for name, value in required.items() if name in defined]
    done = invoke(module, *given, flag)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert flag.partition("=")[0].lstrip("-") in done.stderr
    assert not list(pathlib.Path().iterdir())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", ["a"]),
        ("a, b", ["a", "b"]),
        ("one, two", ["one, two"]),
        ("a,one, two,b", ["a", "one, two", "b"]),
        ("one,two", ["one", "two"]),
        ("~/one, two,~/b", ["HOME/one, two", "HOME/b"]),
    ],
)
def test_paths_may_hold_commas(tmp_path, monkeypatch, text, expected):
    """Fails if a path with a comma is taken for two, or two paths for one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a", "b", "one, two"):
        (tmp_path / name).mkdir()
    values = flags.FlagValues()
    monkeypatch.setattr(paths.flags, "FLAGS", values)
    flags.DEFINE(paths._PathListParser("baseline"), "baseline", [], "", values)
    values(["program", f"--baseline={text}"])
    assert values.baseline == [path.replace("HOME", str(tmp_path)) for path in expected]


def test_settings_of_keras(monkeypatch):
    """Fails if a user's backend or keras.json reaches a binary, or another backend is no clear error."""
    for name in ("KERAS_BACKEND", "KERAS_HOME", "TF_USE_LEGACY_KERAS"):
        monkeypatch.setenv(name, "1")
    common._ignore_keras_settings()
    assert os.environ["KERAS_HOME"] == os.devnull
    assert os.environ["TF_USE_LEGACY_KERAS"] == "0"
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    keras_setup.use_tensorflow()
    assert os.environ["KERAS_BACKEND"] == "tensorflow"
    other = types.SimpleNamespace(config=types.SimpleNamespace(backend=lambda: "jax"))
    monkeypatch.setitem(sys.modules, "keras", other)
    with pytest.raises(ImportError, match="Received: backend='jax'"):
        keras_setup.use_tensorflow()


def test_backend_of_matplotlib():
    """Fails if a setting for figures of other programs stops a program with a traceback."""
    done = run("experiments.report", "missing.json", MPLBACKEND="nonsense")
    assert done.returncode == 1
    assert done.stderr == "report: missing.json: No such file or directory\n"


def test_a_current_folder_that_was_removed(monkeypatch):
    """Fails if a program works for hours before it finds that its paths lead nowhere."""

    def removed():
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(os, "getcwd", removed)
    done = invoke("experiments.report", "x.json")
    assert done.returncode == 1
    assert done.stderr.startswith("report: the current folder was removed.")
