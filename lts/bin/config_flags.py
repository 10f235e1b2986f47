"""Flags of the configuration: --preset and the fields."""

from typing import Any

from absl import flags

from lts import config as configs
from lts.bin import common, field_flags

FLAGS = flags.FLAGS


def define_config_flags(*sections: str, required: bool = False) -> None:
    """Define --preset and the fields of sections."""
    flags.DEFINE_enum("preset", None, list(configs.PRESETS), "named configuration", required=required)
    common.define_import_flag()
    for section in sections:
        title = section.replace("_", " ").capitalize()
        with field_flags.group(f"{title} configuration"):
            described = [field for _, field in configs.fields_of(section)]
            field_flags.define(described, lambda section=section: getattr(chosen_preset(), section))


def chosen_preset() -> configs.Config:
    """Return the chosen preset, or the release's."""
    return configs.preset(FLAGS.preset or "release")


def overrides(*sections: str) -> dict[str, Any]:
    """Return the configuration fields given as flags."""
    return field_flags.given(field for _, field in configs.fields_of(*sections))


def check_schedule(settings: configs.TrainingConfig) -> None:
    """Refuse --epochs where the number of steps decides, for example that of the preset.

    Raises:
      UsageError: --epochs was given.
    """
    if settings.steps:
        common.refuse(["epochs"], f"steps={settings.steps}, unless --steps=0 is given")
