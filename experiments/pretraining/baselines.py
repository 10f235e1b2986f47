"""The method and baselines for `experiments.compare`.

All see the same images in equal time.
"""

import dataclasses
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.pretraining.pipeline import Pipeline, train_stage
from lts.config import Config
from lts.config.stages import STAGES, section_of
from lts.utils import files
from lts.utils.errors import UserError
from lts.utils.json_files import NUMBER, JsonError, read_json

RANDOM_SEEDS = (1, 2, 3)
OURS = "ours"
# Keras' usual Adam for classifiers of this backbone at batch 32 (ours). Everything else, weight decay and the linear
# decay of the learning rate included, comes from the configuration.
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "rotation": {"learning_rate": 1e-3, "beta_1": 0.9},
    # AdamW of the LCI release, whose decay is not multiplied by the learning rate: 1e-4 in each step. Its learning rate
    # is 3e-4, and its inpainter trains in every step.
    "lci": {
        "learning_rate": 1e-3,
        "beta_1": 0.5,
        "beta_2": 0.99,
        "optimizer": "adamw",
        "weight_decay": 0.1,
        "repair_every": 1,
    },
    "supervised": {"learning_rate": 1e-3, "beta_1": 0.9},
}
AUTOENCODER_SHARE = 0.27  # of our time: preset small took 10 of 38 minutes for its autoencoder (ours)
RESTORE = "Restore it or give another --output."
STEP_MULTIPLE = 10  # steps are rounded down to a multiple of this


@dataclasses.dataclass(frozen=True)
class Method:
    """A pre-training that gets the complete budget."""

    title: str  # in tables
    stages: tuple[str, ...]  # of `lts.training.train`, in order; the last one's network is exported
    labelled: bool = False  # whether it sees the labelled training images
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of the configuration, in all stages


METHODS: Mapping[str, Method] = {
    # Does the discriminator learn more than the autoencoder that it is built on?
    "autoencoder": Method("the autoencoder's own encoder", ("autoencoder",)),
    # Does it learn more than a simple pretext task (Gidaris et al., 2018)?
    "rotation": Method("rotation prediction", ("rotation",)),
    # And than a later task of the same authors (Jenni, Jin and Favaro, 2020)?
    "lci": Method("limited context inpainting", ("lci",)),
    # How far is it from learning with labels?
    "supervised": Method("supervised from scratch", ("supervised",), labelled=True),
    OURS: Method("ours", ("autoencoder", "gan")),
    # What does a discriminator learn that also tells turns (ours)?
    "turned": Method(
        "ours with turns",
        ("autoencoder", "gan"),
        fields={"rotation_weight": 1.0, "rotation_images": "both", "real_source": "mixed"},
    ),
    # And one that tells turns and repairs with one head (Hou et al., 2021)?
    "joint": Method(
        "ours with joint labels", ("autoencoder", "gan"), fields={"joint_turns": True, "real_source": "mixed"}
    ),
    # And one that predicts the rotation of photographs, too (ours)? These fill its batch, so decoded images are shown
    # once.
    "photographs": Method(
        "ours with turned photographs",
        ("autoencoder", "gan"),
        fields={"rotation_weight": 1.0, "rotation_images": "photographs", "shows": 1},
    ),
}
BASELINES = ("autoencoder", "rotation", "supervised")  # next to ours, unless others are chosen


class PlanError(UserError):
    """A plan that is impossible, missing or another's."""


@dataclasses.dataclass(frozen=True)
class Request:
    """What decides a plan apart from the machine."""

    budget_minutes: float  # of training for each method
    autoencoder_share: float  # part of our budget
    settings: Mapping[str, Mapping[str, Any]]  # method to fields of its training, as SETTINGS
    methods: Sequence[str] = (*BASELINES, OURS)  # names in METHODS


@dataclasses.dataclass(frozen=True)
class Images:
    """Data sets of a comparison."""

    pretrain: Any  # for pre-training without labels
    train: Any  # labelled images to train on
    test: Any  # labelled images to test on

    def of(self, method: Method) -> Any:
        """Return a method's training images."""
        return self.train if method.labelled else self.pretrain


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One run of `experiments.compare`.

    The folder holds plan.json, the trainings METHOD/STAGE, the exports METHOD/features, and the untrained networks
    random/SEED.
    """

    base: Config  # configuration of all stages
    images: Images
    output: pathlib.Path  # folder of the run
    pipeline: Pipeline  # its finished stages

    def plan(self, request: Request, rounds: int, seconds: float) -> dict[str, Any]:
        """Return the plan, measured in a new run.

        Raises:
          PlanError: plan.json is of another request, damaged or lost, or the budget is too small.
        """
        path = self.output / "plan.json"
        begun = self.pipeline.done("calibration") or any((self.output / name).exists() for name in request.methods)
        # NB: never measure again once a training has begun. Its steps would change between two starts.
        if begun and not path.exists():
            raise PlanError(f"trainings have begun, but their plan is missing. Received: {path}. {RESTORE}")
        self.pipeline.run("calibration", lambda: self._measure(path, request, rounds, seconds))
        return _read_plan(path, request)

    def _measure(self, path: pathlib.Path, request: Request, rounds: int, seconds: float) -> None:
        """Time all trainings and write the plan."""
        from experiments.pretraining import timing
        from lts.utils import provenance

        # A run that was killed between plan.json and stages.json keeps its plan.
        if path.exists():
            return
        trainings = {}
        for name in request.methods:
            config = config_of(name, self.base, request.settings)
            for stage in METHODS[name].stages:
                trainings[rate_name(name, stage)] = (config, stage, self.images.of(METHODS[name]))
        plan = make_plan(request, self.base, timing.time_loops(trainings, rounds, seconds))
        plan["hardware"] = provenance.hardware()
        plan["commit"] = provenance.commit()
        files.write_json(path, plan)

    def pretrain(self, plan: Mapping[str, Any]) -> None:
        """Train and export all methods; skip finished stages."""
        from lts import training

        # NB: each lambda binds its seed and folder, or all would export the last ones.
        for seed in RANDOM_SEEDS:
            folder = self.output / "random" / str(seed)
            self.pipeline.run(
                f"random weights, seed {seed}",
                lambda seed=seed, folder=folder: training.export_random(self.base, self.images.pretrain, seed, folder),
            )
        for name, steps_of_stages in plan["steps"].items():
            config = config_of(name, self.base, plan["settings"])
            for stage, steps in steps_of_stages.items():
                config = config.replace(section_of(stage), steps=steps)
            for stage in METHODS[name].stages:
                self._train(name, stage, config)
            self._export(name)

    def _train(self, name: str, stage: str, config: Config) -> None:
        folder = self.output / name
        options = {"autoencoder": folder / "autoencoder"} if STAGES[stage].adversarial else {}
        source = self.images.of(METHODS[name])
        self.pipeline.run(f"{name}: {stage}", lambda: train_stage(config, stage, source, folder / stage, **options))

    def _export(self, name: str) -> None:
        from lts import training

        folder = self.output / name
        run = folder / METHODS[name].stages[-1]
        # All features get batch norm statistics of the same images, those of pre-training.
        self.pipeline.run(
            f"{name}: export", lambda: training.export_run(run, folder / "features", source=self.images.pretrain)
        )

    def probe(self, plan: Mapping[str, Any], protocol: Any) -> dict[str, Any]:
        """Probe and compare what `pretrain` exported.

        Returns:
          Content of results.json: "kind", "protocol", "dataset", "pretraining", "plan", "layers", and

          - "random": path, fingerprint, description and by layer the record of each untrained network;
          - "random_mean": by layer the mean of these records;
          - "methods": by name the same as "random", and "title", "difference" (by layer, paired with "random_mean"),
            "steps", "seconds" and "images_per_second" by stage, and "wall_seconds" over all stages and starts;
          - "ours_minus": by method and layer our paired difference to it.
        """
        from experiments.probing import run as probe_run
        from experiments.probing.linear import LinearProbe
        from experiments.probing.statistics import compare_common_layers
        from lts.export import saved_model

        places = [f"random/{seed}" for seed in RANDOM_SEEDS]
        names = list(plan["steps"])
        places += [f"{name}/features" for name in names]
        models = (saved_model.load(self.output / place) for place in places)  # loaded one at a time
        linear_probe = LinearProbe(
            protocol=protocol, train=self.images.train, test=self.images.test, output=self.output
        )
        probed = probe_run.run_each(linear_probe, models)
        entries = []
        for place, result in zip(places, probed, strict=True):
            entries.append(dict(result.to_json(), path=place, seconds=result.description.get("seconds", {})))
        records = [result.records for result in probed]
        # The untrained networks come first, then the methods.
        count = len(RANDOM_SEEDS)
        random_records = records[:count]
        records_of = dict(zip(names, records[count:], strict=True))

        methods = {}
        ours_minus = {}
        for name, entry in zip(names, entries[count:], strict=True):
            difference = compare_common_layers(records_of[name], random_records, protocol).difference
            cost = _training_cost(name, plan, entry["seconds"], self.pipeline)
            methods[name] = dict(entry, title=METHODS[name].title, **cost, difference=difference)
            if name != OURS:
                comparison = compare_common_layers(records_of[OURS], [records_of[name]], protocol)
                ours_minus[name] = comparison.difference
        random_mean = compare_common_layers(random_records[0], random_records, protocol).mean
        return {
            "kind": "compare",
            **probe_run.describe_run(linear_probe, self.images.pretrain),
            "plan": dict(plan),
            "layers": list(random_records[0]),
            "random": entries[:count],
            "random_mean": random_mean,
            "methods": methods,
            "ours_minus": ours_minus,
        }


def config_of(name: str, base: Config, settings: Mapping[str, Mapping[str, Any]]) -> Config:
    """Return the base with a method's fields and settings."""
    return base.replace("gan_training", **METHODS[name].fields, **settings.get(name, {}))


def rate_name(name: str, stage: str) -> str:
    """Return the name of a method's stage among the rates; methods without fields share their stages."""
    return f"{name}/{stage}" if METHODS[name].fields else stage


def seconds_per_step(turns: Sequence[Sequence[float]]) -> float:
    """Return a step's median time over turns."""
    # The median, because the machine may stand still during one turn.
    return statistics.median(seconds / steps for steps, seconds in turns)


def steps_within(budget: float, step_seconds: float, training: str) -> int:
    """Return the steps within a budget of seconds.

    Raises:
      PlanError: fewer than ten steps fit.

    Example:
      >>> steps_within(60, 0.25, "rotation")
      240
    """
    steps = int(budget / step_seconds) // STEP_MULTIPLE * STEP_MULTIPLE
    if steps < STEP_MULTIPLE:
        raise PlanError(
            f"{STEP_MULTIPLE} steps of {training} do not fit into the budget. Received: {budget:.1f} s at "
            f"{step_seconds:.3f} s per step. Raise --budget_minutes."
        )
    return steps


def make_plan(request: Request, base: Config, turns: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, Any]:
    """Return how many steps each method gets.

    Returns:
      The fields of the request; "rates": stage to turns, seconds per step, batch size, images/s; "steps": method to
      stage to steps.

    Raises:
      PlanError: the budget is too small.
    """
    # The turns of a stage are [steps, seconds] each.
    rates = {}
    for training, measured in turns.items():
        step_seconds = seconds_per_step(measured)
        batch_size = getattr(base, section_of(training.rpartition("/")[2])).batch_size
        rates[training] = {
            "turns": [list(turn) for turn in measured],
            "seconds_per_step": step_seconds,
            "batch_size": batch_size,
            "images_per_second": batch_size / step_seconds,
        }
    budget = 60 * request.budget_minutes
    steps = {}
    for name in request.methods:
        method = METHODS[name]
        shares = [1.0]
        if len(method.stages) == 2:
            shares = [request.autoencoder_share, 1 - request.autoencoder_share]
        steps[name] = {}
        for stage, share in zip(method.stages, shares, strict=True):
            step_seconds = rates[rate_name(name, stage)]["seconds_per_step"]
            steps[name][stage] = steps_within(share * budget, step_seconds, f"{name}, stage {stage}")
    return {**_fields_of(request), "rates": rates, "steps": steps}


def _fields_of(request: Request) -> dict[str, Any]:
    """Return a request as JSON holds it."""
    return dataclasses.asdict(request) | {"methods": list(request.methods)}


def _read_plan(path: pathlib.Path, request: Request) -> dict[str, Any]:
    """Return the plan of a request."""
    try:
        plan = read_json(path, _plan_shape(request.methods))
    except JsonError as error:
        raise PlanError(f"the plan is damaged ({error}). Received: {path}. {RESTORE}") from None
    # NB: a resumed run must keep its budget, or methods would be compared after different times.
    for name, wanted in _fields_of(request).items():
        if plan[name] != wanted:
            raise PlanError(
                f"{path} was made for {name}={plan[name]}. Received: {name}={wanted}. Give another --output."
            )
    return plan


def _plan_shape(names: Sequence[str]) -> dict[str, Any]:
    """Return the shape of plan.json, see `lts.utils.json_files.check_shape`."""
    rate = {"batch_size": int, "images_per_second": NUMBER, "seconds_per_step": NUMBER}
    trainings = [rate_name(name, stage) for name in names for stage in METHODS[name].stages]
    return {
        "budget_minutes": NUMBER,
        "autoencoder_share": NUMBER,
        "settings": {str: {str: (*NUMBER, str)}},
        "methods": [str],
        "rates": dict.fromkeys(trainings, rate),
        "steps": {name: dict.fromkeys(METHODS[name].stages, int) for name in names},
    }


def describe_plan(plan: Mapping[str, Any]) -> str:
    """Return the plan as text."""
    lines = [f"{plan['budget_minutes']:g} minutes each:"]
    for name, steps in plan["steps"].items():
        parts = []
        for stage, count in steps.items():
            rate = plan["rates"][rate_name(name, stage)]["images_per_second"]
            parts.append(f"{count} steps of {stage} at {rate:.0f} images/s")
        lines.append(f"  {name}: {', '.join(parts)}")
    return "\n".join(lines)


def _training_cost(
    name: str, plan: Mapping[str, Any], seconds: Mapping[str, float], pipeline: Pipeline
) -> dict[str, Any]:
    """Return what a method's training took."""
    # The export's description holds seconds of training without compiling; the pipeline has all seconds of all starts.
    steps = plan["steps"][name]
    stage_seconds = dict(zip(steps, seconds.values(), strict=True))
    images_per_second = {}
    for stage, taken in stage_seconds.items():
        images = steps[stage] * plan["rates"][rate_name(name, stage)]["batch_size"]
        images_per_second[stage] = images / taken if taken else None
    wall_seconds = sum(pipeline.seconds[f"{name}: {stage}"] for stage in steps)
    return {
        "steps": steps,
        "seconds": stage_seconds,
        "images_per_second": images_per_second,
        "wall_seconds": round(wall_seconds, 1),
    }
