"""The recipes and commands of the documents, run word for word."""

import concurrent.futures
import doctest
import importlib
import json
import os
import pathlib
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import lts
from lts.config import AutoencoderConfig, ImageConfig, preset
from lts.export import saved_model
from lts.extraction import extract as extraction
from lts.extraction.stream import open_stream
from lts.visualization.montage import filter_montage
from tests.fixtures import extensions, rounding, tiny_devkit
from tests.fixtures.exports import small_discriminator

ROOT = pathlib.Path(__file__).parents[1]
DOCUMENTS = ("README.md", "lts/README.md", "experiments/README.md", "experiments/results/README.md")
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS if (ROOT / name).exists()}
RECIPES = re.findall(r"```python\n(.*?)```", "\n".join(TEXTS.values()), re.DOTALL)
COMMANDS = sorted(set(re.findall(r"^`?(python -m (?:lts|experiments)\.[^`\n]+)`?$", "\n".join(TEXTS.values()), re.M)))
PACKAGES = [*(f"lts.{module.name}" for module in pkgutil.iter_modules(lts.__path__)), "experiments"]
WITH_LTS = "import keras, runpy; keras.utils.set_random_seed(1); names = runpy.run_path('recipe.py')"
WITHOUT_LTS = f"import sys; sys.modules['lts'] = None; {WITH_LTS}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with all that the recipes name: runs/features, PHOTOS, and LABELLED with two classes."""
    folder = tmp_path_factory.mktemp("recipes")
    keras.utils.set_random_seed(1)
    discriminator, description = small_discriminator("batch_norm", image_size="64")
    saved_model.export(discriminator, folder / "runs" / "features", description)
    random = np.random.default_rng(0)
    for name, brightest in (("cats", 100), ("dogs", 255)):
        for target in (folder / "PHOTOS", folder / "LABELLED" / "train" / name):
            target.mkdir(parents=True, exist_ok=True)
            for index in range(8):
                picture = random.integers(0, brightest, (70, 90, 3)).astype(np.uint8)
                Image.fromarray(picture).save(target / f"{name}_{index}.jpg")
    return folder


@pytest.fixture(scope="module")
def stand_ins(folder, tmp_path_factory):
    """A folder with all that the examples of docstrings name."""
    stand_ins = tmp_path_factory.mktemp("examples")
    for export in ("runs", "runs [v1]"):
        shutil.copytree(folder / "runs" / "features", stand_ins / export / "features")
    shutil.copytree(folder / "PHOTOS", stand_ins / "PHOTOS")
    tiny_devkit.write(stand_ins / "VOCdevkit" / "VOC2007")
    tiny_devkit.write(stand_ins / "mine_without_lists")
    shutil.rmtree(stand_ins / "mine_without_lists" / "ImageSets")
    return stand_ins


def run(folder: pathlib.Path, recipe: str, code: str) -> str:
    """Run a recipe in `folder` and return what it prints."""
    (folder / "recipe.py").write_text(recipe, encoding="utf-8")
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1800)
    assert process.returncode == 0, process.stderr
    return process.stdout


def recipe_with(text: str) -> str:
    """Return the only recipe that contains a text."""
    (recipe,) = [recipe for recipe in RECIPES if text in recipe]
    return recipe


def test_features_in_plain_tensorflow(folder):
    """Fails if the recipe of README needs `lts`, or finds other images than it should."""
    assert "16 photographs, 8 features each" in run(folder, recipe_with("central_crop"), WITHOUT_LTS)


def test_fine_tuning_in_plain_tensorflow(folder):
    """Fails if gradients do not reach the head and the loaded variables."""
    losses = re.findall(r"loss ([\d.]+)", run(folder, recipe_with("GradientTape"), WITHOUT_LTS))
    assert len(losses) == 5
    assert float(losses[-1]) < 0.8 * float(losses[0]), losses


def test_with_lts(folder):
    """Fails if `lts.load`, pooled features, the Keras model or its file do not work as documented."""
    save = "numpy.save('images.npy', names['batch']); numpy.save('logits.npy', classifier.predict(names['batch']))"
    code = f"import numpy; {WITH_LTS}; classifier = names['classifier']; {save}"
    printed = run(folder, recipe_with("lts.load"), code)
    assert "accuracy" in printed
    # In another process, which imports what the recipe imports.
    compare = "print(abs(names['classifier'].predict(numpy.load('images.npy')) - numpy.load('logits.npy')).max())"
    code = f"import numpy; {WITH_LTS}; {compare}; print(len(names['classes']))"
    printed = run(folder, recipe_with("load_model"), code)
    difference, count = printed.split()[-2:]
    assert float(difference) < 1e-4
    assert int(count) == 16


def test_online_evaluation_in_fit(folder):
    """Fails if the callback of the recipe gives `fit` no metrics."""
    printed = run(folder, recipe_with("OnlineProbe"), WITH_LTS)
    accuracies = json.loads(printed.splitlines()[-1].partition(": ")[2])
    assert len(accuracies) == 3
    assert all(0 <= accuracy <= 1 for accuracy in accuracies)
    assert "probe_alignment" in printed


def test_export_as_a_keras_layer(folder, monkeypatch):
    """Fails if Keras alone cannot use a signature as a frozen layer."""
    monkeypatch.chdir(folder)
    names = {}
    exec(recipe_with("TFSMLayer"), names)
    classifier = names["classifier"]
    assert len(classifier.trainable_variables) == 2
    batch = next(iter(names["images"]))[0]
    expected = lts.load("runs/features").features(tf.cast(batch, tf.uint8), "conv_3", "avg")
    logits = classifier.layers[-1](expected)
    np.testing.assert_allclose(classifier.predict(batch, verbose=0), logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("suffix", ["npz", "parquet", "tfrecord"])
def test_features_are_read_back(folder, suffix, monkeypatch):
    """Fails if the documented lines read other features than the export computes."""
    pytest.importorskip("pyarrow", reason="of the extras parquet and test")
    importlib.import_module("pyarrow.parquet")
    model = lts.load(folder / "runs" / "features")
    stream = open_stream(f"folder:{folder / 'PHOTOS'}")
    extraction.extract(model, stream, folder / f"X.{suffix}", ["conv_3"], "avg")
    monkeypatch.chdir(folder)
    names = {"json": json, "np": np, "pathlib": pathlib, "pyarrow": importlib.import_module("pyarrow"), "tf": tf}
    exec(recipe_with(f'"X.{suffix}"'), names)
    features = names["features"]
    if isinstance(features, tf.data.Dataset):
        features = np.stack([*features])
    views = next(stream.views(ImageConfig(image_size=64), batch_size=16)).images
    allowed = rounding.allowed_for(model.keras_model("conv_3"), tf.cast(views, tf.float32))
    assert rounding.difference(model.features(views, "conv_3", "avg"), features) <= allowed
    assert names["metadata"]["images"] == len(features) == 16


def test_lts_cannot_be_imported_there(folder):
    """Fails if the recipes in plain TensorFlow could import `lts` after all."""
    with pytest.raises(AssertionError, match="ModuleNotFoundError"):
        run(folder, "import lts.export.saved_model", WITHOUT_LTS)


def test_every_recipe_is_run():
    """Fails if a document gets a Python recipe that no test above runs."""
    modules = extensions.EXAMPLES.values()  # run by tests/utils/test_registry.py and tests/networks/test_backbones.py
    run_here = ("central_crop", "GradientTape", "lts.load", "load_model", "OnlineProbe", "TFSMLayer")
    known = (*run_here, '"X.npz"', '"X.parquet"', '"X.tfrecord"', *modules)
    for recipe in RECIPES:
        assert any(text in recipe for text in known), recipe


class LastOutput(doctest.OutputChecker):
    """Examples leave out the progress that is printed before their result."""

    def check_output(self, want, got, optionflags):
        return got.endswith(want)


def examples(name: str) -> list[doctest.DocTest]:
    """Return the docstrings of a package or module that have examples."""
    package = importlib.import_module(name)
    names = [module.name for module in pkgutil.walk_packages(getattr(package, "__path__", []), f"{name}.")]
    tests = []
    for module in (name, *names):
        tests += doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(module))
    return [test for test in tests if test.examples]


@pytest.mark.parametrize("name", PACKAGES)
def test_examples_of_docstrings(name, stand_ins, monkeypatch):
    """Fails if an example cannot be pasted, or gives something else than documented."""
    monkeypatch.chdir(stand_ins)
    shared = {"AutoencoderConfig": AutoencoderConfig, "keras": keras, "lts": lts, "np": np, "os": os, "preset": preset}
    shared |= {"filter_montage": filter_montage, "kernel": np.ones([3, 3, 3, 8], np.float32), "tf": tf}
    runner = doctest.DocTestRunner(LastOutput())
    failed = []
    for test in examples(name):
        test.globs = shared | test.globs
        if runner.run(test).failed:
            failed.append(test.name)
    assert failed == []


def check_arguments(command: str) -> str:
    """Return what a documented command prints when its program only checks the flags; "" if they are valid."""
    arguments = [sys.executable, *shlex.split(command)[1:], "--only_check_args"]
    process = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    return "" if process.returncode == 0 else process.stderr or f"status {process.returncode}"


def test_documented_commands_have_valid_flags():
    """Fails if a document shows a program or a flag that does not exist, or a value that is refused."""
    assert len(COMMANDS) > 20
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        errors = dict(zip(COMMANDS, pool.map(check_arguments, COMMANDS), strict=True))
    assert {command: error for command, error in errors.items() if error} == {}


def test_links_lead_somewhere():
    """Fails if a document links to a file or a heading that does not exist."""
    for name, text in TEXTS.items():
        for target, anchor in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", text):
            path = (ROOT / name).parent / target if target else ROOT / name
            assert path.exists(), f"{name}: {target}"
            if anchor:
                headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
                anchors = [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]
                assert anchor in anchors, f"{name}: {target}#{anchor}"


def test_readme_is_short():
    """Fails if README grows beyond what a newcomer reads."""
    assert len(TEXTS["README.md"].splitlines()) <= 200
