"""Keras serialisation of objects that are built from configuration dataclasses."""

import dataclasses
import inspect


class ConfigMixin:
    """Keras configuration made of the constructor's arguments.

    A class keeps every argument of its constructor as an attribute of the same name, and needs no `get_config` and
    `from_config`. A configuration dataclass among the arguments becomes a dictionary, and is built again by its type
    annotation (this project).

    Example:
      >>> class Encoder(ConfigMixin, keras.Model):  # the mixin first: it extends Keras' `get_config`
      ...     def __init__(self, config: AutoencoderConfig, name="encoder", **kwargs):
      ...         super().__init__(name=name, **kwargs)
      ...         self.config = config
    """

    def get_config(self):
        config = super().get_config()
        for name in _arguments(type(self)):
            value = getattr(self, name)
            config[name] = dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value
        return config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for name, kind in _arguments(cls).items():
            if name in config and dataclasses.is_dataclass(kind):
                config[name] = _rebuild(kind, config[name])
        return cls(**config)


def _arguments(cls: type) -> dict[str, type]:
    """Return the constructor's named arguments with their annotations."""
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    named = [parameter for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
    # Keras' own `get_config` holds name and dtype.
    return {parameter.name: parameter.annotation for parameter in named if parameter.name not in ("name", "dtype")}


def _rebuild(kind: type, values: dict):
    """Return the dataclass of a dictionary."""
    if hasattr(kind, "from_dict"):
        return kind.from_dict(values)
    # JSON turns tuples into lists.
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
