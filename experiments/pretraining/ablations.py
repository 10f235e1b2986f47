"""Ablations: what changes when one value of the configuration does. What `experiments.ablate` runs."""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.pretraining.pipeline import Pipeline, train_stage
from lts.config import Config, ConfigError, differences, fields_of
from lts.utils.errors import UserError

BASE = "base"
# Name to what differs from the base: one field of the configuration each. A field of a stage alone is one of stage 2,
# unless it is written as autoencoder_training.FIELD.
ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    "keep_0.1": {"keep_probability": 0.1},
    "keep_0.5": {"keep_probability": 0.5},
    "keep_0.7": {"keep_probability": 0.7},
    "keep_0.9": {"keep_probability": 0.9},
    "no_mask_head": {"mask_weight": 0.0},
    "no_repair": {"repair": False},
    "zero_fill": {"damage_fill": "zero"},
    "release_loss": {"generator_loss": "confusion"},
    "reconstruct_all": {"reconstruct": "all"},
    "reconstruct_dropped": {"reconstruct": "dropped"},
    "real_source": {"real_source": "image"},
    "encoder_3x3": {"encoder_kernel": 3},
}
EARLY = "autoencoder_training."  # what a field's name begins with that is stage 1's


class VariantError(UserError):
    """Variants that cannot be."""

    exit_status = 2


@dataclasses.dataclass(frozen=True)
class Variant:
    """One run of stage 2.

    Attributes:
      name: of its folder.
      overrides: field to value, as in `ABLATIONS`; empty for the base.
      config: of stage 2.
      autoencoder: configuration of its own stage 1, or None: it shares the base's.
    """

    name: str
    overrides: Mapping[str, Any]
    config: Config
    autoencoder: Config | None = None

    @property
    def label(self) -> str:
        """The name with what it changes, for messages and records of what is done."""
        changed = ", ".join(f"{field}={value}" for field, value in self.overrides.items())
        return f"{self.name} ({changed})" if changed else self.name


def variant(name: str, overrides: Mapping[str, Any], base: Config, autoencoder_training: Config) -> Variant:
    """A variant of the base.

    Args:
      name: of its folder.
      overrides: field to value, as in `ABLATIONS`.
      base: configuration that it changes.
      autoencoder_training: configuration of the base's autoencoder.

    Raises:
      ConfigError: a field that is not known, or a value that is not valid.
    """
    early = {key.removeprefix(EARLY): value for key, value in overrides.items() if key.startswith(EARLY)}
    late = {key: value for key, value in overrides.items() if not key.startswith(EARLY)}
    not_of_stages = [key for key in early if key not in {field.name for _, field in fields_of("autoencoder_training")}]
    if not_of_stages:
        raise ConfigError(f"{EARLY}{not_of_stages[0]} is no field of a stage: write it without {EARLY!r}")
    config = base.replace("gan_training", **late).replace("autoencoder_training", **early)
    same_schedule = config.autoencoder_training == base.autoencoder_training
    own = not same_schedule or bool(differences(base, config, "autoencoder"))
    return Variant(
        name,
        overrides,
        config,
        dataclasses.replace(config, gan_training=autoencoder_training.gan_training) if own else None,
    )


def parse(text: str) -> tuple[str, dict[str, str]]:
    """Name and overrides of "name:field=value[,field=value]"; a value may hold commas itself.

    Raises:
      VariantError: anything else.

    Example:
      >>> parse("narrow:encoder_filters=8,16,32,64,autoencoder_training.steps=500")
      ('narrow', {'encoder_filters': '8,16,32,64', 'autoencoder_training.steps': '500'})
    """
    name, _, rest = text.partition(":")
    if not name or name in (".", "..", "autoencoder", BASE) or "/" in name or name in ABLATIONS:
        raise VariantError(f"a variant needs a name of its own that can be a folder's. Received: {text!r}")
    return name, parse_fields(rest, text)


def parse_fields(text: str, whole: str = "") -> dict[str, str]:
    """Field to value of "field=value[,field=value]"; `whole` is what messages show."""
    pieces: list[str] = []
    for piece in text.split(","):
        if "=" in piece or not pieces:
            pieces.append(piece)
        else:
            pieces[-1] += f",{piece}"  # a list
    pairs = [piece.split("=", 1) for piece in pieces]
    if not all(len(pair) == 2 and all(pair) for pair in pairs):
        raise VariantError(f"write field=value[,field=value]. Received: {whole or text!r}")
    return dict(pairs)


def choose(
    only: Iterable[str], own: Mapping[str, Mapping[str, Any]], base: Config, autoencoder_training: Config
) -> list[Variant]:
    """The base and the variants to run.

    Args:
      only: names; empty: all of the table that differ from the base, and all own ones.
      own: user-defined variants, as `ABLATIONS`.
      base, autoencoder_training: see `variant`.

    Returns:
      Variants, the base first.

    Raises:
      VariantError: a name that is not known, or a variant that is the base.
      ConfigError: a field that is not known, or a value that is not valid.
    """
    known, only = {**ABLATIONS, **own}, [name for name in only if name != BASE]
    unknown = [name for name in only if name not in known]
    if unknown:
        raise VariantError(f"there is no ablation {unknown[0]!r}; known: {', '.join([BASE, *known])}")
    chosen = [Variant(BASE, {}, base)]
    for name in dict.fromkeys(only or known):
        one = variant(name, known[name], base, autoencoder_training)
        if differences(base, one.config):
            chosen.append(one)
        elif name in only or name in own:
            raise VariantError(f"{one.label} is the base: it changes nothing")
        else:
            print(f"{one.label} is left out: the base has it", flush=True)
    return chosen


def pretrain(variants: Sequence[Variant], autoencoder_training: Config, source: Any, output: str | os.PathLike) -> None:
    """Trains and exports every variant; what is done is not done again.

    OUTPUT/autoencoder is the shared stage 1, OUTPUT/NAME/gan a variant's stage 2, OUTPUT/NAME/features its export,
    OUTPUT/NAME/autoencoder its own stage 1 where it has one.

    Args:
      variants: of `choose`.
      autoencoder_training: configuration of the shared autoencoder.
      source: the images.
      output: folder of the run.

    Raises:
      UserError: the folder holds another run; see also `lts.training.train`.
    """
    from lts import training

    output = pathlib.Path(output)
    stages = Pipeline(output / "stages.json", variants[0].config, {"dataset": source.name, "split": source.split})
    stages.run("autoencoder", lambda: train_stage(autoencoder_training, "autoencoder", source, output / "autoencoder"))
    for one in variants:
        folder, autoencoder = output / one.name, output / "autoencoder"
        if one.autoencoder is not None:
            autoencoder = folder / "autoencoder"
            stages.run(
                f"{one.label}: autoencoder",
                lambda one=one, folder=autoencoder: train_stage(one.autoencoder, "autoencoder", source, folder),
            )
        stages.run(
            f"{one.label}: gan",
            lambda one=one, folder=folder, autoencoder=autoencoder: train_stage(
                one.config, "gan", source, folder / "gan", autoencoder=autoencoder
            ),
        )
        stages.run(
            f"{one.label}: export",
            lambda folder=folder: training.export_run(folder / "gan", folder / "features", source=source),
        )


def probe(
    variants: Sequence[Variant], source: Any, train: Any, validation: Any, protocol: Any, output: str | os.PathLike
) -> dict[str, Any]:
    """Probes what `pretrain` exported and compares it with the base.

    Args:
      variants: of `choose`.
      source: images of pre-training.
      train, validation: labelled sources.
      protocol: of `experiments.probing.protocols`.
      output: folder of the run.

    Returns:
      What results.json holds: "kind", "protocol", "dataset" (its "test" is the validation images), "pretraining",
      "layers"; "base" and by name "variants": path, fingerprint, description, seconds of training by stage, and by
      layer the record; of variants "changed" (section.field: old -> new) and by layer the paired "difference" too.
    """
    from experiments.probing import run as probe_run
    from lts.export import saved_model

    output = pathlib.Path(output)
    models = (saved_model.load(output / one.name / "features") for one in variants)
    entries = probe_run.run_each(models, train, validation, protocol, output)
    base, records = entries[0]
    found = {}
    for one, (entry, own) in zip(variants, entries, strict=True):
        found[one.name] = {
            **entry,
            "path": f"{one.name}/features",
            "changed": differences(variants[0].config, one.config),
            "difference": probe_run.paired_difference(own, [records], protocol)[1],
        }
    base = {key: value for key, value in found.pop(BASE).items() if key not in ("changed", "difference")}
    return {
        "kind": "ablate",
        **probe_run.describe_run(protocol, train, validation, source),
        "layers": list(base["layers"]),
        "base": base,
        "variants": found,
    }
