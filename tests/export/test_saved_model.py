"""Exports of a small network: their outputs, their errors, their files."""

import doctest
import json
import os
import pathlib
import re
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import lts
from lts.export import pooling, saved_model
from lts.export.saved_model import ExportError, InputError
from lts.utils.files import OutputError
from tests.fixtures import rounding
from tests.fixtures.exports import small_discriminator

SIGNATURES = ("serving_default", "conv_1", "conv_2", "conv_3", "conv_4", "conv_5", "spot", "train")


@pytest.fixture(scope="module", params=["batch_norm", pytest.param("lrn", marks=pytest.mark.slow)])
def pair(request, tmp_path_factory):
    """A discriminator and its loaded export."""
    discriminator, description = small_discriminator(request.param)
    path = tmp_path_factory.mktemp("export") / "features"
    saved_model.export(discriminator, path, description)
    return discriminator, lts.load(path)


@pytest.fixture(scope="module")
def discriminator(pair):
    return pair[0]


@pytest.fixture(scope="module")
def model(pair):
    return pair[1]


def random_images(*shape):
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)


def test_outputs(discriminator, model):
    """Fails if scaling differs from the training pipeline's, or batch norm is in training mode."""
    images = random_images(3, 48, 48)
    outputs = model(images)
    spotted = model.spot(images)
    del spotted["artifact_map_image"]

    def network(signed) -> dict:
        maps = discriminator(signed)
        expected = {layer: maps[layer] for layer in model.layers}
        expected |= {f"{layer}_pooled": np.mean(maps[layer], (1, 2)) for layer in model.layers}
        expected["probability"] = tf.nn.softmax(maps["logits"])[:, 0]
        expected["artifact_map"] = tf.sigmoid(-maps["mask_logits"])
        return expected

    signed = images / np.float32(127.5) - 1
    allowed = rounding.allowed_for(network, signed)
    assert rounding.largest_difference(network(signed), {**outputs, **spotted}) <= allowed
    for layer in model.layers:
        single = model.module.signatures[layer](images=tf.constant(images))
        expected = {name: outputs[name] for name in (layer, f"{layer}_pooled")}
        assert rounding.largest_difference(expected, single) <= allowed


def test_the_example_can_be_pasted(model, monkeypatch):
    """Fails if the example of `LoadedModel`'s docstring does not run."""
    monkeypatch.chdir(model.path.parent)
    shutil.copytree(model.path, "runs/features", dirs_exist_ok=True)
    (example,) = doctest.DocTestFinder(recurse=False).find(saved_model.LoadedModel, "LoadedModel")
    results = doctest.DocTestRunner().run(example)
    assert (results.attempted, results.failed) == (8, 0)


def test_later_layers_are_not_computed(model):
    """Fails if the signature of a layer reads weights of later layers."""

    def weights(name):
        return {variable.name for variable in model.module.signatures[name].variables}

    for layer, later in zip(model.layers[:-1], model.layers[1:], strict=True):
        assert weights(layer) < weights(later)
    assert weights("conv_5") == weights("serving_default") < weights("spot")


def test_enlarged_artifact_map(model):
    """Fails if a cell's value is not at the cell's centre in the map of the image's size."""
    spotted = model.spot(random_images(2, 48, 96))
    cells = spotted["artifact_map"].numpy()
    pixels = spotted["artifact_map_image"].numpy()
    assert cells.shape == (2, 6, 12)
    assert pixels.shape == (2, 48, 96)
    centres = pixels.reshape(2, 6, 8, 12, 8)[:, :, 3:5, :, 3:5].mean((2, 4))
    assert np.abs(centres - cells).max() < 0.2 * np.ptp(cells)
    assert cells.min() <= pixels.min() <= pixels.max() <= cells.max()


@pytest.mark.parametrize("shape", [(1, 48, 48), (2, 96, 64), (3, 9, 17), (1, 8, 8)])
def test_any_batch_height_and_width(model, shape):
    """Fails if the grid does not follow the image, down to the smallest."""
    outputs = model(random_images(*shape))
    height, width = (-(-side // 8) for side in shape[1:])
    assert outputs["conv_5"].shape == (shape[0], height, width, 8)
    assert np.isfinite(outputs["conv_5"]).all()


@pytest.mark.parametrize("pool", ["none", "avg", "max", "grid:2", "grid:9"])
def test_features(discriminator, model, pool):
    """Fails if several layers or a call inside a traced function give other features than the maps, pooled."""
    images = random_images(2, 48, 40)
    maps = model(images)
    features = model.features(images, ("conv_5", "conv_3"), pool)
    assert list(features) == ["conv_5", "conv_3"]
    for layer, values in features.items():
        np.testing.assert_allclose(values, pooling.pool(maps[layer], pool), rtol=1e-5)
    traced = tf.function(
        lambda images: model.features(images, "conv_3", pool),
        input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)],
    )
    allowed = rounding.allowed_for(lambda signed: discriminator(signed)["conv_3"], images / np.float32(127.5) - 1)
    assert rounding.difference(features["conv_3"], traced(images)) <= allowed


@pytest.mark.parametrize(
    ("images", "received"),
    [
        (np.zeros([2, 48, 48, 3], np.float32), r"Received: float32 \(2, 48, 48, 3\)"),
        (np.zeros([48, 48, 3], np.uint8), r"Received: uint8 \(48, 48, 3\)"),
        (np.zeros([2, 48, 48, 1], np.uint8), r"Received: uint8 \(2, 48, 48, 1\)"),
        (np.zeros([2, 48, 7, 3], np.uint8), r"at least 8 pixels a side. Received: uint8 \(2, 48, 7, 3\)"),
        (np.zeros([0, 48, 48, 3], np.uint8), r"at least one image"),
        ([np.zeros([48, 48, 3]), np.zeros([40, 48, 3])], "images must be one array"),
        (["cat.jpg"], "Received: string"),
    ],
)
def test_invalid_images(model, images, received):
    """Fails if a method accepts them, or does not report what it received and what it needs."""
    for call in (model, model.features):
        with pytest.raises(InputError, match=received):
            call(images)
    with pytest.raises(InputError, match="images must be"):
        model.spot(images)


def test_spot_needs_the_training_size(model):
    """Fails if `spot` accepts images that its fully connected layers were not trained for."""
    with pytest.raises(InputError, match=r"at least 48 pixels a side. Received: uint8 \(1, 47, 48, 3\)"):
        model.spot(random_images(1, 47, 48))


def test_unknown_layers_and_pools(model):
    """Fails if an unknown layer or pooling is not one line."""
    images = random_images(1, 48, 48)
    with pytest.raises(InputError, match=r"layer must be of conv_1, .*conv_5. Received: layer='conv_6'"):
        model.features(images, "conv_6")
    with pytest.raises(InputError, match="layer must be"):
        model.features(images, ())
    with pytest.raises(ValueError, match=r"grid:3. Received: pool='grid:0'"):
        model.features(images, pool="grid:0")


def call_with_random_inputs(model, signature: str, count: int) -> dict[str, int]:
    """Call a signature as plain TensorFlow does, with random shapes and dtypes.

    Returns:
      Numbers of "answered" calls, of "refused" ones, and of those refused with an "unclear" message.
    """
    random = np.random.default_rng(SIGNATURES.index(signature))
    accepted_dtype = np.float32 if signature == "train" else np.uint8
    dtypes = [np.uint8, np.float32, np.int32, np.float64, np.bool_, np.int8, *[accepted_dtype] * 12]
    outcomes = {"answered": 0, "refused": 0, "unclear": 0}
    # Loaded again: `train` changes the moving averages.
    endpoint = tf.saved_model.load(str(model.path)).signatures[signature]
    for _ in range(count):
        rank = random.choice([4] * 8 + [0, 2, 3, 5])
        least = random.choice([0, 48])
        sides = random.integers(least, 60, 3)
        shape = [int(side) for side in (random.integers(0, 4), *sides)][: max(rank - 1, 0)]
        shape += [int(random.choice([3] * 6 + [0, 1, 4]))] if rank else []
        dtype = random.choice(dtypes)
        images = tf.constant(random.integers(0, 2, shape).astype(dtype))
        try:
            outputs = endpoint(images=images)
        except (TypeError, ValueError, tf.errors.InvalidArgumentError) as error:
            unclear = not re.search(r"images must be|expected to be a \w+ tensor", str(error))
            outcomes["unclear" if unclear else "refused"] += 1
        else:
            assert len(shape) == 4, shape
            assert shape[-1] == 3, shape
            assert dtype == accepted_dtype
            assert all(np.isfinite(values).all() for values in outputs.values()), shape
            outcomes["answered"] += 1
    return outcomes


@pytest.mark.parametrize("signature", ["serving_default", "spot", "train"])
def test_random_shapes_and_dtypes(model, signature):
    """Fails if an input crashes, gives numbers that are not finite, or an error that does not explain it."""
    outcomes = call_with_random_inputs(model, signature, 60)
    assert min(outcomes["answered"], outcomes["refused"]) > 3
    assert not outcomes["unclear"]


@pytest.mark.slow
@pytest.mark.parametrize("signature", SIGNATURES)
def test_a_thousand_random_shapes_and_dtypes(model, signature):
    """As above, with every signature and a thousand inputs."""
    outcomes = call_with_random_inputs(model, signature, 1000)
    assert min(outcomes["answered"], outcomes["refused"]) > 100
    assert not outcomes["unclear"]


def test_training_signature(discriminator, model):
    """Fails if `train` does not update the moving averages, or its gradients differ from the network's."""
    module = tf.saved_model.load(str(model.path))  # loaded again: its moving averages change
    images = tf.cast(random_images(4, 48, 48), tf.float32)
    before = {variable.name: variable.numpy() for variable in module.variables}
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(module.train(images)["conv_5"]))
    gradients = tape.gradient(loss, module.trainable_variables)
    changed = {v.name for v in module.variables if np.abs(v.numpy() - before[v.name]).max() > 0}

    statistics = [variable.value for variable in discriminator.backbone.non_trainable_variables]
    values = [variable.numpy() for variable in statistics]

    def network(signed) -> dict:
        with tf.GradientTape() as tape:
            features = discriminator.backbone(signed, training=True)["conv_5"]
            loss = tf.reduce_sum(tf.square(features))
        expected = tape.gradient(loss, [v.value for v in discriminator.backbone.trainable_variables])
        return {"loss": loss, **dict(enumerate(expected))}

    signed = images / 127.5 - 1
    difference = rounding.largest_difference(network(signed), {"loss": loss, **dict(enumerate(gradients))})
    assert difference <= rounding.allowed_for(network, signed)
    for variable, value in zip(statistics, values, strict=True):
        variable.assign(value)  # the discriminator is shared by other tests
    assert not changed & {variable.name for variable in module.trainable_variables}
    assert len(changed) == len(statistics)


@pytest.mark.parametrize("layer", ["conv_2", pytest.param("conv_5", marks=pytest.mark.slow)])
def test_keras_model(model, layer, tmp_path):
    """Fails if the Keras model computes other features, builds later layers, or cannot be saved and loaded."""
    extractor = model.keras_model(layer)
    images = random_images(2, 48, 56)
    expected = model.features(images, layer)
    allowed = rounding.allowed_for(extractor, images.astype(np.float32))
    assert rounding.difference(expected, extractor(images)) <= allowed
    assert rounding.difference(expected, extractor(images.astype(np.float32))) <= allowed
    assert len(extractor.backbone.convs) == int(layer[-1])
    summary = []
    extractor.summary(print_fn=summary.append)
    assert f"{layer} (" in "".join(summary)
    extractor.save(tmp_path / "backbone.keras")
    loaded = keras.saving.load_model(tmp_path / "backbone.keras")
    np.testing.assert_array_equal(loaded(images), extractor(images))


def test_keras_model_is_fine_tuned_with_fit(model):
    """Fails if a frozen backbone changes, a free one does not learn, or training changes the export."""
    images = random_images(16, 48, 48)
    labels = np.arange(16) % 2
    images[labels == 1] //= 2
    features = model.features(images[:2]).numpy()
    backbone = model.keras_model()
    classifier = keras.Sequential([backbone, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for frozen in (True, False):
        backbone.trainable = not frozen
        classifier.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
        before = [keras.ops.convert_to_numpy(variable) for variable in backbone.variables]
        history = classifier.fit(images, labels, batch_size=8, epochs=1 if frozen else 20, verbose=0).history
        changed = [np.abs(v - old).max() > 0 for v, old in zip(backbone.variables, before, strict=True)]
        assert any(changed) != frozen
    assert history["accuracy"][-1] > 0.9
    np.testing.assert_array_equal(model.features(images[:2]), features)


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_export_without_heads(tmp_path):
    """Fails if an export of features alone offers `spot`, in the SavedModel, in TFLite or in its card."""
    discriminator, description = small_discriminator("lrn")
    saved_model.export(discriminator, tmp_path / "backbone", {**description, "spot": False}, ("tflite",))
    model = lts.load(tmp_path / "backbone")
    assert "spot" not in model.module.signatures
    interpreter = tf.lite.Interpreter(model_path=str(model.path / "model.tflite"))
    assert list(interpreter.get_signature_list()) == ["serving_default"]
    with pytest.raises(ExportError, match="had no heads"):
        model.spot(random_images(1, 48, 48))
    assert "`spot`" not in (tmp_path / "backbone" / "README.md").read_text()


def test_an_image_does_not_depend_on_its_batch(model):
    """Fails if an export normalises with statistics of the batch."""
    images = random_images(4, 48, 48)
    allowed = rounding.allowed_for(model.keras_model(), images.astype(np.float32))
    assert rounding.difference(model(images)["conv_5"][2:3], model(images[2:3])["conv_5"]) <= allowed


def test_description_and_fingerprint(discriminator, model, tmp_path):
    """Fails if the same weights under other names get another fingerprint, or other weights the same."""
    assert (model.image_size, model.test_crop) == (48, 0.85)
    twin = discriminator.from_config(discriminator.get_config())  # Keras gives its layers other names
    twin.build((None, 48, 48, 3))
    for variable, value in zip(twin.variables, discriminator.variables, strict=True):
        variable.assign(value)
    saved_model.export(twin, tmp_path / "twin", model.description)
    assert saved_model.load(tmp_path / "twin").fingerprint == model.fingerprint
    twin.fc_2.bias.assign_add([1.0, 0.0])
    saved_model.export(twin, tmp_path / "twin", model.description)
    assert saved_model.load(tmp_path / "twin").fingerprint != model.fingerprint


def test_a_failed_export_leaves_the_previous_one(discriminator, model, tmp_path, monkeypatch):
    """Fails if a full disk at the last file leaves a partial folder, or destroys an existing export."""

    def full_disk(*_, **__):
        raise OSError(28, "No space left")

    shutil.copytree(model.path, tmp_path / "old")
    monkeypatch.setattr("lts.export.model_card.card", full_disk)
    with pytest.raises(OSError, match="No space left"):
        saved_model.export(discriminator, tmp_path / "old", model.description)
    assert [entry.name for entry in tmp_path.iterdir()] == ["old"]
    assert lts.load(tmp_path / "old").fingerprint == model.fingerprint


def test_an_export_of_an_older_version(model, tmp_path):
    """Fails if a missing signature is not reported when the export is loaded."""
    tf.saved_model.save(tf.Module(), str(tmp_path / "old"))
    (tmp_path / "old" / "config.json").write_text(json.dumps(model.description))
    with pytest.raises(ExportError, match="no signature 'serving_default': export it again"):
        lts.load(tmp_path / "old")


def _without_image_size(folder: pathlib.Path) -> None:
    description = json.loads((folder / "config.json").read_text())
    del description["image_size"]
    (folder / "config.json").write_text(json.dumps(description))


DAMAGES = {
    "cut variables": lambda folder: os.truncate(folder / "variables" / "variables.data-00000-of-00001", 500),
    "no index": lambda folder: (folder / "variables" / "variables.index").unlink(),
    "cut index": lambda folder: os.truncate(folder / "variables" / "variables.index", 50),
    "no variables": lambda folder: shutil.rmtree(folder / "variables"),
    "empty graph": lambda folder: os.truncate(folder / "saved_model.pb", 0),
    "cut graph": lambda folder: os.truncate(folder / "saved_model.pb", 5000),
    "a list": lambda folder: (folder / "config.json").write_text("[]"),
    "no configuration": lambda folder: (folder / "config.json").write_text('{"image_size": 48, "test_crop": 1}'),
    "no image size": _without_image_size,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_exports(model, tmp_path, damage):
    """Fails if an interrupted copy of an export gives a traceback: TensorFlow raises nearly any type."""
    shutil.copytree(model.path, tmp_path / "copy")
    DAMAGES[damage](tmp_path / "copy")
    with pytest.raises(ExportError, match="copy") as caught:
        lts.load(tmp_path / "copy")
    assert "\n" not in str(caught.value)


def test_an_export_without_its_empty_folder(model, tmp_path):
    """Fails if a copy that dropped the empty folder `assets` cannot be used."""
    shutil.copytree(model.path, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "assets", ignore_errors=True)
    assert lts.load(tmp_path / "copy").fingerprint == model.fingerprint


def test_files_of_the_user_in_an_export_are_kept(discriminator, model, tmp_path):
    """Fails if a second export deletes a run or notes in the folder of the first one."""
    shutil.copytree(model.path, tmp_path / "features")
    (tmp_path / "features" / "run").mkdir()
    (tmp_path / "features" / "run" / "config.json").write_text("{}")
    with pytest.raises(OutputError, match=r"holds run/config\.json, which is no part"):
        saved_model.export(discriminator, tmp_path / "features", model.description)
    assert (tmp_path / "features" / "run" / "config.json").exists()


def test_damaged_weights(model, tmp_path):
    """Fails if the path of a truncated file is not reported: zipfile raises `BadZipFile`, not `OSError`."""
    shutil.copytree(model.path, tmp_path / "copy")
    file = tmp_path / "copy" / "backbone.npz"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(ExportError, match=r"copy/backbone\.npz cannot be read"):
        lts.load(tmp_path / "copy").keras_model()


def test_an_export_that_is_replaced_while_it_is_in_use(model, tmp_path):
    """Fails if an evaluation of hours mixes the features of one model with the weights of another."""
    shutil.copytree(model.path, tmp_path / "copy")
    loaded = lts.load(tmp_path / "copy")
    loaded.check_unchanged()
    variables = str(tmp_path / "copy" / "variables" / "variables")
    tf.raw_ops.SaveV2(prefix=variables, tensor_names=["other"], shape_and_slices=[""], tensors=[tf.zeros([1])])
    with pytest.raises(ExportError, match="was replaced by another export while it was in use"):
        loaded.keras_model()


def test_folders_that_are_no_export(discriminator, model, tmp_path):
    """Fails if one is loaded or overwritten."""
    with pytest.raises(ExportError, match=r"no saved_model\.pb"):
        saved_model.load(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"broken")
    with pytest.raises(ExportError, match=r"no config\.json"):  # a SavedModel of another program
        saved_model.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(model.description))
    with pytest.raises(ExportError, match="cannot be loaded"):
        saved_model.load(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(OutputError, match=r"holds no saved_model\.pb"):
        saved_model.export(discriminator, tmp_path / "mine", model.description)
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_folder_that_is_a_pattern(model, tmp_path):
    """Fails if an export is not found whose path TensorFlow takes for a pattern, or has another fingerprint there."""
    folder = tmp_path / "runs [v1]"
    shutil.copytree(model.path, folder)
    copied = lts.load(folder)
    assert copied.path == folder
    assert copied.fingerprint == model.fingerprint
    images = random_images(1, 48, 48)
    np.testing.assert_array_equal(copied.features(images), model.features(images))
