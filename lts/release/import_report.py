"""What became of every variable when a checkpoint of the release was read."""

import dataclasses
import math
from collections.abc import Mapping

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Taken:
    """A variable that has the checkpoint's value.

    Attributes:
      shape: of it.
      trained: the stage trains it, so that it has moments and an average.
      moments: both of Adam's moments came with it.
      average: its moving average came with it.
    """

    shape: Shape
    trained: bool
    moments: bool
    average: bool


@dataclasses.dataclass(frozen=True)
class Report:
    """All of it under the release's names.

    Attributes:
      checkpoint: its name.
      stage: "autoencoder" or "gan".
      weights: "raw" or "averaged".
      step: at which the run stands.
      taken: name to what came.
      scalars: global_step and Adam's powers, as far as they were taken.
      missing: variables of the networks that the checkpoint does not hold, to their shapes.
      missing_state: global_step and the moments that it does not hold.
      left_over: tensors that nothing was done with, to their shapes.
    """

    checkpoint: str
    stage: str
    weights: str
    step: int
    taken: Mapping[str, Taken]
    scalars: tuple[str, ...]
    missing: Mapping[str, Shape]
    missing_state: tuple[str, ...]
    left_over: Mapping[str, Shape]

    @property
    def averaged(self) -> bool:
        """Whether every weight that was taken came with its average."""
        return all(one.average for one in self.taken.values() if one.trained)

    def __str__(self) -> str:
        return "\n".join([*self._taken(), *self._missing(), *self._left_over(), self.summary()])

    def summary(self) -> str:
        """One line: stage, step, numbers of variables."""
        counts = f"{len(self.taken)} variables taken, {len(self.missing)} missing, {len(self.left_over)} left over"
        return f"{self.checkpoint} ({self.stage}, {self.weights} weights): {counts}; at step {self.step}"

    def _taken(self) -> list[str]:
        trained = [one for one in self.taken.values() if one.trained]
        moments, averages = (sum(getattr(one, what) for one in trained) for what in ("moments", "average"))
        lines = [
            f"taken from {self.checkpoint} ({self.stage}, {self.weights} weights): "
            + _count({name: one.shape for name, one in self.taken.items()}),
            f"  with Adam's moments (Adam, Adam_1) of {moments} and the moving averages of {averages} "
            f"of the {len(trained)} that this stage trains",
        ]
        beside = {
            name: " ".join(word for word, there in (("moments", one.moments), ("average", one.average)) if there)
            for name, one in self.taken.items()
        }
        lines += _table({name: one.shape for name, one in self.taken.items()}, beside)
        return lines + ([f"  {' '.join(self.scalars)}: step {self.step}"] if self.scalars else [])

    def _missing(self) -> list[str]:
        lines = []
        if self.missing:
            lines += [f"missing: {_count(self.missing)}; as initialised until trained", *_table(self.missing)]
        if self.missing_state:
            moments = [name for name in self.missing_state if "/" in name]
            parts = [f"{len(moments)} of Adam's moments"] * bool(moments)
            parts += [name for name in self.missing_state if "/" not in name]
            lines.append(f"missing: {' and '.join(parts)}; training begins at step 0 with a fresh Adam")
        if not self.averaged:
            lines.append("missing: moving averages, where no mark stands above; they begin at the weights")
        return lines or ["missing: nothing"]

    def _left_over(self) -> list[str]:
        if not self.left_over:
            return ["left over: nothing"]
        return [f"left over in the checkpoint: {_count(self.left_over)}", *_table(self.left_over)]


def _count(shapes: Mapping[str, Shape]) -> str:
    """As "47 variables, 2,268,611 parameters"."""
    return f"{len(shapes)} variables, {sum(math.prod(shape) for shape in shapes.values()):,} parameters"


def _table(shapes: Mapping[str, Shape], beside: Mapping[str, str] | None = None) -> list[str]:
    """A line a variable: name, shape, what else is to be said."""
    width = max((len(name) for name in shapes), default=0)
    rows = ((name, "x".join(map(str, shape)) or "scalar") for name, shape in shapes.items())
    return [f"  {name:{width}}  {shape:14} {(beside or {}).get(name, '')}".rstrip() for name, shape in rows]
