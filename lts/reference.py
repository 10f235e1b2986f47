"""Names of the authors' public TensorFlow 1 release, and our variables under them.

The release's program calls its networks encoder, decoder, generator and
discriminator and its variables weights, biases, BatchNorm/...; BUILD_NOTES trap
16 has the irregular ones. This map serves the golden tests and the reader of
the release's checkpoints.
"""

import keras

from lts.networks.naming import variables_by_path

_LEAVES = {"kernel": "weights", "bias": "biases"}


def release_name(path: str, num_strides: int) -> str:
    """The release's name of a variable of ours.

    Args:
      path: Keras path from the network on, as "repair/repair_0/conv_1/kernel".
      num_strides: stride-2 layers of the encoder; the decoder's last two names hang on it.

    Returns:
      The name without ":0", as "generator/repair_0/conv1/weights".
    """
    network, *scopes, leaf = path.split("/")
    if scopes and scopes[0] == "trunk":
        scopes = scopes[1:]
    if network == "decoder":
        last = f"deconv_{num_strides - 1}"
        scopes[0] = {last: f"deconv_{num_strides}", "to_image": f"deconv_{num_strides + 1}"}.get(scopes[0], scopes[0])
    if network == "repair":
        network = "generator"
        scopes[1] = scopes[1].replace("_", "")
    scopes = [{"batch_norm": "BatchNorm", "mask_head": "drop_pred"}.get(scope, scope) for scope in scopes]
    return "/".join([network, *scopes, _LEAVES.get(leaf, leaf)])


def release_variables(*networks: keras.Model, num_strides: int = 4) -> dict[str, keras.Variable]:
    """All variables of built networks of ours (encoder, decoder, repair, discriminator) under the release's names.

    Args:
      *networks: built networks of `lts.networks`.
      num_strides: stride-2 layers of the encoder, 4 in the release.

    Returns:
      Dict from release name, without ":0", to variable. Shapes are the same as the release's.
    """
    names = {}
    for network in networks:
        for path, variable in variables_by_path(network).items():
            names[release_name(f"{network.name}/{path}", num_strides)] = variable
    return names
