"""The training loop.

Several steps run in one TensorFlow call. Between calls Python logs, saves and looks for signals.
"""

import dataclasses
import functools
import re
import time
from collections.abc import Callable
from signal import SIGTERM

import keras
import tensorflow as tf

from lts.config.options import MonitoringOptions
from lts.training.checkpoints import Checkpoints, TrainingError
from lts.training.monitor import Monitor
from lts.training.online_evaluation import OnlineEvaluation
from lts.training.strategy import MachineLostError, Machines
from lts.utils.signals import stop_on_signals

SECONDS_PER_CALL = 1.0  # about how long steps run inside TensorFlow before Python looks for signals


@dataclasses.dataclass(eq=False)
class Loop:
    """Training of one model from its current step."""

    model: keras.Model  # one of `lts.models`, its optimizers built
    machines: Machines  # of the strategy that the model was built under
    batches: tf.distribute.DistributedDataset  # of the remaining steps
    checkpoints: Checkpoints
    monitor: Monitor | None  # None on machines that are not the chief
    samples: tf.Tensor  # a batch for pictures and histograms, such as images [n, H, W, 3] in [-1, 1]
    evaluation: OnlineEvaluation | None  # None without `probe_steps`, and on machines that are not the chief
    options: MonitoringOptions
    profiling: bool = False

    def run(self, step: int, total: int, until: int | None = None) -> int | None:
        """Train from `step` to `total` and save.

        Args:
          step: training steps done.
          total: steps of the whole run.
          until: return at this step without saving, to be called again (for timing); None means `total`.

        Returns:
          The signal that stopped training early, or None.
        """
        until = until or total
        max_steps = 1  # of the next call; the first one traces and compiles
        first = True
        signal = None
        saved = time.monotonic()
        with stop_on_signals() as stop:
            while step < until and not signal:
                count = min(max_steps, self.options.steps_to_next(step), until - step)
                began = time.monotonic()
                self._profile(step)
                self._guarded(lambda count=count: self._run_steps(self._iterator, tf.constant(count)))
                step += count
                steps_per_call = SECONDS_PER_CALL * count / (time.monotonic() - began)
                max_steps = 2 if first else max(2, round(steps_per_call))
                if self.monitor:
                    self.monitor.advance(count)
                self._report(step, total)
                if self.monitor and first:
                    self.monitor.restart_clock(step)  # do not count tracing and compiling
                first = False

                save = time.monotonic() - saved > 60 * self.options.checkpoint_minutes
                max_steps, save, signal = self._agree(max_steps, save, stop.signal)
                if save and step < total:
                    self._save(step)
                    saved = time.monotonic()
            if signal or step == total:
                self._save(step)
                self._profile(None)
            return signal if step < total else None

    @functools.cached_property
    def _iterator(self):
        return iter(self.batches)

    # NB: `steps_per_execution` of Keras fails above 1 under MirroredStrategy (TensorFlow 2.21); this loop works.
    @tf.function
    def _run_steps(self, iterator, count):
        for _ in tf.range(count):
            self.model.run_step(self.machines.strategy, next(iterator))

    @tf.function
    def _pictures(self):
        return self.model.pictures(self.samples)

    @tf.function
    def _histograms(self):
        return self.model.histograms(self.samples)

    def _guarded(self, work: Callable):
        """Turn a non-finite loss or a lost machine into `TrainingError`."""
        try:
            with self.machines.noticing_lost():
                return work()
        except (tf.errors.InvalidArgumentError, MachineLostError) as error:
            # The failed step has changed no weight. Its forward pass has moved batch norm statistics: nothing is saved.
            step = steps_done(self.model) + 1
            term = re.search(r"loss term '\w+' is not finite", str(error))
            newest = f"the last good checkpoint: {self.checkpoints.newest or 'none yet'}"
            if term:
                raise TrainingError(f"{term[0]} at step {step}; {newest}") from None
            if isinstance(error, MachineLostError):
                raise TrainingError(
                    f"another machine was lost at about step {step}; {newest}; start all machines again to resume"
                ) from None
            raise

    def _agree(self, max_steps: int, save: bool, signal: int | None) -> tuple[int, bool, int | None]:
        """Return the chief's decisions; a signal stops all machines."""
        if self.machines.count == 1:
            return max_steps, save, signal
        # NB: machines that run different numbers of steps wait for each other forever.
        rows = self._guarded(lambda: self.machines.gather([max_steps, save, signal or 0]))
        if signal is None and rows[:, 2].any():
            signal = int(SIGTERM)
        return int(rows[0, 0]), bool(rows[0, 1]), signal

    def _profile(self, step: int | None) -> None:
        """Start or stop the profiler after `step`; None stops it."""
        first, last = self.options.profile_steps or (None, None)
        if self.profiling and step in (last, None):
            tf.profiler.experimental.stop()
            self.profiling = False
        elif self.monitor and step is not None and step + 1 == first:
            tf.profiler.experimental.start(str(self.monitor.workdir / "tensorboard"))
            self.profiling = True

    def _report(self, step: int, total: int) -> None:
        """Write what is due at `step`."""
        options = self.options
        # Every line of metrics is complete, so that an evaluation between two lines writes one more.
        evaluate = bool(options.probe_steps) and (step % options.probe_steps == 0 or step == total)
        if step % options.log_steps == 0 or evaluate or step == total:
            if self.monitor:
                evaluation = self.evaluation.evaluate() if evaluate and self.evaluation else {}
                self.monitor.log(step, self.scalars() | evaluation)
            # On every machine: the means are part of the model's state.
            self.model.means.reset_state()
        if self.monitor is None:
            return
        if step % options.picture_steps == 0 or step == total:
            self.show_pictures(step)
        if options.histogram_steps and step % options.histogram_steps == 0:
            self.show_histograms(step)

    def show_pictures(self, step: int) -> None:
        """Write the picture strip and the first layer's kernels."""
        self.monitor.pictures(step, self._pictures())
        self.monitor.filters(step, self.model.filters())

    def show_histograms(self, step: int) -> None:
        """Write histograms of weights, gradients and activations."""
        self.monitor.histograms(step, self._histograms())

    def close(self) -> None:
        """Close the monitor."""
        if self.monitor:
            self.monitor.close()

    def scalars(self) -> dict[str, float]:
        """Return means since the last line, and learning rates."""
        values = {name: float(mean) for name, mean in self.model.means.result().items()}
        values["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        if getattr(self.model, "g_optimizer", None) is not None:
            values["repair_learning_rate"] = float(keras.ops.convert_to_numpy(self.model.g_optimizer.learning_rate))
        return values

    def _save(self, step: int) -> None:
        """Write a checkpoint, on the chief only."""
        if self.monitor:
            self.monitor.flush()
            self.checkpoints.save(step)


def steps_done(model: keras.Model) -> int:
    """Return the training steps that a model has taken."""
    # NB: int() fails on a variable that is mirrored over replicas.
    return int(keras.ops.convert_to_numpy(model.optimizer.iterations))
