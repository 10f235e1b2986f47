"""From a checkpoint of the authors' TensorFlow 1 program to a run that exports and trains on like any other."""

import os
import pathlib
from collections.abc import Iterable

import keras
import numpy as np

from lts.config import Config, TrainingConfig
from lts.release.checkpoint import AVERAGE, MOMENTS, POWERS, STEP, CheckpointError, ReleaseCheckpoint, release_variables
from lts.release.import_report import Report, Taken
from lts.training import run_dir
from lts.training.run_dir import Checkpoints, TrainingError
from lts.training.run_record import ImportRecord, RunRecord
from lts.training.task import checkpoint_items
from lts.training.train import SECTION, build_model
from lts.utils import files

NETWORKS = {"autoencoder": ("encoder", "decoder"), "gan": ("encoder", "decoder", "repair", "discriminator")}


def import_checkpoint(
    config: Config,
    checkpoint: str | os.PathLike,
    output: str | os.PathLike,
    weights: str = "raw",
    stage: str | None = None,
) -> Report:
    """Makes a run of a checkpoint of the release.

    Variables are taken by name. What the checkpoint does not hold keeps its
    initial value, a function of the stage's seed. Adam goes on, at the
    checkpoint's step, if all of its moments are there, and begins at step 0 if
    not: a part of them, or zeros at a late step, would make steps of a wrong
    length.

    Args:
      config: says what the networks are; the rest of it is settled by the first training that goes on.
      checkpoint: see `ReleaseCheckpoint`.
      output: workdir of the run; must not exist, or be empty.
      weights: "raw", or "averaged": the moving average of every weight that the stage trains.
      stage: "autoencoder" or "gan"; None: "gan" if the checkpoint holds anything of discriminator or repair network.

    Returns:
      What was taken, what is missing and what is left over.

    Raises:
      CheckpointError: it cannot be read, holds nothing of the stage, does not fit the configuration, or lacks averages
        that are asked for. Nothing is written.
      TrainingError: `output` exists, a value is not finite, or the run cannot be written. Nothing is left of it.
    """
    output, source = pathlib.Path(output), ReleaseCheckpoint(checkpoint)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise TrainingError(f"{output} exists: give another --output")
    stage = stage or _stage(source)
    section = SECTION[stage]
    if not getattr(config, section).ema_decay:  # a place for averages, whether or not training will go on with them
        config = config.replace(section, ema_decay=TrainingConfig().ema_decay)
    keras.utils.set_random_seed(getattr(config, section).seed)
    model = build_model(config, stage)
    report = _Transfer(model, source, stage, weights).run()
    imported = ImportRecord(
        checkpoint=source.name,
        weights=weights,
        step=report.step,
        averages=report.averaged,
        release_step=int(source.read(STEP)) if STEP in source else None,
        missing=tuple(report.missing),
    )
    with files.atomic_write(output) as partial:
        run_dir.write_run_config(partial, RunRecord(stage, config, imported=imported))
        Checkpoints(partial, checkpoint_items(model)).save(report.step)
    return report


def _stage(source: ReleaseCheckpoint) -> str:
    """The stage whose networks a checkpoint holds."""
    networks = {name.split("/")[0] for name in source.shapes}
    return "gan" if networks & {"generator", "discriminator"} else "autoencoder"


class _Transfer:
    """One model that takes what it can from one checkpoint.

    Args:
      model: from `build_model`, as initialised.
      source: the checkpoint.
      stage: of the model.
      weights: "raw" or "averaged".
    """

    def __init__(self, model: keras.Model, source: ReleaseCheckpoint, stage: str, weights: str):
        self.model, self.source, self.stage, self.weights = model, source, stage, weights
        networks = [network for name in NETWORKS[stage] if (network := getattr(model, name))]
        strides = model.config.autoencoder.num_strides
        self.variables = release_variables(*networks, num_strides=strides)
        self.optimizers = [model.optimizer, *([model.g_optimizer] if stage == "gan" else [])]
        slots = {id(variable): rest for optimizer in self.optimizers for variable, *rest in optimizer.slots()}
        self.slots = {name: slots[id(v)] for name, v in self.variables.items() if id(v) in slots}
        self.moments = {
            name + suffix: slot
            for name, (first, second, _) in self.slots.items()
            for suffix, slot in zip(MOMENTS, (first, second), strict=True)
        }

    def run(self) -> Report:
        """Checks everything, then assigns everything."""
        source = self.source
        taken = {name: v for name, v in self.variables.items() if self._origin(name) in source}
        if not taken:
            some = ", ".join([*source.shapes][:3])
            raise CheckpointError(
                f"{source.name} holds no variable of the release's {self.stage} networks; it holds {some or 'nothing'}"
            )
        self._check_averages()
        going_on = STEP in source and all(name in source for name in self.moments)
        averages = {name + AVERAGE: slots[2] for name, slots in self.slots.items() if name + AVERAGE in source}
        wanted = [(self._origin(name), variable) for name, variable in taken.items()]
        wanted += [*averages.items(), *(self.moments.items() if going_on else ())]
        self._check_shapes([*wanted, (STEP, self.model.optimizer.iterations)])
        for name, variable in wanted:
            variable.assign(source.read(name))
        self._start_other_averages()
        step = int(source.read(STEP)) if going_on else 0
        for optimizer in self.optimizers:
            optimizer.iterations.assign(step)
        used = {name for name, _ in wanted} | ({STEP, *self._fitting_powers(step)} if going_on else set())
        return self._report(taken, used, step, going_on)

    def _origin(self, name: str) -> str:
        """The tensor that a variable takes its value from; networks that the stage does not train have no averages."""
        return name + AVERAGE if self.weights == "averaged" and name in self.slots else name

    def _check_averages(self) -> None:
        """Raises `CheckpointError` if averages are asked for and a weight comes without."""
        lacking = [name for name in self.slots if name in self.source and name + AVERAGE not in self.source]
        if self.weights == "averaged" and lacking:
            others = f" and of {len(lacking) - 1} other weights" if len(lacking) > 1 else ""
            raise CheckpointError(f"{self.source.name} holds no average of {lacking[0]}{others}: give --weights=raw")

    def _check_shapes(self, wanted: Iterable[tuple[str, keras.Variable]]) -> None:
        """Raises `CheckpointError` on the first tensor of another shape than its variable."""
        for name, variable in wanted:
            theirs, ours = self.source.shapes.get(name), tuple(variable.shape)
            if theirs not in (None, ours):
                raise CheckpointError(
                    f"{name} is {list(theirs)} in {self.source.name}, {list(ours)} in this configuration: "
                    "give the --preset and the flags of the networks that are in the checkpoint"
                )

    def _start_other_averages(self) -> None:
        """An average that did not come with its weight starts at the weight."""
        for name, (_, _, average) in self.slots.items():
            if name + AVERAGE not in self.source:
                average.assign(self.variables[name])

    def _fitting_powers(self, step: int) -> list[str]:
        """Those of beta1_power and beta2_power that say what the step says; ours follow from it."""
        betas = (self.model.optimizer.beta_1, self.model.optimizer.beta_2)
        return [
            name
            for name, beta in zip(POWERS, betas, strict=True)
            if name in self.source and np.isclose(self.source.read(name), beta ** (step + 1), rtol=1e-2, atol=1e-6)
        ]

    def _report(self, taken: dict, used: set[str], step: int, going_on: bool) -> Report:
        shapes = {name: tuple(variable.shape) for name, variable in self.variables.items()}
        return Report(
            checkpoint=self.source.name,
            stage=self.stage,
            weights=self.weights,
            step=step,
            taken={
                name: Taken(
                    shapes[name],
                    trained=name in self.slots,
                    moments=going_on and name in self.slots,
                    average=name in self.slots and name + AVERAGE in used,
                )
                for name in taken
            },
            scalars=tuple(name for name in (STEP, *POWERS) if name in used),
            missing={name: shape for name, shape in shapes.items() if name not in taken},
            missing_state=tuple(name for name in (STEP, *self.moments) if name not in self.source),
            left_over={name: shape for name, shape in self.source.shapes.items() if name not in used},
        )
