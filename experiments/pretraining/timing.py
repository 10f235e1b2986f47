"""How long a step of each kind of training takes, all of it counted: data, step, monitoring; measured in turns."""

import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

from lts.config import Config
from lts.utils.signals import reraise_signal

ENDLESS = 10**6  # steps: no loop that is timed comes to its end
CHUNK = 20  # steps between two looks at the clock


def endless_loop(config: Config, stage: str, source: Any, folder: pathlib.Path) -> Any:
    """The loop of `lts.training.train` as it begins, on weights that nobody keeps.

    Args:
      config: of the training.
      stage: as of `lts.training.train`.
      source: the images.
      folder: for its monitoring; a temporary one.

    Returns:
      A `Loop`, to be advanced and closed.
    """
    from lts.config.options import MonitoringOptions
    from lts.training import build_strategy
    from lts.training.run_dir import Checkpoints
    from lts.training.strategy import Machines
    from lts.training.task import checkpoint_items, make_loop
    from lts.training.train import make_task

    machines = Machines(build_strategy())
    task = dataclasses.replace(make_task(config, stage, source, folder), steps=ENDLESS)
    with machines.strategy.scope():
        model = task.build()
    return make_loop(task, model, machines, Checkpoints(folder, checkpoint_items(model)), MonitoringOptions())


def advance(loop: Any, steps: int) -> None:
    """Trains so many steps more; a signal ends the binary."""
    from lts.training.loop import steps_done

    done = steps_done(loop.model)
    reraise_signal(loop.run(done, ENDLESS, until=done + steps))


def turn(work: Callable[[int], None], seconds: float, clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """Works for about so many seconds.

    Args:
      work: does a number of steps.
      seconds: after which no further chunk of steps begins.
      clock: in seconds.

    Returns:
      [steps, seconds] that it took.
    """
    began, steps = clock(), 0
    while not steps or clock() - began < seconds:
        work(CHUNK)
        steps += CHUNK
    return [steps, clock() - began]


def in_turns(works: Mapping[str, Callable[[int], None]], rounds: int, seconds: float) -> dict[str, list[list[float]]]:
    """Turns of every work, interleaved, so that what else the machine does falls on all of them.

    Args:
      works: name to what does a number of steps, compiled.
      rounds: turns of each.
      seconds: of a turn.

    Returns:
      Name to its turns, [steps, seconds] each.
    """
    turns: dict[str, list[list[float]]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            turns[name].append(turn(work, seconds))
    return turns


def time_loops(
    trainings: Mapping[str, tuple[Config, str, Any]], rounds: int, seconds: float
) -> dict[str, list[list[float]]]:
    """Turns of whole training loops, compiling left out.

    Args:
      trainings: name to (configuration, stage, images).
      rounds, seconds: see `in_turns`.

    Returns:
      Name to its turns, [steps, seconds] each.
    """
    with tempfile.TemporaryDirectory() as folder:
        loops = {}
        try:
            for name, (config, stage, source) in trainings.items():
                print(f"compiling {name}", flush=True)
                loop = loops[name] = endless_loop(config, stage, source, pathlib.Path(folder) / name)
                advance(loop, CHUNK)
                loop.show_pictures(CHUNK), loop.show_histograms(CHUNK)  # they come within turns, compiled
            works = {name: lambda steps, loop=loop: advance(loop, steps) for name, loop in loops.items()}
            return in_turns(works, rounds, seconds)
        finally:
            for loop in loops.values():
                loop.close()
