"""Default layers, and checks that need no TensorFlow."""

import json
import pathlib
import subprocess
import sys

import pytest

from lts.config import preset
from lts.export import choices

ROOT = pathlib.Path(__file__).resolve().parents[2]
RESULTS = ROOT / "experiments" / "results"


def describe(**entries) -> dict:
    """Return the description of an export of preset tiny."""
    return {"image_size": 48, "test_crop": 0.85, "config": preset("tiny").to_dict(), **entries}


def best_layer(layers: dict) -> str:
    """Return the layer with the highest accuracy."""
    return max(layers, key=lambda layer: layers[layer]["accuracy"])


def test_the_default_layer_is_the_best_one():
    """Fails if the default contradicts the committed results, for any kind of export."""
    for name in ("small_imagenette128", "small_imagenette128_knn"):
        layers = json.loads((RESULTS / f"{name}.json").read_text())["model"]["layers"]
        assert best_layer(layers) == choices.default_layer(describe())
    compared = json.loads((RESULTS / "small_compare.json").read_text())
    assert best_layer(compared["random_mean"]) == choices.default_layer(describe(weights="random"))
    for name, method in compared["methods"].items():
        origin = {} if name == "ours" else {"stage": name}
        network = "encoder" if name == "autoencoder" else "backbone"
        assert best_layer(method["layers"]) == choices.default_layer(describe(network=network, **origin)), name


def test_chosen_layers():
    """Fails if no layer, the word all, an unknown or a repeated layer is not answered as documented."""
    description = describe()
    assert choices.choose_layers(description, []) == ("conv_3",)
    assert choices.choose_layers(description, ["conv_5", "conv_1"]) == ("conv_5", "conv_1")
    assert choices.choose_layers(describe(network="encoder"), ["all"]) == ("conv_1", "conv_2", "conv_3", "conv_4")
    with pytest.raises(choices.LayerError, match="no such layer"):
        choices.choose_layers(describe(network="encoder"), ["conv_5"])
    with pytest.raises(choices.LayerError, match="each layer once"):
        choices.choose_layers(description, ["conv_1", "conv_1"])


def test_a_folder_that_is_no_export_is_explained(tmp_path):
    """Fails if a missing folder, a run or a file inside of an export is answered without what to give instead."""
    (tmp_path / "gan" / "checkpoints").mkdir(parents=True)
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "saved_model.pb").touch()
    for path, words in (
        ("missing", "There is no such folder"),
        ("gan", "folder of a training run. Export it first"),
        ("features/saved_model.pb", "Give the folder that holds it"),
    ):
        with pytest.raises(choices.ExportError, match=words):
            choices.read_description(tmp_path / path)


def test_the_checks_import_no_tensorflow():
    """Fails if a wrong layer is answered only after the seconds that TensorFlow needs to start."""
    program = "import sys, lts.export.choices; print(*{'tensorflow', 'keras'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.returncode) == ("\n", 0), done.stderr
