"""Report on the import of a release checkpoint."""

import dataclasses
import math
from collections.abc import Mapping

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Taken:
    """A variable that has the checkpoint's value."""

    shape: Shape
    trained: bool  # the stage trains it, so that it has moments and an average
    moments: bool  # both of Adam's moments came with it
    average: bool  # its moving average came with it


@dataclasses.dataclass(frozen=True)
class Report:
    """Result of an import, under the release's names.

    `str(report)` is the table that lts.bin.import_checkpoint prints.
    """

    checkpoint: str  # its name
    stage: str  # "autoencoder" or "gan"
    weights: str  # "raw" or "averaged"
    step: int  # of the new run
    taken: Mapping[str, Taken]
    scalars: tuple[str, ...]  # global_step and Adam's powers, as far as they were taken
    missing: Mapping[str, Shape]  # variables of the networks that the checkpoint does not hold
    missing_state: tuple[str, ...]  # global_step and moments that it does not hold
    left_over: Mapping[str, Shape]  # unused tensors of the checkpoint

    @property
    def averaged(self) -> bool:
        """Whether every trained weight came with its moving average."""
        return all(variable.average for variable in self.taken.values() if variable.trained)

    def __str__(self) -> str:
        return "\n".join([*self._taken(), *self._missing(), *self._left_over(), self.summary()])

    def summary(self) -> str:
        """Return one line with stage, step and counts."""
        counts = f"{len(self.taken)} variables taken, {len(self.missing)} missing, {len(self.left_over)} left over"
        return f"{self.checkpoint} ({self.stage}, {self.weights} weights): {counts}; at step {self.step}"

    def _taken(self) -> list[str]:
        shapes = {name: variable.shape for name, variable in self.taken.items()}
        trained = [variable for variable in self.taken.values() if variable.trained]
        moments = sum(variable.moments for variable in trained)
        averages = sum(variable.average for variable in trained)
        lines = [
            f"taken from {self.checkpoint} ({self.stage}, {self.weights} weights): {_count(shapes)}",
            f"  with Adam's moments (Adam, Adam_1) of {moments} and the moving averages of {averages} "
            f"of the {len(trained)} that this stage trains",
        ]
        notes = {}
        for name, variable in self.taken.items():
            words = ["moments"] * variable.moments + ["average"] * variable.average
            notes[name] = " ".join(words)
        lines += _table(shapes, notes)
        if self.scalars:
            lines.append(f"  {' '.join(self.scalars)}: step {self.step}")
        return lines

    def _missing(self) -> list[str]:
        lines = []
        if self.missing:
            lines.append(f"missing: {_count(self.missing)}; random initial values until trained")
            lines += _table(self.missing)
        if self.missing_state:
            moments = [name for name in self.missing_state if "/" in name]
            parts = [name for name in self.missing_state if "/" not in name]
            if moments:
                parts.insert(0, f"{len(moments)} of Adam's moments")
            lines.append(f"missing: {' and '.join(parts)}; training begins at step 0 with a new Adam")
        if not self.averaged:
            lines.append("missing: moving averages of variables without the mark 'average'; they begin at the weights")
        return lines or ["missing: nothing"]

    def _left_over(self) -> list[str]:
        if not self.left_over:
            return ["left over: nothing"]
        return [f"left over in the checkpoint: {_count(self.left_over)}", *_table(self.left_over)]


def _count(shapes: Mapping[str, Shape]) -> str:
    """Return text such as "47 variables, 2,268,611 parameters"."""
    parameters = sum(math.prod(shape) for shape in shapes.values())
    return f"{len(shapes)} variables, {parameters:,} parameters"


def _table(shapes: Mapping[str, Shape], notes: Mapping[str, str] | None = None) -> list[str]:
    """Return one line per variable: name, shape and note."""
    width = max((len(name) for name in shapes), default=0)
    lines = []
    for name, shape in shapes.items():
        size = "x".join(map(str, shape)) or "scalar"
        note = (notes or {}).get(name, "")
        lines.append(f"  {name:{width}}  {size:14} {note}".rstrip())
    return lines
