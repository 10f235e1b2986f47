"""Devices and machines that a run trains on.

The rest of `training` sees only a `tf.distribute.Strategy` and `Machines`.
"""

import contextlib
import functools
import json
import os

import numpy as np
import tensorflow as tf

from lts.utils.errors import UserError, first_line


class StrategyError(UserError):
    """Replicas or machines that are not available."""

    exit_status = 2


class MachineLostError(UserError):
    """A machine of `TF_CONFIG` that no longer answers."""


# What TensorFlow raises when another machine is lost. Other errors (memory, files, a non-finite loss) are local.
# When a process dies the others get one of these within 4 seconds, when it freezes after 34 seconds (measured).
LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)


LARGEST_CPU_REPLICAS = 64  # TensorFlow starts threads for every logical device


# NB: cached because a second MirroredStrategy in one process fails with a collective shape mismatch (TensorFlow 2.21).
@functools.cache
def build_strategy(replicas: str | int = "auto") -> tf.distribute.Strategy:
    """Return the strategy of this process.

    The first call must come before TensorFlow computes anything.

    Args:
      replicas: "auto" for all GPUs, or one device if there is none. N for N GPUs or N logical devices of the CPU, which
        are slower than one device and meant for tests. Under `TF_CONFIG` these are the GPUs of each machine.

    Returns:
      MultiWorkerMirroredStrategy if `TF_CONFIG` names several machines; else MirroredStrategy for several devices or
      a GPU; else TensorFlow's default strategy.

    Raises:
      StrategyError: `replicas` is not a positive number or exceeds the devices, or `TF_CONFIG` cannot be read.
      MachineLostError: the machines do not connect.
    """
    count = _count(replicas)
    gpus = tf.config.list_physical_devices("GPU")
    if count and gpus:
        if count > len(gpus):
            raise StrategyError(f"replicas must be at most {len(gpus)}, the number of GPUs. Received: {count}")
        gpus = gpus[:count]
        tf.config.set_visible_devices(gpus, "GPU")
    machines = _machines()
    if len(machines) > 1:
        return _multi_worker_strategy(len(machines), count, bool(gpus))
    if gpus:
        return tf.distribute.MirroredStrategy()
    if count in (0, 1):
        return tf.distribute.get_strategy()
    if count > LARGEST_CPU_REPLICAS:
        raise StrategyError(f"replicas must be at most {LARGEST_CPU_REPLICAS} on a CPU. Received: {count}")
    # Logical devices must exist before TensorFlow starts, hence once per process.
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError:
        raise StrategyError("replicas on a CPU must be made before TensorFlow starts, once in a process") from None
    return tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(count)])


def _multi_worker_strategy(machines: int, replicas: int, has_gpus: bool) -> tf.distribute.Strategy:
    """Connect to the other machines of `TF_CONFIG`."""
    if replicas > 1 and not has_gpus:
        raise StrategyError(f"replicas must be 1 on machines without GPUs. Received: {replicas}")
    # NB: TensorFlow waits without a limit for a machine that never starts. The user must see what is waited for.
    print(f"one of {machines} machines: waiting until all have started", flush=True)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except tf.errors.OpError as error:
        raise MachineLostError(f"the machines of TF_CONFIG did not come together: {first_line(error)}") from None


def _count(replicas: str | int) -> int:
    """Return the number of replicas; 0 for "auto"."""
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
    """Return (type, index) of each machine, the chief first."""
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        return []
    machines = []
    try:
        config = json.loads(text)
        cluster = config.get("cluster", {})
        for kind in ("chief", "worker"):
            machines += [(kind, index) for index in range(len(cluster.get(kind, ())))]
        unknown = cluster.keys() - {"chief", "worker"}
        if unknown or (machines and (config["task"]["type"], int(config["task"]["index"])) not in machines):
            raise ValueError("its cluster may hold only 'worker' and 'chief', and its task must be one of them")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StrategyError(f"TF_CONFIG cannot be read: {error}") from None
    return machines


class Machines:
    """The machines that a strategy spans.

    Args:
      strategy: strategy of the run.

    Attributes:
      strategy: strategy of the run.
      count: number of machines.
      index: place of this machine among them. Machine 0 is the chief, the only one that writes.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        self.strategy = strategy
        self.count = 1
        self.index = 0
        if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return
        machines = _machines()
        task = json.loads(os.environ["TF_CONFIG"])["task"]
        self.count = len(machines)
        self.index = machines.index((task["type"], int(task["index"])))
        self._replicas_per_machine = strategy.num_replicas_in_sync / self.count

        @tf.function
        def total(rows):
            return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(tf.identity, (rows,)), axis=None)

        self._total = total

    @property
    def chief(self) -> bool:
        """Whether this machine writes."""
        return self.index == 0

    def gather(self, numbers) -> np.ndarray:
        """Return the numbers of every machine.

        NB: all machines must call it at the same place of their run. Otherwise they wait for each other forever.

        Args:
          numbers: n integers of this machine, below 2**53.

        Returns:
          float64 [machines, n], the chief's numbers first.

        Raises:
          MachineLostError: a machine does not answer any more.
        """
        numbers = np.asarray(numbers, np.float64)
        if self.count == 1:
            return numbers[None]
        rows = np.zeros([self.count, numbers.size])
        rows[self.index] = numbers
        with self.noticing_lost():
            # Every replica of a machine adds the machine's row once.
            total = self._total(tf.constant(rows)).numpy()
        return np.round(total / self._replicas_per_machine)

    @contextlib.contextmanager
    def noticing_lost(self):
        """Turn TensorFlow's errors about other machines into `MachineLostError`."""
        try:
            yield
        except LOST:
            if self.count == 1:
                raise
            raise MachineLostError("another machine was lost. Start all of them again.") from None
