"""Variants of the method for `experiments.ablate`.

Each changes one value of the configuration.
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.pretraining.pipeline import Pipeline, train_stage
from lts.config import Config, ConfigError, differences, fields_of
from lts.config.fields import CheckedFields, field
from lts.utils.errors import UserError

BASE = "base"
# Name to the fields that differ from the base. A field of both stages belongs to gan_training here, unless it is
# written as autoencoder_training.FIELD. The questions are those of the paper's method (section 3) and of the release.
ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    # How much of an image must be destroyed for artifacts that teach something?
    "keep_0.1": {"keep_probability": 0.1},
    "keep_0.5": {"keep_probability": 0.5},
    "keep_0.7": {"keep_probability": 0.7},
    "keep_0.9": {"keep_probability": 0.9},
    # Must the discriminator also say where the artifacts are?
    "no_mask_head": {"mask_weight": 0.0},
    # Is damage without repair too easy to spot?
    "no_repair": {"repair": False},
    # Should dropped cells hold the average of their neighbours, or zeros?
    "zero_fill": {"damage_fill": "zero"},
    # Or the average of the image (in the release, where nothing uses it)?
    "global_average_fill": {"damage_fill": "global_average"},
    # Must the damage be independent cells, or do larger holes teach more?
    "block_drop": {"corruption": "block_drop"},
    # Is a cell that loses half of its channels harder to spot?
    "channel_drop": {"corruption": "channel_drop"},
    # Do features that are plausible, but at the wrong place, teach something else?
    "cell_shuffle": {"corruption": "cell_shuffle"},
    "cell_swap": {"corruption": "cell_swap"},
    # Does the generator's loss of the release differ from the usual one?
    "release_loss": {"generator_loss": "confusion"},
    # Which cells should the repair network reconstruct?
    "reconstruct_all": {"reconstruct": "all"},
    "reconstruct_dropped": {"reconstruct": "dropped"},
    # Should "real" be the autoencoder's reconstruction, so that its own artifacts give nothing away, or the photograph?
    "real_source": {"real_source": "image"},
    # Should the encoder's cells see no pixels of their neighbours?
    "encoder_3x3": {"encoder_kernel": 3},
}
AUTOENCODER_PREFIX = "autoencoder_training."
FILES = ("lock", "partial.json", "results.json", "results.md", "results.png", "stages.json")  # next to the variants


@dataclasses.dataclass(frozen=True)
class Repetitions(CheckedFields):
    """How often everything is trained."""

    seeds: tuple[int, ...] = field(
        (),
        "seeds of pre-training: everything is trained once with each, and the means are reported; none: --seed alone",
        minimum=0,
        below=2**30,
        distinct=True,
    )


class VariantError(UserError):
    """Invalid variants."""

    exit_status = 2


@dataclasses.dataclass(frozen=True)
class Variant:
    """One training of damage and repair."""

    name: str  # of its folder
    overrides: Mapping[str, Any]  # field to value, as in ABLATIONS; empty for the base
    config: Config  # of the training
    autoencoder: Config | None = None  # configuration of its autoencoder; None: the base's

    @property
    def label(self) -> str:
        """Name and changes, for messages and stages.json."""
        changed = ", ".join(f"{field}={value}" for field, value in self.overrides.items())
        return f"{self.name} ({changed})" if changed else self.name


def make_variant(name: str, overrides: Mapping[str, Any], base: Config, autoencoder_training: Config) -> Variant:
    """Return a variant of the base, see `choose`."""
    # Split the overrides by stage: the same field names occur in both.
    schedule_fields = {field.name for _, field in fields_of("autoencoder_training")}
    autoencoder_overrides = {}
    other_overrides = {}
    for key, value in overrides.items():
        if not key.startswith(AUTOENCODER_PREFIX):
            other_overrides[key] = value
            continue
        field = key.removeprefix(AUTOENCODER_PREFIX)
        if field not in schedule_fields:
            raise ConfigError(
                f"{AUTOENCODER_PREFIX}FIELD must be a field of a training. Received: {key}. Write it as {field}."
            )
        autoencoder_overrides[field] = value
    config = base.replace("gan_training", **other_overrides).replace("autoencoder_training", **autoencoder_overrides)
    # A variant that changes the autoencoder or its training cannot share the base's.
    autoencoder = None
    same_schedule = config.autoencoder_training == base.autoencoder_training
    if not same_schedule or differences(base, config, "autoencoder"):
        autoencoder = dataclasses.replace(config, gan_training=autoencoder_training.gan_training)
    return Variant(name, overrides, config, autoencoder)


def parse(text: str) -> tuple[str, dict[str, str]]:
    """Return name and overrides of a user's variant.

    Args:
      text: "name:field=value[,field=value]"; a value may contain commas.

    Raises:
      VariantError: the text has another form, or the name is taken.

    Example:
      >>> parse("narrow:encoder_filters=8,16,32,64,autoencoder_training.steps=500")
      ('narrow', {'encoder_filters': '8,16,32,64', 'autoencoder_training.steps': '500'})
    """
    name, _, fields = text.partition(":")
    taken = (".", "..", "autoencoder", BASE, *ABLATIONS, *FILES)
    if not name or "/" in name or name in taken:
        raise VariantError(f"a variant needs a new name that can be a folder's. Received: {text!r}")
    return name, parse_fields(fields, text)


def parse_fields(text: str, received: str | None = None) -> dict[str, str]:
    """Return the dictionary of "field=value[,field=value]".

    Messages show `received`, or `text` if it is None.
    """
    # A piece without "=" continues the list before it.
    pieces: list[str] = []
    for piece in text.split(","):
        if "=" in piece or not pieces:
            pieces.append(piece)
        else:
            pieces[-1] += f",{piece}"  # for example 8,16,32
    fields = {}
    for piece in pieces:
        field, _, value = piece.partition("=")
        if not field or not value:
            raise VariantError(f"fields must be field=value[,field=value]. Received: {received or text!r}")
        fields[field] = value
    return fields


def choose(
    only: Iterable[str], custom: Mapping[str, Mapping[str, Any]], base: Config, autoencoder_training: Config
) -> list[Variant]:
    """Return the base and the variants to run.

    Args:
      only: names; empty: all variants that differ from the base.
      custom: user-defined variants, as `ABLATIONS`.
      base: configuration that they change.
      autoencoder_training: configuration of the base's autoencoder.

    Raises:
      VariantError: a name is not known, or a named variant changes nothing.
    """
    known = {**ABLATIONS, **custom}
    named = [name for name in only if name != BASE]
    for name in named:
        if name not in known:
            raise VariantError(f"unknown ablation. Received: {name!r}. Known: {', '.join([BASE, *known])}")
    chosen = [Variant(BASE, {}, base)]
    for name in dict.fromkeys(named or known):
        variant = make_variant(name, known[name], base, autoencoder_training)
        # By default a variant that equals the base is skipped. Asked for by name, it is an error.
        if differences(base, variant.config):
            chosen.append(variant)
        elif name in named or name in custom:
            raise VariantError(f"a variant must differ from the base. Received: {variant.label}")
        else:
            print(f"skipping {variant.label}: the base has this value", flush=True)
    return chosen


def pretrain(variants: Sequence[Variant], autoencoder_training: Config, source: Any, output: str | os.PathLike) -> None:
    """Train and export every variant.

    OUTPUT/autoencoder is the shared autoencoder, OUTPUT/NAME/gan a variant's training, OUTPUT/NAME/features its export,
    OUTPUT/NAME/autoencoder its own autoencoder where it has one. Finished stages are skipped.

    Args:
      variants: of `choose`.
      autoencoder_training: configuration of the shared autoencoder.
      source: the images.
      output: folder of the run.
    """
    output = pathlib.Path(output)
    data = {"split": source.split, "images": source.fingerprint}
    pipeline = Pipeline(output / "stages.json", variants[0].config, data)
    shared = output / "autoencoder"
    pipeline.run("autoencoder", lambda: train_stage(autoencoder_training, "autoencoder", source, shared))
    for variant in variants:
        _pretrain_variant(variant, shared, source, output / variant.name, pipeline)


def _pretrain_variant(
    variant: Variant, autoencoder: pathlib.Path, source: Any, folder: pathlib.Path, pipeline: Pipeline
) -> None:
    """Train and export one variant."""
    from lts import training

    if variant.autoencoder is not None:
        autoencoder = folder / "autoencoder"
        pipeline.run(
            f"{variant.label}: autoencoder",
            lambda: train_stage(variant.autoencoder, "autoencoder", source, autoencoder),
        )
    run = folder / "gan"
    pipeline.run(
        f"{variant.label}: gan", lambda: train_stage(variant.config, "gan", source, run, autoencoder=autoencoder)
    )
    pipeline.run(f"{variant.label}: export", lambda: training.export_run(run, folder / "features", source=source))


def probe(
    variants: Sequence[Variant], source: Any, train: Any, validation: Any, protocol: Any, output: str | os.PathLike
) -> dict[str, Any]:
    """Probe and compare what `pretrain` exported.

    Args:
      variants: of `choose`.
      source: images of pre-training.
      train: labelled images to train on.
      validation: labelled images to compare on.
      protocol: of `experiments.probing.protocols`.
      output: folder of the run.

    Returns:
      Content of results.json: "kind", "protocol", "dataset" (its "test" is the validation images), "pretraining",
      "layers", and

      - "base": path, fingerprint, description, seconds of training by stage, and by layer the record;
      - "variants": by name the same, "changed" (section.field: old -> new) and by layer the paired "difference".
    """
    from experiments.probing import run as probe_run
    from experiments.probing.linear import LinearProbe
    from experiments.probing.statistics import compare_common_layers
    from lts.export import saved_model

    output = pathlib.Path(output)
    models = (saved_model.load(output / variant.name / "features") for variant in variants)  # loaded one at a time
    linear_probe = LinearProbe(protocol=protocol, train=train, test=validation, output=output)
    probed = probe_run.run_each(linear_probe, models)
    base_records = probed[0].records
    described = {}
    for variant, result in zip(variants[1:], probed[1:], strict=True):
        difference = compare_common_layers(result.records, [base_records], protocol).difference
        described[variant.name] = dict(
            result.to_json(),
            path=f"{variant.name}/features",
            seconds=result.description.get("seconds", {}),
            changed=differences(variants[0].config, variant.config),
            difference=difference,
        )
    return {
        "kind": "ablate",
        **probe_run.describe_run(linear_probe, source),
        "layers": list(base_records),
        "base": dict(probed[0].to_json(), path=f"{BASE}/features", seconds=probed[0].description.get("seconds", {})),
        "variants": described,
    }


def mean_over_seeds(results: Sequence[Mapping[str, Any]], seeds: Sequence[int], protocol: Any) -> dict[str, Any]:
    """Return the results of several pre-training seeds as one.

    Args:
      results: of each seed, as `probe` returns them.
      seeds: of pre-training, at least two.
      protocol: gives the confidence.

    Returns:
      As `probe`, with the means over the seeds, Student's intervals over them, and "seeds". Differences are paired by
      seed. Paths, fingerprints and descriptions are those of the first seed.
    """
    from experiments.probing import statistics

    def mean(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        layers = {}
        for layer in entries[0]["layers"]:
            accuracies = [entry["layers"][layer]["accuracy"] for entry in entries]
            layers[layer] = statistics.mean_record(accuracies, protocol)
        return {**entries[0], "path": f"seed_{seeds[0]}/{entries[0]['path']}", "layers": layers}

    base = mean([result["base"] for result in results])
    variants = {}
    for name in results[0]["variants"]:
        variant = mean([result["variants"][name] for result in results])
        comparison = statistics.compare_common_layers(variant["layers"], [base["layers"]], protocol)
        variants[name] = {**variant, "difference": comparison.difference}
    return {**results[0], "seeds": list(seeds), "base": base, "variants": variants}
