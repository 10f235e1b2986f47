"""`import lts` and Keras: the classes that models are saved with."""

import pathlib
import re
import subprocess
import sys

import keras

import lts
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
    """Fails if a new process needs another import than `lts`, or Keras must be imported first."""
    keras.Sequential([keras.Input((8, 8, 3)), ConvBlock(4, 3, norm="scale")]).save(tmp_path / "model.keras")
    load = "keras.models.load_model(sys.argv[1])"
    code = f"import sys, lts; assert 'tensorflow' not in sys.modules, 'slow import'; import keras; {load}"
    command = [sys.executable, "-c", code, tmp_path / "model.keras"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stderr
