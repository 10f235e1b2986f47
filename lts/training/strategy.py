"""How training is distributed: one device, GPUs of this machine, logical devices of a CPU, several machines.

Everything else of `training` sees a `tf.distribute.Strategy` and the few functions of this file.
"""

import contextlib
import functools
import json
import os

import numpy as np
import tensorflow as tf

from lts.utils.errors import UserError, first_line


class StrategyError(UserError):
    """Replicas or machines that cannot be had."""

    exit_status = 2


class MachineLostError(UserError):
    """A machine of `TF_CONFIG` that no longer answers."""


# What TensorFlow raises then; others (memory, files, a loss that is not finite) are this machine's own.
LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)


@functools.cache
def build_strategy(replicas: str | int = "auto") -> tf.distribute.Strategy:
    """The strategy of this process, made once; the first call must come before TensorFlow does anything else.

    Args:
      replicas: "auto": all GPUs, or one device where there is none; N: N of the GPUs, or N logical devices of the CPU
        (slower than one: for tests). Under `TF_CONFIG` these are the GPUs of each machine.

    Returns:
      MultiWorkerMirroredStrategy if `TF_CONFIG` names several machines; else MirroredStrategy for several devices or
      a GPU; else TensorFlow's default strategy.

    Raises:
      StrategyError: not a positive number, fewer GPUs than asked for, or a `TF_CONFIG` that cannot be read.
      MachineLostError: the machines do not come together.
    """
    count = _count(replicas)
    gpus = tf.config.list_physical_devices("GPU")
    if count and gpus:
        if count > len(gpus):
            raise StrategyError(f"replicas must be at most {len(gpus)}, the number of GPUs. Received: {count}")
        tf.config.set_visible_devices(gpus[:count], "GPU")
        gpus = gpus[:count]
    if len(_machines()) > 1:
        if count and not gpus and count > 1:
            raise StrategyError(f"replicas must be 1 on machines without GPUs. Received: {count}")
        print(f"one of {len(_machines())} machines: waiting until all have started", flush=True)
        try:
            return tf.distribute.MultiWorkerMirroredStrategy()
        except tf.errors.OpError as error:
            raise MachineLostError(f"the machines of TF_CONFIG did not come together: {first_line(error)}") from None
    if gpus:
        return tf.distribute.MirroredStrategy()
    if count in (0, 1):
        return tf.distribute.get_strategy()
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError:
        raise StrategyError("replicas on a CPU must be made before TensorFlow starts, once in a process") from None
    return tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(count)])


def _count(replicas: str | int) -> int:
    """Number of replicas; 0 for "auto"."""
    if replicas == "auto":
        return 0
    try:
        count = int(replicas)
    except ValueError:
        count = 0
    if count < 1:
        raise StrategyError(f"replicas must be auto or a positive number. Received: {replicas!r}")
    return count


def _machines() -> list[tuple[str, int]]:
    """(type, index) of every machine in `TF_CONFIG`, the chief first."""
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        return []
    try:
        config = json.loads(text)
        cluster = config.get("cluster", {})
        unknown = cluster.keys() - {"chief", "worker"}
        machines = [(kind, index) for kind in ("chief", "worker") for index in range(len(cluster.get(kind, ())))]
        if unknown or (machines and (config["task"]["type"], int(config["task"]["index"])) not in machines):
            raise ValueError("its cluster must hold 'worker' (and 'chief') alone, its task be one of them")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StrategyError(f"TF_CONFIG cannot be read: {error}") from None
    return machines


class Machines:
    """The machines of `TF_CONFIG` that a strategy spans, or this one alone.

    Args:
      strategy: that of the run.

    Attributes:
      strategy: as given.
      count: number of machines.
      index: this machine's place among them; 0 is the chief, which alone writes.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        self.strategy, self.count, self.index = strategy, 1, 0
        if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return
        machines = _machines()
        task = json.loads(os.environ["TF_CONFIG"])["task"]
        self.count, self.index = len(machines), machines.index((task["type"], int(task["index"])))
        self._replicas = strategy.num_replicas_in_sync / self.count

        @tf.function
        def total(rows):
            return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(tf.identity, (rows,)), axis=None)

        self._total = total

    @property
    def chief(self) -> bool:
        """Whether this machine writes."""
        return self.index == 0

    def gather(self, numbers) -> np.ndarray:
        """Every machine's numbers; all machines must call it, at the same place of their run.

        Args:
          numbers: n numbers of this machine, whole and below 2**53.

        Returns:
          float64 [machines, n], the chief's first.

        Raises:
          MachineLostError: a machine does not answer any more.
        """
        numbers = np.asarray(numbers, np.float64)
        if self.count == 1:
            return numbers[None]
        rows = np.zeros([self.count, numbers.size])
        rows[self.index] = numbers
        with self.noticing_lost():
            return np.round(self._total(tf.constant(rows)).numpy() / self._replicas)  # every replica of a machine adds

    @contextlib.contextmanager
    def noticing_lost(self):
        """Makes one `MachineLostError` of what TensorFlow raises when another machine does not answer."""
        try:
            yield
        except LOST:
            if self.count == 1:
                raise
            raise MachineLostError("another machine was lost: start all of them again") from None
