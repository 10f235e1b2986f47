"""Checkpoints that the release's own program wrote, read by the binary, against the activations recorded with it."""

import numpy as np
import pytest
import tensorflow as tf

from lts.release.checkpoint import release_variables
from lts.training import run_dir
from tests.fixtures.runs import newest, run
from tests.golden import recipe


def imported(name: str, output) -> tuple:
    """(workdir, what was printed) of an import of the checkpoint in the golden folder `name`."""
    if not (recipe.FOLDER / name).exists():
        pytest.skip(f"no golden files: LTS_GOLDEN is {recipe.FOLDER}")
    done = run("lts.bin.import_checkpoint", f"--checkpoint={recipe.FOLDER / name}", f"--output={output}")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return output, done.stdout


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    return imported("ckpt_autoencoder", tmp_path_factory.mktemp("import") / "ae")


@pytest.fixture(scope="module")
def discriminator(tmp_path_factory):
    return imported("ckpt_discriminator", tmp_path_factory.mktemp("import") / "gan")


@pytest.fixture(scope="module")
def expected():
    """What the release's program made of its autoencoder's checkpoint."""
    return recipe.Golden(recipe.FOLDER / "ckpt_autoencoder_expected.npz")


def test_autoencoder_is_taken_whole(autoencoder):
    """All 137 tensors find a place: 47 variables, two moments and an average of each of 29, step and powers."""
    out = autoencoder[1]
    assert "47 variables, 2,270,659 parameters" in out
    assert "of 29 and the moving averages of 29 of the 29" in out
    assert "global_step beta1_power beta2_power: step 3" in out
    assert "missing: nothing\nleft over: nothing" in out


def test_autoencoder_activations(autoencoder, expected, gan):
    """Features and reconstruction through the workdir that the binary wrote."""
    assert run_dir.restore_networks(autoencoder[0], encoder=gan.encoder, decoder=gan.decoder) == 3
    features = gan.encoder(tf.constant(recipe.images(11)))
    expected.check("enc", features, recipe.FORWARD_L2, recipe.FORWARD_MAX)
    expected.check("rec", gan.decoder(features), recipe.FORWARD_L2, recipe.FORWARD_MAX)


def test_autoencoder_variables(autoencoder, expected, gan):
    """Bit by bit, where the release's program noted them."""
    run_dir.restore_networks(autoencoder[0], encoder=gan.encoder, decoder=gan.decoder)
    variables = release_variables(gan.encoder, gan.decoder)
    names = expected.under("var/")
    assert len(names) > 30
    for name in names:
        np.testing.assert_array_equal(variables[name].numpy(), expected[f"var/{name}"], err_msg=name)


def test_autoencoder_state(autoencoder):
    """Slots of three steps, in our optimizer's names: under other weights they would have other shapes or values."""
    reader = tf.train.load_checkpoint(str(recipe.FOLDER / "ckpt_autoencoder" / "model.ckpt-2"))
    values = newest(autoencoder[0])
    for ours, theirs in (
        ("encoder_conv_3_batch_norm_gamma", "encoder/conv_3/BatchNorm/gamma"),
        ("decoder_deconv_3_kernel", "decoder/deconv_4/weights"),
        ("decoder_to_image_bias", "decoder/deconv_5/biases"),
    ):
        for slot, suffix in (("momentum", "Adam"), ("velocity", "Adam_1"), ("average", "ExponentialMovingAverage")):
            value = values[f"optimizer/autoencoder_{ours}_{slot}"]
            np.testing.assert_array_equal(value, reader.get_tensor(f"{theirs}/{suffix}"), err_msg=f"{ours} {slot}")
    assert int(values["optimizer/iteration"]) == 3


def test_averaged_autoencoder(autoencoder, tmp_path):
    """--weights=averaged on the release's own averages."""
    output = tmp_path / "averaged"
    flags = (f"--checkpoint={recipe.FOLDER / 'ckpt_autoencoder'}", f"--output={output}", "--weights=averaged")
    done = run("lts.bin.import_checkpoint", *flags)
    assert done.returncode == 0, done.stderr
    raw, averaged = newest(autoencoder[0]), newest(output)
    for name in ("encoder/conv_2/kernel", "decoder/to_image/bias"):
        average = raw[f"optimizer/autoencoder_{name.replace('/', '_')}_average"]
        np.testing.assert_array_equal(averaged[name], average, err_msg=name)
        assert not np.array_equal(averaged[name], raw[name])


def test_discriminator_report(discriminator):
    """What the checkpoint does not hold is named."""
    missing = discriminator[1].split("missing:")[1]
    assert "22 variables taken, 88 missing, 0 left over; at step 0" in discriminator[1]
    for name in ("discriminator/fc_1/weights", "discriminator/fc_2/biases", "generator/repair_4/conv2/biases"):
        assert f"  {name} " in missing


def test_discriminator_activations(discriminator, golden, gan):
    """G4 through the workdir that the binary wrote: backbone and mask head in inference."""
    for variable in gan.discriminator.variables:
        variable.assign(tf.zeros(variable.shape))
    run_dir.restore_networks(discriminator[0], discriminator=gan.discriminator)
    out = gan.discriminator(recipe.images(int(golden["seed"])))
    for name in ("conv_1", "conv_2", "conv_3", "conv_4", "conv_5"):
        golden.check(f"g4_infer_layers/{name}", out[name], recipe.FORWARD_L2, recipe.FORWARD_MAX)
    predicted = tf.reshape(out["mask_logits"], [4, 36])
    golden.check("g4_infer_drop_pred", predicted, recipe.FORWARD_L2, recipe.FORWARD_MAX)
