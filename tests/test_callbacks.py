"""Callbacks of `fit` for the models of `lts.models`."""

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lts.callbacks import ExactCheckpoint, PictureStrip
from lts.models import DamageRepairGAN
from lts.training.checkpoints import TrainingError
from tests.fixtures.models import images, small_config, variables

IMAGES = images(2).numpy()


def gan(seed):
    """Return a compiled model with weights of this seed."""
    keras.utils.set_random_seed(seed)
    model = DamageRepairGAN(small_config())
    model.compile("adam", keras.optimizers.Adam(2e-3), run_eagerly=True)
    return model


def fit(model, epochs, *callbacks):
    """Train a model and return the numbers of the epochs."""
    options = {"batch_size": 2, "shuffle": False, "verbose": 0}
    return model.fit(IMAGES, epochs=epochs, callbacks=list(callbacks), **options).epoch


def test_checkpoint_and_pictures(tmp_path, capsys):
    """Fails if a resumed `fit` differs from an uninterrupted one in any variable, or pictures are not written."""
    uninterrupted = gan(seed=1)
    fit(uninterrupted, 2)
    folder = tmp_path / "checkpoints"
    fit(gan(seed=1), 1, ExactCheckpoint(folder))
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step_00000001"]
    resumed = gan(seed=2)
    epochs = fit(resumed, 2, ExactCheckpoint(folder), PictureStrip(IMAGES, tmp_path / "pictures"))
    assert epochs == [1]
    for value, other in zip(variables(uninterrupted), variables(resumed), strict=True):
        np.testing.assert_array_equal(value.numpy(), other.numpy(), value.path)

    (tag,) = EventAccumulator(str(tmp_path / "pictures")).Reload().Tags()["tensors"]
    assert tag.startswith("pictures/image | reconstruction | damaged")
    assert (tmp_path / "pictures" / "latest.png").stat().st_size > 100

    # Another `fit` of the model is not one that resumes.
    assert fit(resumed, 1) == [0]
    assert fit(resumed, 1, ExactCheckpoint(folder)) == []
    assert capsys.readouterr().out.endswith(f"ExactCheckpoint: resuming after epoch 2, from {folder}\n")
    assert fit(resumed, 1) == [0]

    (folder / "config.json").touch()
    with pytest.raises(TrainingError, match="is a run of the binaries"):
        fit(resumed, 3, ExactCheckpoint(folder))
    other = keras.Sequential([keras.layers.Dense(1)])
    other.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"Use keras\.callbacks\.BackupAndRestore"):
        other.fit(np.ones([2, 2]), np.ones([2, 1]), callbacks=[ExactCheckpoint(folder)], verbose=0)
    with pytest.raises(ValueError, match=r"PictureStrip knows the models of lts\.models"):
        other.fit(np.ones([2, 2]), np.ones([2, 1]), callbacks=[PictureStrip(IMAGES, tmp_path / "x")], verbose=0)
    with pytest.raises(ValueError, match=r"every checkpoint would be removed\. Received: keep=0"):
        ExactCheckpoint(folder, keep=0)
