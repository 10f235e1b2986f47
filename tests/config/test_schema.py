"""Configuration: JSON, presets, casting, and errors that name the field."""

import dataclasses
import json

import pytest

from lts.config import PRESETS, Config, ConfigError, ImageConfig, TrainingConfig, differences, fields_of, preset


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name):
    """A preset that is not valid, carries another's name, or does not come back from JSON."""
    config = preset(name)
    assert config.preset == name
    again = Config.from_json(config.to_json())
    assert again == config
    assert type(again.image.crop_area) is tuple
    assert config.mask_grid == config.discriminator_grid
    json.loads(config.to_json())


def test_release_constants():
    """The release's numbers."""
    config = preset("release")
    assert (config.image.image_size, config.mask_grid, config.autoencoder.num_strides) == (96, 6, 4)
    assert config.autoencoder.decoder_filters == (256, 128, 64, 32)
    assert (config.damage.keep_probability, config.damage.damage_fill) == (0.3, "average")
    assert (config.loss.reconstruction_weight, config.loss.mask_weight, config.loss.weight_decay) == (30, 0.1, 5e-5)
    assert (config.loss.generator_loss, config.loss.reconstruct) == ("confusion", "kept")
    for stage in (config.autoencoder_training, config.gan_training):
        assert (stage.beta_1, stage.beta_2, stage.epsilon, stage.learning_rate) == (0.5, 0.999, 1e-5, 3e-4)
        assert (stage.batch_size, stage.epochs, stage.ema_decay, stage.bias_gradient_factor) == (
            256,
            500,
            0.9999,
            2,
        )


def test_configurations_are_frozen():
    """A run whose numbers change after they were written down."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        preset("release").preset = "mine"
    with pytest.raises(dataclasses.FrozenInstanceError):
        preset("release").image.image_size = 64


def test_unknown_preset_lists_the_known():
    """A typing error that has to be looked up in the code."""
    with pytest.raises(ConfigError, match=r"'relase'.*release, imagenet, small, tiny"):
        preset("relase")


def test_unknown_field_lists_the_known():
    """An override that is dropped in silence."""
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
    """A value that Python would coerce, or that fails later and elsewhere."""
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
def test_values_that_cannot_be(field, value):
    """A number out of its range."""
    with pytest.raises(ConfigError, match=f"{field} .*Received: {field}="):
        preset("tiny", **{field: value})


@pytest.mark.parametrize(("size", "cells"), [(48, 3), (112, 7), (128, 8)])
def test_other_image_sizes(size, cells):
    """Sizes that fit and are refused."""
    config = preset("release", image_size=size)
    assert config.mask_grid == config.discriminator_grid == cells


def test_image_size_that_does_not_fit_names_both_grids():
    """Mask and discriminator grids that differ: labels without cells."""
    with pytest.raises(ConfigError, match=r"mask grid is 6.25x6.25 .*discriminator grid 7x7 .*image_size=100"):
        preset("release", image_size=100)


def test_padding_changes_the_grid():
    """VALID padding: 96 pixels become 4 cells, which do not fit the mask's 6."""
    with pytest.raises(ConfigError, match=r"mask grid is 6x6 .*discriminator grid 4x4"):
        preset("release", disc_padding="VALID")


def test_text_of_flags():
    """Text that stays text, or true for every text."""
    config = preset(
        "tiny", flip="False", steps="12", learning_rate="1e-3", encoder_filters="4,6,8,10", crop_area="0.5,1"
    )
    assert config.image.flip is False
    assert config.autoencoder_training.steps == config.gan_training.steps == 12
    assert config.gan_training.learning_rate == 1e-3
    assert config.autoencoder.encoder_filters == (4, 6, 8, 10)
    assert config.image.crop_area == (0.5, 1.0)


def test_replace_of_one_stage():
    """An override that reaches both stages, or the stages' other fields."""
    before = preset("tiny")
    after = before.replace("gan_training", steps=7)
    assert (after.autoencoder_training, after.gan_training.steps) == (before.autoencoder_training, 7)
    assert after.gan_training == dataclasses.replace(before.gan_training, steps=7)
    assert preset("tiny", "autoencoder_training", steps=7).gan_training == before.gan_training


def test_differences():
    """A difference that is not reported, or its sides exchanged."""
    before = preset("tiny")
    assert differences(before, before) == []
    after = before.replace("gan_training", steps=7).replace(flip=False)
    assert differences(before, after) == [
        "image.flip: True -> False",
        f"gan_training.steps: {before.gan_training.steps} -> 7",
    ]


def test_every_field_has_a_default_of_its_type():
    """A field that the casting does not know."""
    for section, field in fields_of("image", "autoencoder", "damage", "discriminator", "loss", "autoencoder_training"):
        kind = field.type if isinstance(field.type, type) else tuple
        assert isinstance(field.default, kind), f"{section}.{field.name}"


def test_sections_by_themselves():
    """Defaults of the sections other than the release's."""
    assert Config().image == ImageConfig()
    assert Config().gan_training == TrainingConfig()
