"""Names of variables that do not depend on what a network is part of."""

import re

import keras


def variables_by_path(item: keras.Model | keras.optimizers.Optimizer) -> dict[str, keras.Variable]:
    """All variables of a built network or optimizer under their path below it.

    Args:
      item: for instance the encoder of a model.

    Returns:
      Dict from path, as "conv_1/kernel" for "autoencoder/encoder/conv_1/kernel", to variable.

    Raises:
      ValueError: two variables have the same path.
    """
    named = {}
    for variable in item.variables:
        path = re.split(rf"(?:^|/){re.escape(item.name)}/", variable.path, maxsplit=1)[-1]
        if path in named:
            raise ValueError(f"two variables have the same path. Received: {variable.path}")
        named[path] = variable
    return named
