"""G3: repair network in the frozen decoder; G4, G5: discriminator; G8: the classifier on the backbone."""

import pytest
import tensorflow as tf

from lts.release.checkpoint import release_variables
from tests.golden import recipe

LAYERS = ("conv_1", "conv_2", "conv_3", "conv_4", "conv_5")


@pytest.fixture(scope="module")
def networks(gan, golden):
    """The full-size model with the recipe's variables; passes in training mode begin and end there."""
    recipe.load(release_variables(gan.encoder, gan.decoder, gan.repair, gan.discriminator))
    return gan


@pytest.fixture(scope="module", params=["g4_infer", "g5_train"])
def discriminator_pass(networks, golden, request):
    """(prefix, the discriminator's dict) in inference, and in training mode with the recipe's dropout."""
    images = recipe.images(int(golden["seed"]))
    if request.param == "g4_infer":
        return request.param, networks.discriminator(images)
    out = networks.discriminator(images, training=True, dropout=golden["g5_keep"])
    recipe.load(release_variables(networks.discriminator))
    return request.param, out


@pytest.mark.parametrize("mode", ["infer", "train"])
def test_repair(golden, networks, mode):
    """G3: where the mask enters, which layer it gates, the mask's resize, frozen batch norm of the decoder."""
    features, mask = tf.constant(golden["g3_features"]), tf.constant(golden["mask"])
    out = networks.repair(features, mask, decoder=networks.decoder, training=mode == "train")
    recipe.load(release_variables(networks.repair))
    golden.check(f"g3_{mode}_out", out, recipe.FORWARD_L2, recipe.FORWARD_MAX)


@pytest.mark.parametrize("name", ["logits", "drop_pred"])
def test_predictions(golden, discriminator_pass, name):
    """G4, G5: both heads; dropout's scale."""
    prefix, out = discriminator_pass
    ours = out["logits"] if name == "logits" else tf.reshape(out["mask_logits"], [4, 36])
    golden.check(f"{prefix}_{name}", ours, recipe.FORWARD_L2, recipe.FORWARD_MAX)


@pytest.mark.parametrize("name", [*LAYERS, "fc_1", "fc_2", "drop_pred"])
def test_layers(golden, discriminator_pass, name):
    """G4, G5: padding, groups, pools, LRN, batch norm without gamma, layer by layer.

    The release's entry `drop_pred` holds conv_5's output (golden/README.md), `fc_2` the logits.
    """
    prefix, out = discriminator_pass
    ours = {**out, "drop_pred": out["conv_5"], "fc_2": out["logits"][:, None, None]}[name]
    golden.check(f"{prefix}_layers/{name}", ours, recipe.FORWARD_L2, recipe.FORWARD_MAX)


def test_classifier(golden, networks):
    """G8: the backbone's last layer under a linear map, as transfer learning uses it."""
    features = networks.discriminator.backbone(recipe.images(int(golden["seed"])))["conv_5"]
    weights = recipe.recipe_array("fully_connected/fc1/weights", (6, 6, 256, 10))
    biases = recipe.recipe_array("fully_connected/fc1/biases", (10,))
    logits = tf.nn.conv2d(features, weights, 1, "VALID")[:, 0, 0] + biases
    golden.check("g8_logits", logits, recipe.FORWARD_L2, recipe.FORWARD_MAX)
