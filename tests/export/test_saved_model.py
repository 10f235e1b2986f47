"""The export: what goes in comes out again, for any batch, height and width; everything else is a clear error."""

import json
import re
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import lts
from lts.export import saved_model
from lts.export.saved_model import ExportError, InputError
from lts.utils.files import OutputError
from tests.fixtures.exports import small_discriminator

SIGNATURES = ("serving_default", "conv_1", "conv_2", "conv_3", "conv_4", "conv_5", "spot", "train")


@pytest.fixture(scope="module", params=["lrn", "batch_norm"])
def pair(request, tmp_path_factory):
    """A discriminator and its loaded export."""
    discriminator, description = small_discriminator(request.param)
    path = tmp_path_factory.mktemp("export") / "features"
    saved_model.export(discriminator, path, description)
    return discriminator, lts.load(path)


def _images(*shape):
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)


def test_outputs_are_the_networks(pair):
    """Scaling inside the export equals the training pipeline's, batch norm is in inference mode."""
    discriminator, model = pair
    images = _images(3, 48, 48)
    out, expected = model(images), discriminator(images / np.float32(127.5) - 1)
    spotted = model.spot(images)
    for layer in model.layers:
        largest = np.abs(expected[layer]).max()
        np.testing.assert_allclose(out[layer], expected[layer], rtol=1e-4, atol=1e-4 * largest)
        np.testing.assert_allclose(out[f"{layer}_pooled"], np.mean(expected[layer], (1, 2)), atol=1e-4 * largest)
        alone = model.module.signatures[layer](images=tf.constant(images))
        assert set(alone) == {layer, f"{layer}_pooled"}
        np.testing.assert_allclose(alone[layer], out[layer], atol=1e-5 * largest)
    np.testing.assert_allclose(spotted["probability"], tf.nn.softmax(expected["logits"])[:, 0], atol=1e-5)
    np.testing.assert_allclose(spotted["artifact_map"], tf.sigmoid(-expected["mask_logits"]), atol=1e-5)


def test_a_layer_does_not_pay_for_those_behind_it(pair):
    """Hypothesis: the endpoint of conv_2 reads no weight of conv_3."""

    def weights(name):
        return {variable.name for variable in pair[1].module.signatures[name].variables}

    for layer, behind in zip(pair[1].layers, pair[1].layers[1:], strict=False):
        assert weights(layer) < weights(behind)
    assert weights("conv_5") == weights("serving_default") < weights("spot")


def test_artifact_map_of_the_image_lies_where_the_cells_are(pair):
    """Each cell's value stands at its centre, at image resolution; probabilities stay probabilities."""
    spotted = pair[1].spot(_images(2, 48, 96))
    cells, pixels = spotted["artifact_map"].numpy(), spotted["artifact_map_image"].numpy()
    assert cells.shape == (2, 6, 12)
    assert pixels.shape == (2, 48, 96)
    centres = pixels.reshape(2, 6, 8, 12, 8)[:, :, 3:5, :, 3:5].mean((2, 4))
    assert np.abs(centres - cells).max() < 0.2 * np.ptp(cells)
    assert cells.min() <= pixels.min() <= pixels.max() <= cells.max()


@pytest.mark.parametrize("shape", [(1, 48, 48), (2, 96, 64), (3, 9, 17), (1, 8, 8)])
def test_any_batch_height_and_width(pair, shape):
    """Grids follow the image, down to the smallest."""
    out = pair[1](_images(*shape))
    height, width = (-(-side // 8) for side in shape[1:])
    assert out["conv_5"].shape == (shape[0], height, width, 8)
    assert np.isfinite(out["conv_5"]).all()


@pytest.mark.parametrize("pool", ["none", "avg", "max", "grid:2", "grid:9"])
def test_features(pair, pool):
    """Pools equal NumPy's, several layers come from one pass, and it works inside a traced function of any size."""
    images = _images(2, 48, 40)
    maps = {layer: pair[1](images)[layer].numpy() for layer in ("conv_3", "conv_5")}

    def oracle(x):
        if pool == "none":
            return x
        if pool in ("avg", "max"):
            return (np.mean if pool == "avg" else np.max)(x, (1, 2))
        cells, (height, width) = int(pool[5:]), x.shape[1:3]
        grid = [[i * n // cells for i in range(cells)] for n in (height, width)]
        ends = [[-(-(i + 1) * n // cells) for i in range(cells)] for n in (height, width)]
        rows = [
            [x[:, top:bottom, left:right].mean((1, 2)) for left, right in zip(grid[1], ends[1], strict=True)]
            for top, bottom in zip(grid[0], ends[0], strict=True)
        ]
        return np.moveaxis(np.array(rows), 2, 0)

    both = pair[1].features(images, ("conv_5", "conv_3"), pool)
    traced = tf.function(
        lambda images: pair[1].features(images, "conv_3", pool),
        input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)],
    )
    assert list(both) == ["conv_5", "conv_3"]
    for layer, values in both.items():
        np.testing.assert_allclose(values, oracle(maps[layer]), rtol=1e-4, atol=1e-5 * maps[layer].max())
    np.testing.assert_allclose(traced(images), both["conv_3"], rtol=1e-4, atol=1e-5 * maps["conv_3"].max())


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
def test_what_is_no_batch_of_images_is_refused(pair, images, received):
    """One line that says what came and what is needed, for every way in."""
    for call in (pair[1], pair[1].features):
        with pytest.raises(InputError, match=received):
            call(images)
    with pytest.raises(InputError, match="images must be"):
        pair[1].spot(images)


def test_spotting_needs_the_size_of_training(pair):
    with pytest.raises(InputError, match=r"at least 48 pixels a side. Received: uint8 \(1, 47, 48, 3\)"):
        pair[1].spot(_images(1, 47, 48))


def test_unknown_layers_and_pools_are_refused(pair):
    with pytest.raises(InputError, match=r"layer must be of conv_1, .*conv_5. Received: layer='conv_6'"):
        pair[1].features(_images(1, 48, 48), "conv_6")
    with pytest.raises(InputError, match="layer must be"):
        pair[1].features(_images(1, 48, 48), ())
    with pytest.raises(ValueError, match=r"grid:3. Received: 'grid:0'"):
        pair[1].features(_images(1, 48, 48), pool="grid:0")


def throw_at(model, signature: str, count: int) -> dict[str, int]:
    """Random shapes and dtypes at a signature, called as plain TensorFlow does; numbers of answers and refusals."""
    random = np.random.default_rng(SIGNATURES.index(signature))
    wanted = np.float32 if signature == "train" else np.uint8
    dtypes = [np.uint8, np.float32, np.int32, np.float64, np.bool_, np.int8, *[wanted] * 12]
    outcomes, unclear, wrong = {"answered": 0, "refused": 0}, [], []
    endpoint = tf.saved_model.load(str(model.path)).signatures[signature]  # a new one: `train` moves its statistics
    for _ in range(count):
        rank, least = random.choice([4] * 8 + [0, 2, 3, 5]), random.choice([0, 48])
        shape = [int(side) for side in (random.integers(0, 4), *random.integers(least, 60, 3))][: max(rank - 1, 0)]
        shape += [int(random.choice([3] * 6 + [0, 1, 4]))] if rank else []
        dtype = random.choice(dtypes)
        images = tf.constant(random.integers(0, 2, shape).astype(dtype))
        try:
            out = endpoint(images=images)
        except (TypeError, ValueError, tf.errors.InvalidArgumentError) as error:
            if not re.search(r"images must be|expected to be a \w+ tensor", str(error)):
                unclear.append((shape, dtype, error))
            outcomes["refused"] += 1
        else:
            right = len(shape) == 4 and shape[-1] == 3 and dtype == wanted
            if not right or not all(np.isfinite(values).all() for values in out.values()):
                wrong.append((shape, dtype))
            outcomes["answered"] += 1
    assert not wrong
    assert not unclear
    return outcomes


@pytest.mark.parametrize("signature", SIGNATURES)
def test_random_shapes_and_dtypes(pair, signature):
    """An answer or a clear error, never a crash."""
    outcomes = throw_at(pair[1], signature, 60)
    assert min(outcomes.values()) > 3


@pytest.mark.slow
@pytest.mark.parametrize("signature", SIGNATURES)
def test_a_thousand_random_shapes_and_dtypes(pair, signature):
    """As above, a thousand."""
    outcomes = throw_at(pair[1], signature, 1000)
    assert min(outcomes.values()) > 100


def test_training_endpoint(pair, tmp_path):
    """Batch norm in training mode, statistics that move, and gradients that equal the network's own."""
    discriminator, model = pair
    module = tf.saved_model.load(str(model.path))  # its statistics will move
    images = tf.cast(_images(4, 48, 48), tf.float32)
    before = {v.name: v.numpy() for v in module.variables}
    trainable = {v.name for v in module.trainable_variables}
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(module.train(images)["conv_5"]))
    gradients = tape.gradient(loss, module.trainable_variables)
    moved = {v.name for v in module.variables if np.abs(v.numpy() - before[v.name]).max() > 0}
    statistics = [v.value for v in discriminator.backbone.non_trainable_variables]
    kept = [v.numpy() for v in statistics]
    with tf.GradientTape() as tape:
        own = tf.reduce_sum(tf.square(discriminator.backbone(images / 127.5 - 1, training=True)["conv_5"]))
    expected = tape.gradient(own, [v.value for v in discriminator.backbone.trainable_variables])
    for variable, value in zip(statistics, kept, strict=True):
        variable.assign(value)
    np.testing.assert_allclose(loss, own, rtol=1e-4)
    for gradient, other in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, other, atol=1e-3 * max(1e-6, np.abs(other).max()))
    assert not moved & trainable
    assert len(moved) == len(statistics)


@pytest.mark.parametrize("layer", ["conv_2", "conv_5"])
def test_keras_model(pair, layer, tmp_path):
    """The rebuilt backbone computes the export's features, is saved and loaded, and ends with the layer asked for."""
    model, images = pair[1].keras_model(layer), _images(2, 48, 56)
    expected = pair[1].features(images, layer)
    np.testing.assert_allclose(model(images), expected, atol=1e-5 * np.max(expected))
    np.testing.assert_allclose(model(images.astype(np.float32)), expected, atol=1e-5 * np.max(expected))
    assert len(model.backbone.convs) == int(layer[-1])
    model.save(tmp_path / "backbone.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "backbone.keras")(images), model(images))


def test_keras_model_is_tuned_with_fit(pair):
    """Frozen it stays as it was, statistics included; free it learns, and the export is untouched."""
    images, labels = _images(16, 48, 48), np.arange(16) % 2
    images[labels == 1] //= 2
    before = pair[1].features(images[:2]).numpy()
    backbone = pair[1].keras_model()
    model = keras.Sequential([backbone, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    values = {}
    for frozen in (True, False):
        backbone.trainable = not frozen
        model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
        values["before"] = [keras.ops.convert_to_numpy(v) for v in backbone.variables]
        history = model.fit(images, labels, batch_size=8, epochs=1 if frozen else 20, verbose=0).history
        changed = [np.abs(v - old).max() > 0 for v, old in zip(backbone.variables, values["before"], strict=True)]
        assert any(changed) != frozen
    assert history["accuracy"][-1] > 0.9
    np.testing.assert_array_equal(pair[1].features(images[:2]), before)


def test_export_without_heads(tmp_path):
    """Of a backbone alone nothing is spotted, and it says so."""
    discriminator, description = small_discriminator("lrn")
    saved_model.export(discriminator, tmp_path / "backbone", {**description, "spot": False})
    model = lts.load(tmp_path / "backbone")
    assert "spot" not in model.module.signatures
    with pytest.raises(ExportError, match="had no heads"):
        model.spot(_images(1, 48, 48))
    assert "`spot`" not in (tmp_path / "backbone" / "README.md").read_text()


def test_one_image_does_not_depend_on_its_batch(pair):
    images = _images(4, 48, 48)
    np.testing.assert_allclose(pair[1](images)["conv_5"][2:3], pair[1](images[2:3])["conv_5"], atol=1e-5)


def test_description_and_fingerprint(pair, tmp_path):
    """Two exports of the same weights have one fingerprint, other weights another."""
    discriminator, model = pair
    assert (model.image_size, model.test_crop) == (48, 0.85)
    saved_model.export(discriminator, tmp_path / "again", model.description)
    assert saved_model.load(tmp_path / "again").fingerprint == model.fingerprint
    twin = discriminator.from_config(discriminator.get_config())  # whose layers Keras gives other names
    twin.build((None, 48, 48, 3))
    for mine, theirs in zip(twin.variables, discriminator.variables, strict=True):
        mine.assign(theirs)
    saved_model.export(twin, tmp_path / "twin", model.description)
    assert saved_model.load(tmp_path / "twin").fingerprint == model.fingerprint
    before = discriminator.fc_2.bias.numpy()
    discriminator.fc_2.bias.assign_add([1.0, 0.0])
    saved_model.export(discriminator, tmp_path / "again", model.description)
    discriminator.fc_2.bias.assign(before)
    assert saved_model.load(tmp_path / "again").fingerprint != model.fingerprint


def test_an_export_that_fails_leaves_the_old_one(pair, tmp_path, monkeypatch):
    """Whole or absent: the disk fills, or a conversion fails, when all but the last file is written."""
    path = tmp_path / "features"
    for expected in ([], ["features"]):
        with monkeypatch.context() as patch:
            patch.setattr(
                "lts.export.model_card.card", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left"))
            )
            with pytest.raises(OSError, match="No space left"):
                saved_model.export(pair[0], path, pair[1].description)
        assert [entry.name for entry in tmp_path.iterdir()] == expected
        if expected:
            assert lts.load(path).fingerprint == pair[1].fingerprint
        else:
            saved_model.export(pair[0], path, pair[1].description)


def test_an_export_of_an_older_version_is_refused(pair, tmp_path):
    """Not at the first call, with a KeyError."""
    tf.saved_model.save(tf.Module(), str(tmp_path / "old"))
    (tmp_path / "old" / "config.json").write_text(json.dumps(pair[1].description))
    with pytest.raises(ExportError, match="no signature 'serving_default': export it again"):
        lts.load(tmp_path / "old")


def test_damaged_weights_of_a_backbone_are_named(pair, tmp_path):
    """A half copied file: zipfile has an error of its own for it."""
    shutil.copytree(pair[1].path, tmp_path / "copy")
    file = tmp_path / "copy" / "backbone.npz"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(ExportError, match=r"copy/backbone\.npz cannot be read"):
        lts.load(tmp_path / "copy").keras_model()


def test_what_is_no_export_is_refused(pair, tmp_path):
    with pytest.raises(ExportError, match=r"no saved_model\.pb"):
        saved_model.load(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"broken")
    with pytest.raises(ExportError, match=r"no config\.json"):  # somebody else's SavedModel
        saved_model.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(pair[1].description))
    with pytest.raises(ExportError, match="cannot be loaded"):
        saved_model.load(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(OutputError, match=r"holds no saved_model\.pb"):
        saved_model.export(pair[0], tmp_path / "mine", pair[1].description)
    assert (tmp_path / "mine" / "thesis.txt").exists()
