"""Presets, JSON, overrides and checks of a configuration."""

import dataclasses
import json

import pytest

from lts.config import PRESETS, Config, ConfigError, ImageConfig, TrainingConfig, differences, fields_of, preset


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name):
    """Fails if a preset is invalid, has another's name, or changes on its way through JSON."""
    config = preset(name)
    assert config.preset == name
    again = Config.from_json(config.to_json())
    assert again == config
    assert type(again.image.crop_area) is tuple
    assert config.mask_grid == config.discriminator_grid
    json.loads(config.to_json())


def test_release_constants():
    """Fails if a constant of the release changes."""
    config = preset("release")
    assert (config.image.image_size, config.mask_grid, config.autoencoder.num_strides) == (96, 6, 4)
    assert config.autoencoder.decoder_filters == (256, 128, 64, 32)
    assert (config.damage.keep_probability, config.damage.damage_fill) == (0.3, "average")
    assert (config.loss.reconstruction_weight, config.loss.mask_weight, config.loss.weight_decay) == (30, 0.1, 5e-5)
    assert (config.loss.generator_loss, config.loss.reconstruct) == ("confusion", "kept")
    for stage in (config.autoencoder_training, config.gan_training):
        assert (stage.beta_1, stage.beta_2, stage.epsilon, stage.learning_rate) == (0.5, 0.999, 1e-5, 3e-4)
        assert (stage.batch_size, stage.epochs, stage.ema_decay, stage.bias_gradient_factor) == (256, 500, 0.9999, 2)


def test_configurations_are_frozen():
    """Fails if a configuration can change after it was recorded."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        preset("release").preset = "mine"
    with pytest.raises(dataclasses.FrozenInstanceError):
        preset("release").image.image_size = 64


def test_unknown_preset_lists_the_known():
    """Fails if the known presets are not listed."""
    with pytest.raises(ConfigError, match=r"'relase'.*release, imagenet, small, tiny"):
        preset("relase")


def test_unknown_field_lists_the_known():
    """Fails if an unknown field is ignored, or the known ones are not listed."""
    with pytest.raises(ConfigError, match=r"'learning_rat'.*Known: .*learning_rate"):
        preset("tiny", learning_rat=1.0)
    with pytest.raises(ConfigError, match=r"image\.'size'. Known: image_size"):
        Config.from_dict({"image": {"size": 96}})
    with pytest.raises(ConfigError, match=r"'images'. Known: preset, image"):
        Config.from_dict({"images": {}})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", "many"),
        ("steps", 1.5),
        ("steps", True),
        ("learning_rate", "fast"),
        ("learning_rate", None),
        ("flip", "yes"),
        ("flip", 1),
        ("precision", 16),
        ("encoder_filters", "8,wide"),
        ("encoder_filters", 8),
        ("crop_area", "0.3;1"),
    ],
)
def test_values_of_a_wrong_type(field, value):
    """Fails if a value of a wrong type is coerced."""
    with pytest.raises(ConfigError, match=f"{field} must be .*Received: {field}="):
        preset("tiny", **{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("keep_probability", 1.2),
        ("damage_fill", "mean"),
        ("dropout_keep", 0.0),
        ("backbone_norm", "group"),
        ("disc_padding", "same"),
        ("generator_loss", "wasserstein"),
        ("reconstruct", "some"),
        ("backbone_filters", (8, 8, 8)),
        ("backbone_groups", (1, 2, 1, 5, 2)),
        ("weight_decay", -1.0),
        ("learning_rate", 0.0),
        ("beta_1", 1.0),
        ("end_lr_fraction", 0.0),
        ("precision", "float16"),
        ("batch_size", 0),
        ("seed", -1),
        ("crop_area", (0.5, 1.5)),
        ("crop_aspect", (1.3, 0.7)),
        ("encoder_filters", (8,)),
        ("image_size", 0),
    ],
)
def test_invalid_values(field, value):
    """Fails if a value outside of its bounds is accepted."""
    with pytest.raises(ConfigError, match=f"{field} .*Received: {field}="):
        preset("tiny", **{field: value})


@pytest.mark.parametrize(("size", "cells"), [(48, 3), (112, 7), (128, 8)])
def test_other_image_sizes(size, cells):
    """Fails if an image size that fits is refused."""
    config = preset("release", image_size=size)
    assert config.mask_grid == config.discriminator_grid == cells


def test_unfit_image_size_names_both_grids():
    """Fails if mask and discriminator grids may differ."""
    with pytest.raises(ConfigError, match=r"mask grid is 6.25x6.25 .*discriminator grid 7x7 .*image_size=100"):
        preset("release", image_size=100)


def test_padding_changes_the_grid():
    """Fails if the padding is ignored: 96 pixels give 4 cells instead of 6."""
    with pytest.raises(ConfigError, match=r"mask grid is 6x6 .*discriminator grid 4x4"):
        preset("release", disc_padding="VALID")


def test_text_of_flags():
    """Fails if the text of a flag stays text, or every text is true."""
    config = preset(
        "tiny", flip="False", steps="12", learning_rate="1e-3", encoder_filters="4,6,8,10", crop_area="0.5,1"
    )
    assert config.image.flip is False
    assert config.autoencoder_training.steps == config.gan_training.steps == 12
    assert config.gan_training.learning_rate == 1e-3
    assert config.autoencoder.encoder_filters == (4, 6, 8, 10)
    assert config.image.crop_area == (0.5, 1.0)


def test_replace_of_one_stage():
    """Fails if an override of one stage changes anything else."""
    before = preset("tiny")
    after = before.replace("gan_training", steps=7)
    assert (after.autoencoder_training, after.gan_training.steps) == (before.autoencoder_training, 7)
    assert after.gan_training == dataclasses.replace(before.gan_training, steps=7)
    assert preset("tiny", "autoencoder_training", steps=7).gan_training == before.gan_training


def test_differences():
    """Fails if a difference is missed, or its sides are exchanged."""
    before = preset("tiny")
    assert differences(before, before) == []
    after = before.replace("gan_training", steps=7).replace(flip=False)
    assert differences(before, after) == [
        "image.flip: True -> False",
        f"gan_training.steps: {before.gan_training.steps} -> 7",
    ]


@pytest.mark.parametrize(
    ("change", "networks"),
    [
        ({"encoder_kernel": 3}, {"autoencoder", "frozen_autoencoder"}),
        ({"bn_decay": 0.5}, {"autoencoder"}),
        ({"bn_epsilon": 0.5}, {"autoencoder", "frozen_autoencoder", "backbone"}),
        ({"backbone_norm": "lrn"}, {"backbone"}),
        ({"fc_units": 8}, {"discriminator"}),
        ({"flip": False, "weight_decay": 0.0, "steps": 7}, set()),
    ],
)
def test_fields_define_networks(change, networks):
    """Fails if a field that defines a network may change, or another one may not."""
    before = preset("tiny")
    after = before.replace(**change)
    for network in ("autoencoder", "frozen_autoencoder", "backbone", "discriminator"):
        assert bool(differences(before, after, network)) == (network in networks), network


def test_every_field_has_a_default_of_its_type():
    """Fails if a field has a type that cannot be cast."""
    for section, field in fields_of("image", "autoencoder", "damage", "discriminator", "loss", "autoencoder_training"):
        kind = field.type if isinstance(field.type, type) else tuple
        assert isinstance(field.default, kind), f"{section}.{field.name}"


def test_sections_by_themselves():
    """Fails if the defaults of a section are not the release's."""
    assert Config().image == ImageConfig()
    assert Config().gan_training == TrainingConfig()
