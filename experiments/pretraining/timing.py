"""Time per step of each training, in turns.

A turn includes data, steps and monitoring. Turns are interleaved, so that other load of the machine falls on all
trainings alike.
"""

import contextlib
import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

from lts.config import Config
from lts.utils.signals import reraise_signal

ENDLESS = 10**6  # steps: no loop reaches its end while it is timed
CHUNK = 20  # steps between two looks at the clock

Turn = list[float]  # [steps, seconds]


def endless_loop(config: Config, stage: str, source: Any, folder: pathlib.Path) -> Any:
    """Return the loop of `lts.training.train` with new weights.

    The caller closes it. `folder` is a temporary one for its monitoring.
    """
    from lts.config.options import MonitoringOptions
    from lts.training import build_strategy
    from lts.training.checkpoints import Checkpoints
    from lts.training.strategy import Machines
    from lts.training.task import checkpoint_items, make_loop
    from lts.training.train import make_task

    machines = Machines(build_strategy())
    task = dataclasses.replace(make_task(config, stage, source, folder), steps=ENDLESS)
    with machines.strategy.scope():
        model = task.build()
    checkpoints = Checkpoints(folder, checkpoint_items(model))
    return make_loop(task, model, machines, checkpoints, MonitoringOptions())


def advance(loop: Any, steps: int) -> None:
    """Train more steps; a signal ends the program."""
    from lts.training.loop import steps_done

    done = steps_done(loop.model)
    reraise_signal(loop.run(done, ENDLESS, until=done + steps))


def run_turn(work: Callable[[int], None], seconds: float, clock: Callable[[], float] = time.perf_counter) -> Turn:
    """Work for about N seconds; return what it took.

    Args:
      work: does a number of steps.
      seconds: after which no further chunk of steps begins.
      clock: in seconds.
    """
    started = clock()
    steps = 0
    while not steps or clock() - started < seconds:
        work(CHUNK)
        steps += CHUNK
    return [steps, clock() - started]


def run_in_turns(
    works: Mapping[str, Callable[[int], None]],
    rounds: int,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[Turn]]:
    """Run every work in turns, see `run_turn`."""
    turns: dict[str, list[Turn]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            turns[name].append(run_turn(work, seconds, clock))
    return turns


def time_loops(
    trainings: Mapping[str, tuple[Config, str, Any]],
    rounds: int,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[Turn]]:
    """Return turns of complete training loops, without compiling.

    Args:
      trainings: name to (configuration, stage, images).
      rounds: turns of each.
      seconds: of a turn.
      clock: in seconds; `time.process_time` for those of the CPU.
    """
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        works = {}
        for name, (config, stage, source) in trainings.items():
            print(f"compiling {name}", flush=True)
            loop = endless_loop(config, stage, source, folder / name)
            stack.callback(loop.close)
            # Compile everything that a turn may run: the step, pictures and histograms.
            advance(loop, CHUNK)
            loop.show_pictures(CHUNK)
            loop.show_histograms(CHUNK)
            works[name] = lambda steps, loop=loop: advance(loop, steps)
        return run_in_turns(works, rounds, seconds, clock)
