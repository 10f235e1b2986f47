"""The models under `fit` and the settings of Keras."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from lts.models import Autoencoder, DamageRepairGAN, RotationPredictor, SupervisedClassifier
from tests.fixtures.models import images, small_config

IMAGES = images(6).numpy()
LABELS = np.array([0, 4, 2, 1, 3, 0], np.int32)
CONFIG = small_config()


def sgd(dtype):
    """Return an optimizer whose step is its rate times the gradient."""
    optimizer = keras.optimizers.SGD(1e-3)
    # Keras' first scale, 2**15, overflows here: it skips steps until it is small enough.
    return keras.optimizers.LossScaleOptimizer(optimizer, 64.0) if dtype == "mixed_float16" else optimizer


def gan(optimizers=("adam", "adam"), dtype=None, **options) -> DamageRepairGAN:
    """Return a model that was compiled as the documents show."""
    keras.utils.set_random_seed(1)
    model = DamageRepairGAN(CONFIG, dtype=dtype)
    model.compile(*optimizers, **options)
    return model


def values(model) -> list:
    """Return copies of weights and statistics."""
    return [variable.numpy().copy() for variable in model.variables if "means" not in variable.path]


def optimizer_values(model) -> list:
    """Return copies of the variables of both optimizers."""
    return [variable.numpy().copy() for variable in (*model.optimizer.variables, *model.g_optimizer.variables)]


def assert_equal(first: list, second: list) -> None:
    """Compare lists of arrays."""
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_gan_in_fit_and_evaluate(tmp_path):
    """Fails if labels, names of optimizers, a smaller last batch or validation data need other code."""
    model = gan(steps_per_execution=2)
    callbacks = [
        keras.callbacks.ModelCheckpoint(
            tmp_path / "best.weights.h5", "val_mask", save_best_only=True, save_weights_only=True, mode="min"
        ),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
    ]
    history = model.fit(
        IMAGES, LABELS, batch_size=4, validation_data=(IMAGES, LABELS), epochs=2, verbose=0, callbacks=callbacks
    ).history
    assert {"disc_total", "gen_total", "val_mask", "val_masked_reconstruction"} <= history.keys()
    assert all(np.isfinite(value).all() for value in history.values())
    before = values(model)
    first = model.evaluate(IMAGES, verbose=0, return_dict=True)
    assert first == model.evaluate(IMAGES, verbose=0, return_dict=True)
    assert_equal(before, values(model))
    assert model.predict(IMAGES, verbose=0)["mask_logits"].shape == (6, 4, 4)


def test_gan_is_loaded_with_both_optimizers(tmp_path):
    """Fails if `load_model` or `load_weights` loses weights, an optimizer or its state."""
    model = gan()
    model.fit(IMAGES, batch_size=6, verbose=0)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    other = gan()
    other.load_weights(tmp_path / "model.weights.h5")
    for again in (loaded, other):
        assert_equal(values(model), values(again))
        assert_equal(optimizer_values(model), optimizer_values(again))
    # The next step is the same: masks, moments and the step itself were kept.
    model.train_step(tf.constant(IMAGES))
    loaded.train_step(tf.constant(IMAGES))
    assert_equal(values(model), values(loaded))


def test_backup_and_restore_keeps_both_optimizers(tmp_path):
    """Fails if a restarted `fit` begins with new moments of one player."""

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.started = [*values(self.model), *optimizer_values(self.model)]
            if epoch == 1:
                raise KeyboardInterrupt

    def run(model, epochs):
        stop = Stop()
        backup = keras.callbacks.BackupAndRestore(str(tmp_path / "backup"), delete_checkpoint=False)
        with contextlib.suppress(KeyboardInterrupt):
            model.fit(IMAGES, batch_size=6, epochs=epochs, verbose=0, callbacks=[backup, stop])
        return stop.started

    assert_equal(run(gan(), 2), run(gan(), 2))


@pytest.mark.parametrize("make", [gan, None], ids=["gan", "autoencoder"])
def test_mixed_float16_moves_weights_as_float32(make):
    """Fails if gradients under mixed_float16 are not scaled, are not unscaled, or overflow."""
    moves = {}
    for dtype in ("float32", "mixed_float16"):
        if make:
            model = gan((sgd(dtype), sgd(dtype)), dtype)
            networks = [model.discriminator, model.repair]
        else:
            keras.utils.set_random_seed(1)
            model = Autoencoder(CONFIG, dtype=dtype)
            model.compile(sgd(dtype))
            networks = [model.encoder, model.decoder]
        before = [[v.numpy().copy() for v in network.trainable_variables] for network in networks]
        model.train_step(tf.constant(IMAGES))
        moves[dtype] = [
            np.sqrt(sum(np.sum(np.square(v - old)) for v, old in zip(network.trainable_variables, start, strict=True)))
            for network, start in zip(networks, before, strict=True)
        ]
    # Gradients that are divided by a scale and never multiplied are 64 times too small. A local response norm that
    # overflows float16 gave 0.69 here.
    np.testing.assert_allclose(moves["mixed_float16"], moves["float32"], rtol=0.05)


def test_both_optimizers_scale_the_loss():
    """Fails if Keras' loss scale of mixed_float16 is set for one player only."""
    model = gan(dtype="mixed_float16")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert isinstance(model.g_optimizer, keras.optimizers.LossScaleOptimizer)


def test_jit_compile_is_answered_by_keras():
    """Fails if `jit_compile=True`, or the default on a GPU, stops `fit` with an error of XLA."""
    with pytest.warns(UserWarning, match="doesn't support `jit_compile=True`"):
        model = gan(jit_compile=True)
    assert not model.jit_compile
    assert not gan().jit_compile


@pytest.mark.parametrize(
    ("make", "data"),
    [
        (lambda: RotationPredictor(CONFIG), (IMAGES, LABELS)),
        (lambda: SupervisedClassifier(CONFIG, classes=5), (IMAGES.astype(np.float64), LABELS)),
    ],
    ids=["rotation", "supervised"],
)
def test_classifiers_in_fit(make, data, tmp_path):
    """Fails if a classifier needs other data than Keras' own, or is loaded without its optimizer."""
    model = make()
    model.compile("adam", run_eagerly=True)
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(4)
    history = model.fit(dataset, validation_data=dataset, verbose=0).history
    assert "val_accuracy" in history
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_equal([v.numpy() for v in model.optimizer.variables], [v.numpy() for v in loaded.optimizer.variables])
    np.testing.assert_array_equal(model.predict(IMAGES, verbose=0), loaded.predict(IMAGES, verbose=0))


ONE = keras.optimizers.Adam()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"d_optimizer": ONE, "g_optimizer": ONE}, "one object for both"),
        ({"loss": "mse"}, "loss='mse'"),
        ({"metrics": ["accuracy"]}, "metrics="),
        ({"g_optimizer": keras.optimizers.Adam(use_ema=True)}, "use_ema=True"),
    ],
)
def test_compile_refuses(arguments, message):
    """Fails if an argument is ignored, or ends with an error inside Keras."""
    with pytest.raises(ValueError, match=message) as error:
        DamageRepairGAN(CONFIG).compile(**({"d_optimizer": "adam", "g_optimizer": "adam"} | arguments))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros([4, 32, 32, 3], np.uint8), "uint8"),
        (np.zeros([4, 3, 32, 32], np.float32), "channels last"),
        (np.zeros([4, 48, 48, 3], np.float32), "must be .batch, 32, 32, 3"),
        ((IMAGES, LABELS, np.ones(6)), "sample_weight"),
    ],
)
@pytest.mark.parametrize("make", [gan, lambda: RotationPredictor(CONFIG)], ids=["gan", "rotation"])
def test_batches_that_are_refused(make, data, message):
    """Fails if other images train on something, or give an error of TensorFlow."""
    model = make()
    with pytest.raises(ValueError, match=message):
        model.test_step(tf.nest.map_structure(tf.constant, data))


@pytest.mark.parametrize("labels", [None, LABELS.astype(np.float32), np.eye(5, dtype=np.int32)])
def test_labels_that_are_refused(labels):
    """Fails if missing, float or one-hot labels give an error of TensorFlow."""
    model = SupervisedClassifier(CONFIG, classes=5)
    data = IMAGES if labels is None else (IMAGES[:5], labels[:5])
    with pytest.raises(ValueError, match="integer labels"):
        model.test_step(tf.nest.map_structure(tf.constant, data))


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_precision_that_is_refused(dtype):
    """Fails if `floatx` of a user's keras.json trains in another precision."""
    with pytest.raises(ValueError, match=f"Received: dtype='{dtype}'"):
        Autoencoder(CONFIG, dtype=dtype)
