"""The method and its rivals on the same images in the same time. What `experiments.compare` runs."""

import dataclasses
import json
import os
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.pretraining.pipeline import Pipeline, train_stage
from lts.config import Config
from lts.utils import files
from lts.utils.errors import UserError

RANDOM_SEEDS = (1, 2, 3)
OURS = "ours"
# Adam for classifiers of this backbone at batch 32: the usual rate and beta_1 of Keras's Adam; all else, weight decay and
# the linear decay of the rate included, is as in the configuration (ours).
SETTINGS: Mapping[str, Mapping[str, float]] = {
    "rotation": {"learning_rate": 1e-3, "beta_1": 0.9},
    "supervised": {"learning_rate": 1e-3, "beta_1": 0.9},
}
AUTOENCODER_SHARE = 0.27  # of our time: preset small took 10 of 38 minutes for stage 1 (ours)
LEAST_STEPS = 10  # and what steps are rounded down to


@dataclasses.dataclass(frozen=True)
class Baseline:
    """Something that is trained for the whole budget.

    Attributes:
      title: in tables.
      stages: of `lts.training.train`, one after the other; the last one's network is exported.
      labelled: it sees the labelled training images, with labels, instead of those of pre-training.
    """

    title: str
    stages: tuple[str, ...]
    labelled: bool = False


RIVALS: Mapping[str, Baseline] = {
    "autoencoder": Baseline("the autoencoder's own encoder", ("autoencoder",)),
    "rotation": Baseline("rotation prediction", ("rotation",)),
    "supervised": Baseline("supervised from scratch", ("supervised",), labelled=True),
    OURS: Baseline("ours", ("autoencoder", "gan")),
}


class PlanError(UserError):
    """A plan of steps that cannot be made, or is missing where it was followed."""


@dataclasses.dataclass(frozen=True)
class Request:
    """What decides a plan besides the machine.

    Attributes:
      budget_minutes: of training for each rival.
      autoencoder_share: of our budget that stage 1 gets.
      settings: rival to fields of stage 2, as `SETTINGS`.
    """

    budget_minutes: float
    autoencoder_share: float
    settings: Mapping[str, Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class Images:
    """Sources: of pre-training without labels, labelled ones to train on, labelled ones to test on."""

    pretrain: Any
    train: Any
    test: Any

    def of(self, rival: Baseline) -> Any:
        """What a rival is trained on."""
        return self.train if rival.labelled else self.pretrain


def config_of(name: str, base: Config, settings: Mapping[str, Mapping[str, float]]) -> Config:
    """The base with a rival's own settings of stage 2."""
    return base.replace("gan_training", **settings.get(name, {}))


def section(stage: str) -> str:
    """The section of the configuration that a stage's schedule is in."""
    return "autoencoder_training" if stage == "autoencoder" else "gan_training"


def seconds_per_step(turns: Sequence[Sequence[float]]) -> float:
    """The median over turns: a turn in which the machine stood still counts no more than another.

    Args:
      turns: [steps, seconds] each.
    """
    return statistics.median(seconds / steps for steps, seconds in turns)


def steps_of(budget: float, step_seconds: float, what: str) -> int:
    """Steps that fit into a budget, rounded down to tens.

    Args:
      budget: seconds.
      step_seconds: of one step.
      what: for the message.

    Raises:
      PlanError: fewer than ten.

    Example:
      >>> steps_of(60, 0.25, "rotation")
      240
    """
    steps = int(budget / step_seconds) // LEAST_STEPS * LEAST_STEPS
    if steps < LEAST_STEPS:
        raise PlanError(
            f"{budget:.1f} s are too few for {LEAST_STEPS} steps of {what} at {step_seconds:.3f} s each: "
            "raise --budget_minutes"
        )
    return steps


def make_plan(request: Request, base: Config, turns: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, Any]:
    """How many steps each rival gets.

    Args:
      request: budget, share and settings.
      base: configuration of both stages.
      turns: stage to measured turns, [steps, seconds] each.

    Returns:
      The request; "rates": stage to turns, seconds a step, batch size, images/s; "steps": rival to stage to steps.

    Raises:
      PlanError: a budget that is too small.
    """
    rates = {}
    for stage, measured in turns.items():
        each, batch = seconds_per_step(measured), getattr(base, section(stage)).batch_size
        rates[stage] = {"turns": [list(turn) for turn in measured], "seconds_per_step": each, "batch_size": batch}
        rates[stage]["images_per_second"] = batch / each
    budget, share, steps = 60 * request.budget_minutes, request.autoencoder_share, {}
    for name, rival in RIVALS.items():
        shares = [share, 1 - share] if len(rival.stages) == 2 else [1]
        steps[name] = {
            stage: steps_of(part * budget, rates[stage]["seconds_per_step"], f"{name}, stage {stage}")
            for stage, part in zip(rival.stages, shares, strict=True)
        }
    return {**dataclasses.asdict(request), "rates": rates, "steps": steps}


def plan(
    request: Request, base: Config, images: Images, output: pathlib.Path, stages: Pipeline, rounds: int, seconds: float
) -> dict[str, Any]:
    """The plan in OUTPUT/plan.json, of `make_plan` with machine and commit; measured first where nothing was begun.

    Args:
      request: budget, share and settings.
      base: configuration of both stages.
      images: of the trainings.
      output: folder of the run.
      stages: what was done in it.
      rounds, seconds: turns of each training, and of one turn.

    Raises:
      PlanError: a plan of another request, one that cannot be read or is missing though it was made, or a budget that
        is too small.
    """
    from experiments.pretraining import timing
    from lts.utils import provenance

    path = output / "plan.json"

    def measure() -> None:
        if path.exists():
            return
        trainings = {}
        for name, rival in RIVALS.items():
            config = config_of(name, base, request.settings)
            trainings |= {stage: (config, stage, images.of(rival)) for stage in rival.stages}
        turns = timing.time_loops(trainings, rounds, seconds)
        made = {"hardware": provenance.hardware(), "commit": provenance.commit()}
        files.write_json(path, make_plan(request, base, turns) | made)

    if not path.exists() and (stages.done("calibration") or any((output / name).exists() for name in RIVALS)):
        raise PlanError(
            f"{output} holds trainings whose plan is missing: put {path.name} back or give another --output"
        )
    stages.run("calibration", measure)
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
        whole = all(made["steps"][name][stage] for name, rival in RIVALS.items() for stage in rival.stages)
        before = {field.name: made[field.name] for field in dataclasses.fields(Request)}
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise PlanError(f"{path} is no whole plan: put it back or give another --output")
    for key, value in dataclasses.asdict(request).items():
        if before[key] != value:
            raise PlanError(f"{path} was made for {key}={before[key]}: give another --output. Received: {key}={value}")
    return made


def describe_plan(made: Mapping[str, Any]) -> str:
    """The plan, a line a rival."""
    lines = []
    for name, steps in made["steps"].items():
        rates = made["rates"]
        parts = [
            f"{count} steps of {stage} at {rates[stage]['images_per_second']:.0f} images/s"
            for stage, count in steps.items()
        ]
        lines.append(f"  {name}: {', '.join(parts)}")
    return "\n".join([f"{made['budget_minutes']:g} minutes each:", *lines])


def pretrain(made: Mapping[str, Any], base: Config, images: Images, output: pathlib.Path, stages: Pipeline) -> None:
    """Trains and exports every rival and the random networks; what is done is not done again.

    OUTPUT/NAME/STAGE are the runs, OUTPUT/NAME/features the exports, OUTPUT/random/SEED those without training.

    Args:
      made: of `plan`.
      base: configuration of both stages.
      images: of the trainings.
      output: folder of the run.
      stages: what was done in it.
    """
    from lts import training

    for seed in RANDOM_SEEDS:
        stages.run(
            f"random weights, seed {seed}",
            lambda seed=seed: training.export_random(base, images.pretrain, seed, output / "random" / str(seed)),
        )
    for name, rival in RIVALS.items():
        config, folder = config_of(name, base, made["settings"]), output / name
        for stage, steps in made["steps"][name].items():
            config = config.replace(section(stage), steps=steps)
        for stage in rival.stages:
            beside = {"autoencoder": folder / "autoencoder"} if stage == "gan" else {}
            stages.run(
                f"{name}: {stage}",
                lambda config=config, stage=stage, rival=rival, folder=folder, beside=beside: train_stage(
                    config, stage, images.of(rival), folder / stage, **beside
                ),
            )
        last = folder / rival.stages[-1]
        stages.run(
            f"{name}: export",
            lambda last=last, folder=folder: training.export_run(last, folder / "features", source=images.pretrain),
        )


def probe(
    made: Mapping[str, Any], images: Images, protocol: Any, output: str | os.PathLike, stages: Pipeline
) -> dict[str, Any]:
    """Probes what `pretrain` exported and compares it.

    Args:
      made: of `plan`.
      images: of pre-training, and labelled ones.
      protocol: of `experiments.probing.protocols`.
      output: folder of the run.
      stages: what was done in it.

    Returns:
      What results.json holds: "kind", "protocol", "dataset", "pretraining", "plan", "layers"; "random": path,
      fingerprint, description and by layer the record of each untrained network, and "random_mean" by layer; by name
      "rivals": the same, and "title", "seconds" of training by stage without compiling, "wall_seconds" of the trainings
      over all starts, "steps" and "images_per_second" by stage, and by layer the paired "difference" to "random_mean";
      "ours_minus": rival to layer to our paired difference to it.
    """
    from experiments.probing import run as probe_run
    from lts.export import saved_model

    output = pathlib.Path(output)
    places = [f"random/{seed}" for seed in RANDOM_SEEDS] + [f"{name}/features" for name in RIVALS]
    models = (saved_model.load(output / place) for place in places)
    entries = probe_run.run_each(models, images.train, images.test, protocol, output)
    described = [{**entry, "path": place} for place, (entry, _) in zip(places, entries, strict=True)]
    records = [own for _, own in entries]
    count = len(RANDOM_SEEDS)
    random, of_rival = records[:count], dict(zip(RIVALS, records[count:], strict=True))
    found = {}
    for name, entry in zip(RIVALS, described[count:], strict=True):
        found[name] = {
            **entry,
            "title": RIVALS[name].title,
            **_cost(name, made, entry, stages),
            "difference": probe_run.paired_difference(of_rival[name], random, protocol)[1],
        }
    others = [name for name in RIVALS if name != OURS]
    return {
        "kind": "compare",
        **probe_run.describe_run(protocol, images.train, images.test, images.pretrain),
        "plan": dict(made),
        "layers": list(random[0]),
        "random": described[:count],
        "random_mean": probe_run.paired_difference(random[0], random, protocol)[0],
        "rivals": found,
        "ours_minus": {
            name: probe_run.paired_difference(of_rival[OURS], [of_rival[name]], protocol)[1] for name in others
        },
    }


def _cost(name: str, made: Mapping[str, Any], entry: Mapping[str, Any], stages: Pipeline) -> dict[str, Any]:
    """What a rival's training took: "seconds", "steps", "images_per_second", by stage, and "wall_seconds" in all."""
    steps, rates = made["steps"][name], made["rates"]
    seconds = dict(zip(steps, entry["seconds"].values(), strict=True))
    images = {stage: count * rates[stage]["batch_size"] for stage, count in steps.items()}
    return {
        "steps": steps,
        "seconds": seconds,
        "images_per_second": {stage: images[stage] / taken if taken else None for stage, taken in seconds.items()},
        "wall_seconds": round(sum(stages.seconds[f"{name}: {stage}"] for stage in steps), 1),
    }
