"""The release's names of variables."""

import pytest
import tensorflow as tf

from lts.config import preset
from lts.models.gan import DamageRepairGAN
from lts.release.checkpoint import CheckpointError, ReleaseCheckpoint, release_name, release_variables


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("encoder/conv_0/kernel", "encoder/conv_0/weights"),
        ("encoder/conv_4/batch_norm/moving_variance", "encoder/conv_4/BatchNorm/moving_variance"),
        ("decoder/deconv_2/batch_norm/gamma", "decoder/deconv_2/BatchNorm/gamma"),
        ("decoder/deconv_3/kernel", "decoder/deconv_4/weights"),
        ("decoder/to_image/bias", "decoder/deconv_5/biases"),
        ("repair/repair_4/conv_1/kernel", "generator/repair_4/conv1/weights"),
        ("repair/repair_0/conv_2/bias", "generator/repair_0/conv2/biases"),
        ("discriminator/trunk/conv_1/bias", "discriminator/conv_1/biases"),
        ("discriminator/trunk/conv_5/conv_1/batch_norm/beta", "discriminator/conv_5/conv_1/BatchNorm/beta"),
        ("discriminator/mask_head/kernel", "discriminator/drop_pred/weights"),
        ("discriminator/fc_1/batch_norm/moving_mean", "discriminator/fc_1/BatchNorm/moving_mean"),
    ],
)
def test_names(ours, theirs):
    """Fails at an irregular name (trap 16): no deconv_3; groups are conv_k/conv_0 and conv_k/conv_1."""
    assert release_name(ours, num_strides=4) == theirs


def test_names_are_unique():
    """Fails if two variables share a name, or one has none."""
    model = DamageRepairGAN(preset("tiny", encoder_filters="4,6,8,10", backbone_norm="lrn"))
    model.build((None, 48, 48, 3))
    networks = model.encoder, model.decoder, model.repair, model.discriminator
    names = release_variables(*networks, num_strides=3)
    assert len(names) == len(model.variables) == sum(len(network.variables) for network in networks)
    assert {name.split("/")[0] for name in names} == {"encoder", "decoder", "generator", "discriminator"}
    assert names["decoder/deconv_3/weights"] is model.decoder.blocks[2].kernel


def test_networks_by_themselves():
    """Fails if a name depends on the model around the network."""
    encoder = DamageRepairGAN(preset("tiny")).encoder
    assert release_variables(encoder)["encoder/conv_0/weights"] is encoder.blocks[0].kernel


@pytest.mark.parametrize("given", ["", "model.ckpt-2", "model.ckpt-2.index"])
def test_folder_that_is_a_pattern(tmp_path, given):
    """Fails if a checkpoint is not found, or read only in part, whose path TensorFlow takes for a pattern."""
    folder = tmp_path / "release [1]"
    folder.mkdir()
    tf.raw_ops.SaveV2(
        prefix=str(folder / "model.ckpt-2"),
        tensor_names=["a"],
        shape_and_slices=[""],
        tensors=[tf.constant([1.0, 2.0])],
    )
    (folder / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-2"\n')
    checkpoint = ReleaseCheckpoint(folder / given)
    assert (checkpoint.name, checkpoint.shapes) == ("model.ckpt-2", {"a": (2,)})
    assert checkpoint.read("a").tolist() == [1.0, 2.0]
    with pytest.raises(CheckpointError, match=r"release \[1\]"):
        ReleaseCheckpoint(folder / "model.ckpt-3")
