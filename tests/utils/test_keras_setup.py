"""`import lts` and Keras: the classes that models are saved with."""

import os
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np

import lts
from lts.config import preset
from lts.export.feature_extractor import FeatureExtractor
from lts.networks.layers import ConvBlock
from lts.utils import keras_setup

ROOT = pathlib.Path(lts.__file__).parents[1]


def test_every_saved_class_is_listed():
    """Fails if a class is registered in its module and `import lts` does not know it."""
    saved = {}
    for path in sorted((ROOT / "lts").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        text = path.read_text(encoding="utf-8")
        classes = re.findall(r'^@keras\.saving\.register.*\("lts"\)\nclass (\w+)', text, re.M)
        if classes:
            saved[module] = tuple(sorted(classes))
    assert saved == keras_setup.SAVED_CLASSES


def test_a_class_is_imported_when_keras_needs_it(monkeypatch):
    """Fails if a name leads to another class, or a class that is registered already is replaced."""
    table = keras.saving.get_custom_objects()
    monkeypatch.delitem(table, "lts>ConvBlock")
    norm = table["lts>BatchNorm"]
    keras_setup.register_classes()
    assert table["lts>BatchNorm"] is norm
    block = ConvBlock(4, 3, norm="scale")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(block))
    assert type(again) is ConvBlock
    assert again.get_config() == block.get_config()


def test_models_are_loaded_after_import_lts(tmp_path):
    """Fails if a new process needs another import than `lts`, Keras must be imported first, or a value changes."""
    config = preset("tiny", backbone_filters="4,8,8,8,8").discriminator
    extractor = FeatureExtractor(config, "conv_2")
    images = np.random.default_rng(0).uniform(0, 255, [2, 24, 24, 3]).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "maps.npy", extractor(images))
    extractor.save(tmp_path / "model.keras")
    code = (
        "import sys, lts; assert 'tensorflow' not in sys.modules, 'slow import'; import keras, numpy as np;"
        "maps = keras.models.load_model('model.keras')(np.load('images.npy'));"
        "np.testing.assert_allclose(maps, np.load('maps.npy'), rtol=1e-4, atol=1e-4)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stderr
