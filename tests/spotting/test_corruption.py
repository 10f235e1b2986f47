"""The damage is the run's own: its networks, its share of kept cells, and the seed's masks whatever the batch."""

import numpy as np
import pytest
import tensorflow as tf

from lts import data
from lts.config import ConfigError
from lts.spotting import Corruption
from lts.training import TrainingError, run_dir
from lts.training.train import build_model
from tests.fixtures.spotting import write_run


def views(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3)).astype(np.uint8)


def test_masks_depend_on_seed_and_place_alone(world):
    damager = Corruption(world.gan)
    masks = damager.keep(3, 0, 400)
    np.testing.assert_array_equal(masks[7:9], damager.keep(3, 7, 2))
    assert (masks != damager.keep(4, 0, 400)).any()
    assert masks.mean() == pytest.approx(0.3, abs=0.03)
    assert set(np.unique(masks)) == {0, 1}
    assert Corruption(world.gan, 0.9).keep(3, 0, 400).mean() == pytest.approx(0.9, abs=0.03)


def test_where_all_is_kept_nothing_is_damaged(world):
    made = Corruption(world.gan)(views(2), np.ones([2, 2, 2, 1], np.float32))
    np.testing.assert_array_equal(made["damaged"], made["reconstruction"])
    assert all(images.dtype == tf.uint8 and images.shape == [2, 16, 16, 3] for images in made.values())


def test_the_images_are_those_of_the_run(world):
    """As its own picture strip makes them, rounded to bytes."""
    damager = Corruption(world.gan)
    model = build_model(damager.config, "gan")
    run_dir.restore_networks(world.gan, encoder=model.encoder, decoder=model.decoder, repair=model.repair)
    keep, _ = model.draw(0, 3)
    expected = model.pictures(tf.cast(views(3), tf.float32) / 127.5 - 1)
    made = damager(views(3), keep.numpy())
    for name, images in made.items():
        difference = np.abs(images.numpy().astype(int) - data.as_bytes(expected[name]).numpy())
        assert difference.max() <= 1, name
    assert np.abs(made["repaired"].numpy().astype(int) - made["damaged"].numpy()).max() > 1


def test_a_run_without_repair_has_damage_alone(tmp_path):
    damager = Corruption(write_run(tmp_path / "gan", "gan", repair="false"))
    assert damager(views(1), damager.keep(1, 0, 1)).keys() == {"reconstruction", "repaired"}


def test_what_cannot_damage_is_one_line(world, tmp_path):
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
