"""Import of a release checkpoint as a run."""

import os
import pathlib
from collections.abc import Iterable

import keras
import numpy as np

from lts.config import Config, TrainingConfig
from lts.config.stages import STAGES, section_of
from lts.release.checkpoint import AVERAGE, MOMENTS, POWERS, STEP, CheckpointError, ReleaseCheckpoint, release_variables
from lts.release.import_report import Report, Taken
from lts.training import run_dir
from lts.training.checkpoints import Checkpoints, TrainingError
from lts.training.run_record import ImportRecord, RunRecord
from lts.training.task import checkpoint_items
from lts.training.train import build_model
from lts.utils import files

NETWORKS = {"autoencoder": ("encoder", "decoder"), "gan": ("encoder", "decoder", "repair", "discriminator")}


def import_checkpoint(
    config: Config,
    checkpoint: str | os.PathLike,
    output: str | os.PathLike,
    weights: str = "raw",
    stage: str | None = None,
) -> Report:
    """Write a run with the variables of a release checkpoint.

    Variables are matched by name. Missing variables keep their random initial values, which depend on the seed only.
    Adam resumes at the checkpoint's step if all of its moments are there, and starts at step 0 otherwise. Some of the
    moments, or zeros at a late step, would make steps of a wrong length.

    Args:
      config: configuration of the networks. The first training sets the remaining fields.
      checkpoint: see `ReleaseCheckpoint`.
      output: folder of the run; must be empty or missing.
      weights: "raw", or "averaged" for the moving average of every weight that the stage trains.
      stage: "autoencoder" or "gan". None means "gan" if the checkpoint holds a discriminator or repair network.

    Returns:
      What was taken, what is missing and what is left over.

    Raises:
      CheckpointError: the checkpoint cannot be read, holds nothing of the stage, does not fit the configuration, or
        lacks averages that are requested. Nothing is written.
      TrainingError: `output` exists, a value is not finite, or the run cannot be written.
    """
    output = pathlib.Path(output)
    files.check_utf8(output)
    source = ReleaseCheckpoint(checkpoint)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise TrainingError(f"output exists. Received: output={output}. Give another --output.")
    stage = stage or _stage(source)
    section = section_of(stage)
    # The run keeps averages, whether or not later training does: the checkpoint may hold some.
    if not getattr(config, section).ema_decay:
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
    """Return the stage whose networks a checkpoint holds."""
    networks = {name.split("/")[0] for name in source.shapes}
    return "gan" if networks & {"generator", "discriminator"} else "autoencoder"


class _Transfer:
    """Assignment of one checkpoint to one model."""

    def __init__(self, model: keras.Model, source: ReleaseCheckpoint, stage: str, weights: str):
        self.model = model
        self.source = source
        self.stage = stage
        self.weights = weights
        networks = [getattr(model, name) for name in NETWORKS[stage] if getattr(model, name) is not None]
        self.variables = release_variables(*networks, num_strides=model.config.autoencoder.num_strides)
        self.optimizers = [model.optimizer]
        if STAGES[stage].adversarial:
            self.optimizers.append(model.g_optimizer)

        # Release name to (first moment, second moment, average) of every trained variable.
        slots_by_id = {}
        for optimizer in self.optimizers:
            for variable, *slots in optimizer.slots():
                slots_by_id[id(variable)] = slots
        self.slots = {name: slots_by_id[id(v)] for name, v in self.variables.items() if id(v) in slots_by_id}
        self.moments = {}
        for name, (first, second, _) in self.slots.items():
            self.moments[name + MOMENTS[0]] = first
            self.moments[name + MOMENTS[1]] = second

    def run(self) -> Report:
        """Check everything, then assign everything."""
        source = self.source
        taken = {name: variable for name, variable in self.variables.items() if self._origin(name) in source}
        if not taken:
            names = ", ".join(list(source.shapes)[:3]) or "nothing"
            raise CheckpointError(
                f"{source.name} holds no variable of the release's {self.stage} networks; it holds {names}"
            )
        self._check_averages()

        # Tensor name to the variable it is assigned to.
        wanted = {self._origin(name): variable for name, variable in taken.items()}
        has_adam = STEP in source and all(name in source for name in self.moments)
        averages = {name + AVERAGE: slots[2] for name, slots in self.slots.items() if name + AVERAGE in source}
        pairs = [*wanted.items(), *averages.items()]
        if has_adam:
            pairs += self.moments.items()
        self._check_shapes([*pairs, (STEP, self.model.optimizer.iterations)])
        for name, variable in pairs:
            variable.assign(source.read(name))
        self._start_other_averages()
        step = int(source.read(STEP)) if has_adam else 0
        for optimizer in self.optimizers:
            optimizer.iterations.assign(step)

        used = {name for name, _ in pairs}
        if has_adam:
            used |= {STEP, *self._matching_powers(step)}
        return self._report(taken, used, step, has_adam)

    def _origin(self, name: str) -> str:
        """Return the name of the tensor to take a value from."""
        # Networks that the stage does not train have no averages.
        return name + AVERAGE if self.weights == "averaged" and name in self.slots else name

    def _check_averages(self) -> None:
        """Check that averages are complete if they are requested."""
        lacking = [name for name in self.slots if name in self.source and name + AVERAGE not in self.source]
        if self.weights == "averaged" and lacking:
            others = f" and of {len(lacking) - 1} other weights" if len(lacking) > 1 else ""
            missing = f"no average of {lacking[0]}{others}"
            raise CheckpointError(f"the checkpoint holds {missing}. Received: {self.source.name}. Give --weights=raw.")

    def _check_shapes(self, pairs: Iterable[tuple[str, keras.Variable]]) -> None:
        """Check that tensors have the shapes of their variables."""
        for name, variable in pairs:
            received = self.source.shapes.get(name)
            expected = tuple(variable.shape)
            if received not in (None, expected):
                raise CheckpointError(
                    f"{name} is {list(received)} in {self.source.name}, {list(expected)} in this configuration. "
                    "Give the --preset and the flags of the networks in the checkpoint."
                )

    def _start_other_averages(self) -> None:
        """Start averages that are missing at their weights."""
        for name, (_, _, average) in self.slots.items():
            if name + AVERAGE not in self.source:
                average.assign(self.variables[name])

    def _matching_powers(self, step: int) -> list[str]:
        """Return Adam's powers in the checkpoint that match its step."""
        # They are not assigned: Keras derives them from the step.
        optimizer = self.model.optimizer
        names = []
        for name, beta in zip(POWERS, (optimizer.beta_1, optimizer.beta_2), strict=True):
            expected = beta ** (step + 1)
            if name in self.source and np.isclose(self.source.read(name), expected, rtol=1e-2, atol=1e-6):
                names.append(name)
        return names

    def _report(self, taken: dict, used: set[str], step: int, has_adam: bool) -> Report:
        shapes = {name: tuple(variable.shape) for name, variable in self.variables.items()}
        taken_variables = {}
        for name in taken:
            trained = name in self.slots
            taken_variables[name] = Taken(
                shape=shapes[name],
                trained=trained,
                moments=has_adam and trained,
                average=trained and name + AVERAGE in used,
            )
        return Report(
            checkpoint=self.source.name,
            stage=self.stage,
            weights=self.weights,
            step=step,
            taken=taken_variables,
            scalars=tuple(name for name in (STEP, *POWERS) if name in used),
            missing={name: shape for name, shape in shapes.items() if name not in taken},
            missing_state=tuple(name for name in (STEP, *self.moments) if name not in self.source),
            left_over={name: shape for name, shape in self.source.shapes.items() if name not in used},
        )
