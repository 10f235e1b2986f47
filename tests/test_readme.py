"""README's recipes, word for word, in processes of their own; those in plain TensorFlow cannot import `lts`."""

import importlib
import json
import os
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import lts
from lts.config import ImageConfig
from lts.export import saved_model
from lts.extraction import extract as extraction
from lts.extraction.stream import open_stream
from tests.fixtures.exports import small_discriminator

README = pathlib.Path(__file__).parents[1] / "README.md"
RECIPES = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
WITH_LTS = "import keras, runpy; keras.utils.set_random_seed(1); runpy.run_path('recipe.py')"
WITHOUT_LTS = f"import sys; sys.modules['lts'] = None; {WITH_LTS}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with all that the recipes name: runs/features, PHOTOS, and LABELLED with two classes."""
    folder = tmp_path_factory.mktemp("recipes")
    keras.utils.set_random_seed(1)
    discriminator, description = small_discriminator("batch_norm", image_size="64")
    saved_model.export(discriminator, folder / "runs" / "features", description)
    random = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        for place in (folder / "PHOTOS", folder / "LABELLED" / name):
            place.mkdir(parents=True, exist_ok=True)
            for index in range(8):
                picture = random.integers(0, 100 if name == "cats" else 255, (70, 90, 3)).astype(np.uint8)
                Image.fromarray(picture).save(place / f"{name}_{index}.jpg")
    return folder


def run(folder, recipe: str, code: str) -> str:
    """What a recipe prints, run in `folder`."""
    (folder / "recipe.py").write_text(recipe, encoding="utf-8")
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(README.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def recipe_with(text: str) -> str:
    """The one recipe that holds a text."""
    (found,) = [recipe for recipe in RECIPES if text in recipe]
    return found


def test_features_in_plain_tensorflow(folder):
    assert "16 photographs, 8 features each" in run(folder, recipe_with("central_crop"), WITHOUT_LTS)


def test_fine_tuning_in_plain_tensorflow(folder):
    """The loss falls: gradients reach the head and the loaded variables."""
    losses = re.findall(r"loss ([\d.]+)", run(folder, recipe_with("GradientTape"), WITHOUT_LTS))
    assert len(losses) == 5
    assert float(losses[-1]) < 0.8 * float(losses[0]), losses


def test_with_lts(folder):
    assert "accuracy" in run(folder, recipe_with("lts.load"), WITH_LTS)


@pytest.mark.parametrize("suffix", ["npz", "parquet", "tfrecord"])
def test_features_are_read_back(folder, suffix, monkeypatch):
    """Each format by README's lines: the features of the export itself."""
    pytest.importorskip("pyarrow", reason="of the extras parquet and test")
    model, stream = lts.load(folder / "runs" / "features"), open_stream(f"folder:{folder / 'PHOTOS'}")
    extraction.extract(model, stream, folder / f"X.{suffix}")
    monkeypatch.chdir(folder)
    found = {"json": json, "np": np, "pathlib": pathlib, "pyarrow": importlib.import_module("pyarrow"), "tf": tf}
    importlib.import_module("pyarrow.parquet")
    exec(recipe_with(f'"X.{suffix}"'), found)
    features = found["features"]
    features = np.stack([*features]) if isinstance(features, tf.data.Dataset) else features
    views = next(stream.views(ImageConfig(image_size=64), batch_size=16)).images
    np.testing.assert_allclose(features, model.features(views), atol=1e-4)
    assert found["metadata"]["images"] == len(features) == 16


def test_lts_cannot_be_imported_there(folder):
    """That the two recipes above prove something."""
    with pytest.raises(AssertionError, match="ModuleNotFoundError"):
        run(folder, "import lts.export.saved_model", WITHOUT_LTS)
