"""Configuration of a run. Imports no TensorFlow."""

from lts.config.presets import PRESETS, describe, preset
from lts.config.schema import (
    HEADS,
    NETWORK_SECTIONS,
    NETWORKS,
    SCHEDULES,
    SECTIONS,
    AutoencoderConfig,
    Config,
    DamageConfig,
    DiscriminatorConfig,
    ImageConfig,
    LossConfig,
    TrainingConfig,
    differences,
    field_names,
    fields_of,
)
from lts.utils.errors import ConfigError

__all__ = [
    "HEADS",
    "NETWORKS",
    "NETWORK_SECTIONS",
    "PRESETS",
    "SCHEDULES",
    "SECTIONS",
    "AutoencoderConfig",
    "Config",
    "ConfigError",
    "DamageConfig",
    "DiscriminatorConfig",
    "ImageConfig",
    "LossConfig",
    "TrainingConfig",
    "describe",
    "differences",
    "field_names",
    "fields_of",
    "preset",
]
