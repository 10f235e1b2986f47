"""Corruption by the networks of a run."""

import numpy as np
import pytest
import tensorflow as tf

from lts import data
from lts.config import ConfigError
from lts.spotting import Corruption
from lts.training import TrainingError, run_dir
from lts.training.train import build_model
from tests.fixtures.spotting import write_run

SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def corruption(world):
    return Corruption(world.gan)


def random_views(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3)).astype(np.uint8)


def test_masks_depend_on_seed_and_number_alone(world, corruption):
    """Fails if a mask depends on the batch, or cells are kept with another probability."""
    masks, _ = corruption.draw(3, 0, 400)
    np.testing.assert_array_equal(masks[7:9], corruption.draw(3, 7, 2)[0])
    assert (masks != corruption.draw(4, 0, 400)[0]).any()
    assert masks.mean() == pytest.approx(0.3, abs=0.03)
    assert set(np.unique(masks)) == {0, 1}
    assert Corruption(world.gan, 0.9).draw(3, 0, 400)[0].mean() == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize("name", ["block_drop", "cell_drop"])
def test_exact_masks(name, tmp_path):
    """Fails if a number of dropped cells is not exact, or the order is not that of the run's corruption."""
    corruption = Corruption(write_run(tmp_path / "gan", "gan", corruption=name, image_size="32"))
    drawn, uniform = corruption.draw(3, 5, 20)  # 4 x 4 cells
    masks = corruption.exact_masks(uniform, range(17))
    assert (masks.shape, masks.dtype) == ((17, 20, 4, 4, 1), np.float32)
    for number, mask in enumerate(masks):
        np.testing.assert_array_equal((mask == 0).sum((1, 2, 3)), number)
    assert (np.diff(masks, axis=0) <= 0).all()  # nested
    for image, mask in enumerate(drawn):
        np.testing.assert_array_equal(masks[int((mask == 0).sum()), image], mask)


def test_nothing_dropped(corruption):
    """Fails if an image is damaged although every cell is kept, or repaired images alone are others than among all."""
    arguments = (random_views(2), np.ones([2, 2, 2, 1], np.float32), np.zeros([2, 2, 2, 1], np.float32))
    images = corruption(*arguments)
    np.testing.assert_array_equal(images["damaged"], images["reconstruction"])
    np.testing.assert_array_equal(corruption.repaired(*arguments), images["repaired"])
    for kind in images.values():
        assert kind.dtype == tf.uint8
        assert kind.shape == [2, 16, 16, 3]


@pytest.mark.parametrize("name", ["block_drop", "channel_drop", "cell_swap", pytest.param("cell_drop", marks=SLOW)])
def test_images_are_those_of_the_run(name, tmp_path):
    """Fails if they differ from the picture strip of training by more than the rounding to bytes, in any corruption."""
    workdir = write_run(tmp_path / "gan", "gan", corruption=name)
    corruption = Corruption(workdir)
    model = build_model(corruption.config, "gan")
    run_dir.restore_networks(workdir, encoder=model.encoder, decoder=model.decoder, repair=model.repair)
    keep_mask, _, uniform = model.draw(0, 4)
    expected = model.pictures(tf.cast(random_views(4), tf.float32) / 127.5 - 1)
    images = corruption(random_views(4), keep_mask.numpy(), uniform.numpy())
    for kind, values in images.items():
        difference = np.abs(values.numpy().astype(int) - data.as_bytes(expected[kind]).numpy())
        assert difference.max() <= 1, kind
    assert np.abs(images["repaired"].numpy().astype(int) - images["damaged"].numpy()).max() > 1
    masks, numbers = corruption.draw(3, 5, 50)
    np.testing.assert_array_equal(masks, model.corruption.draw(numbers, 2))  # drawn as in training


def test_a_run_without_repair(tmp_path):
    """Fails if its repaired images, which are damaged alone, are listed twice."""
    corruption = Corruption(write_run(tmp_path / "gan", "gan", repair="false"))
    assert corruption(random_views(1), *corruption.draw(1, 0, 1)).keys() == {"reconstruction", "repaired"}


def test_invalid_runs(world, tmp_path):
    """Fails if a run that cannot damage images is not one line."""
    with pytest.raises(TrainingError, match="stage 'autoencoder': only train_gan repairs"):
        Corruption(world.autoencoder)
    with pytest.raises(TrainingError, match="holds no run"):
        Corruption(tmp_path)
    (tmp_path / "gan").mkdir()
    (tmp_path / "gan" / "config.json").write_text((world.gan / "config.json").read_text())
    with pytest.raises(TrainingError, match="no checkpoint yet"):
        Corruption(tmp_path / "gan")
    with pytest.raises(ConfigError, match="keep_probability"):
        Corruption(world.gan, 1.5)
