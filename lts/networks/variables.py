"""Names of variables, independent of the surrounding model."""

import re

import keras


def variables_by_path(item: keras.Model | keras.optimizers.Optimizer) -> dict[str, keras.Variable]:
    """Return all variables by their path inside an object.

    Args:
      item: a built network or optimizer, such as the encoder of a model.

    Returns:
      Dict from path to variable: "conv_1/kernel" for the encoder's "autoencoder/encoder/conv_1/kernel".

    Raises:
      ValueError: two variables with the same path.
    """
    variables = {}
    for variable in item.variables:
        path = re.split(rf"(?:^|/){re.escape(item.name)}/", variable.path, maxsplit=1)[-1]
        if path in variables:
            raise ValueError(f"two variables have the same path. Received: {variable.path}")
        variables[path] = variable
    return variables
