"""Checks of the settings of Keras that networks depend on."""

import keras

# Variables are float32 under every policy.
POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")


def check_policy(policy: keras.DTypePolicy) -> None:
    """Check the precision of a network.

    Raises:
      ValueError: the policy computes in float64, or keeps weights in 16 bits.
    """
    if policy.name not in POLICIES:
        raise ValueError(
            f"dtype must be {', '.join(POLICIES)}. Received: dtype={policy.name!r}. Give dtype, or check "
            "the global policy and floatx of Keras."
        )


def check_data_format() -> None:
    """Check that Keras' layers expect channels last.

    Raises:
      ValueError: they expect channels first.
    """
    data_format = keras.config.image_data_format()
    if data_format != "channels_last":
        raise ValueError(
            f"the layers of this model are channels-last. Received: image_data_format={data_format!r}. Call "
            "keras.config.set_image_data_format('channels_last')."
        )
