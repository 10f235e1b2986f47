"""The wheel outside of a checkout."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SCRIPTS = re.findall(r'"(lts-[a-z-]+) = lts\.bin\.(\w+):console"', (ROOT / "setup.py").read_text(encoding="utf-8"))
# What a user's program does with the public functions.
PROGRAM = """
import numpy as np
import tensorflow as tf

import lts
from lts.callbacks import ExactCheckpoint, OnlineProbe, PictureStrip
from lts.config import Config, preset
from lts.data import ImageDataset, open_source, training_batches

model = lts.load("runs/features")
images = np.zeros([8, model.image_size, model.image_size, 3], np.uint8)
maps: dict[str, tf.Tensor] = model(images)
probability: tf.Tensor = model.spot(images)["probability"]
vectors = model.features(images, layer=("conv_2", "conv_3"), pool="avg")
backbone = model.keras_model("conv_3")
config: Config = preset("tiny", steps=4)
source: ImageDataset = open_source("synthetic", "test[:4]", progress=False)
batches = training_batches(source, config.image, batch_size=4, seed=1, steps=2)
callbacks = [OnlineProbe(backbone, images, np.arange(8)), PictureStrip(images, "logs"), ExactCheckpoint("logs", keep=2)]
"""


def test_every_program_is_a_script():
    """Fails if a program of `lts.bin` has no console script."""
    modules = (ROOT / "lts" / "bin").glob("*.py")
    programs = {path.stem for path in modules if 'if __name__ == "__main__"' in path.read_text()}
    assert {module for _, module in SCRIPTS} == programs
    assert all(script == f"lts-{module.replace('_', '-')}" for script, module in SCRIPTS)


@pytest.mark.slow
def test_scripts_of_the_wheel(tmp_path):
    """Fails if a script needs the checkout or lacks a description, or the wheel lacks its types and its note."""
    pytest.importorskip("setuptools", reason="builds a wheel")
    source = tmp_path / "source"
    source.mkdir()
    shutil.copytree(ROOT / "lts", source / "lts", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    site = tmp_path / "site"
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    pip = [sys.executable, "-m", "pip", "install", *options, "--target", site, source]
    subprocess.run(pip, check=True, cwd=tmp_path, timeout=600)
    assert (site / "lts" / "py.typed").exists()
    (metadata,) = site.glob("lts-*.dist-info/METADATA")
    assert "The programs of `experiments` run from a checkout." in metadata.read_text(encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(site)}
    for script, _ in SCRIPTS:
        command = [sys.executable, site / "bin" / script, "--help"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
        assert (done.returncode, done.stderr) == (0, ""), script
        first_line = done.stdout.splitlines()[0]
        assert re.fullmatch(r"[A-Z].{10,}\.", first_line), done.stdout
        assert str(ROOT) not in done.stdout


@pytest.mark.slow
def test_types(tmp_path):
    """Fails if pyright finds an error in a public module, or in a program that uses one as documented."""
    pyright = shutil.which("pyright")
    if pyright is None:
        pytest.skip("pyright is not installed: pip install pyright")
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pyright"]
    settings["include"] = [*(os.path.relpath(ROOT / path, tmp_path) for path in settings["include"]), "program.py"]
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({**settings, "extraPaths": [str(ROOT)]}), encoding="utf-8")
    command = [pyright, "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1800)
    results = json.loads(done.stdout)
    assert results["summary"]["filesAnalyzed"] > 40
    assert [entry["message"] for entry in results["generalDiagnostics"]] == []
