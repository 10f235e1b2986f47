"""The loop: steps inside TensorFlow and, between them, what is due."""

import dataclasses
import functools
import re
import time
from collections.abc import Callable
from signal import SIGTERM

import keras
import tensorflow as tf

from lts.config.options import MonitoringOptions
from lts.training.monitor import Monitor
from lts.training.run_dir import Checkpoints, TrainingError
from lts.training.strategy import MachineLostError, Machines
from lts.utils.signals import stop_on_signals

SECONDS_A_CALL = 1.0  # steps run inside TensorFlow for about this long before Python looks up


@dataclasses.dataclass(eq=False)
class Loop:
    """Trains a model from where it stands.

    Attributes:
      model: one of `lts.models`, its optimizers built.
      machines: with the strategy that the model was made under.
      batches: the steps' batches, distributed.
      checkpoints: where to save.
      monitor: None on machines that are not the chief.
      samples: [n, H, W, 3] in [-1, 1], for pictures and histograms.
      options: what is due when.
    """

    model: keras.Model
    machines: Machines
    batches: tf.distribute.DistributedDataset
    checkpoints: Checkpoints
    monitor: Monitor | None
    samples: tf.Tensor
    options: MonitoringOptions
    profiling: bool = False

    def run(self, step: int, total: int, until: int | None = None) -> int | None:
        """Trains from `step` to `total` and saves; returns the signal that stopped it, or None.

        Args:
          step: steps done.
          total: steps of the whole run.
          until: return there without saving, to be called again (for timing); None: at `total`.

        Raises:
          TrainingError: a loss that is not finite, a checkpoint that cannot be written, a machine that was lost.
        """
        call, saved = 1, time.monotonic()
        until = until or total
        with stop_on_signals() as stop:
            signal = None
            while step < until and not signal:
                count = min(call, self.options.steps_to_next(step), until - step)
                began = time.monotonic()
                self._profile(step)
                self._guarded(lambda count=count: self._run_steps(self._iterator, tf.constant(count)))
                first, step = call == 1, step + count
                call = 2 if first else max(2, round(SECONDS_A_CALL * count / (time.monotonic() - began)))
                if self.monitor:
                    self.monitor.advance(count)
                self._report(step, total)
                if self.monitor and first:
                    self.monitor.restart_clock(step)  # the first call compiled
                save = time.monotonic() - saved > 60 * self.options.checkpoint_minutes
                call, save, signal = self._agree(call, save, stop.signal)
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

    @tf.function
    def _run_steps(self, iterator, count):
        for _ in tf.range(count):
            self.machines.strategy.run(self.model.train_step, (next(iterator),))

    @tf.function
    def _pictures(self):
        return self.model.pictures(self.samples)

    @tf.function
    def _histograms(self):
        return self.model.histograms(self.samples)

    def _guarded(self, work: Callable):
        """Calls `work`; a loss that is not finite, or a lost machine, becomes a `TrainingError`."""
        try:
            with self.machines.noticing_lost():
                return work()
        except (tf.errors.InvalidArgumentError, MachineLostError) as error:
            step = steps_done(self.model) + 1
            term = re.search(r"loss term '\w+' is not finite", str(error))
            newest = f"the last good checkpoint: {self.checkpoints.newest or 'none yet'}"
            if term:
                raise TrainingError(f"{term[0]} at step {step}; {newest}") from None
            if isinstance(error, MachineLostError):
                raise TrainingError(
                    f"another machine was lost at about step {step}; {newest}; start all of them again to go on from it"
                ) from None
            raise

    def _agree(self, call: int, save: bool, signal: int | None) -> tuple[int, bool, int | None]:
        """What all machines do next: the chief's number of steps and whether to save; a signal to one stops all."""
        if self.machines.count == 1:
            return call, save, signal
        rows = self._guarded(lambda: self.machines.gather([call, save, signal or 0]))
        if signal is None and rows[:, 2].any():
            signal = int(SIGTERM)
        return int(rows[0, 0]), bool(rows[0, 1]), signal

    def _profile(self, step: int | None) -> None:
        """Starts or ends the profiler before the step that follows `step`; None: training ends."""
        first, last = self.options.profile_steps or (None, None)
        if self.profiling and step in (last, None):
            tf.profiler.experimental.stop()
            self.profiling = False
        elif self.monitor and step is not None and step + 1 == first:
            tf.profiler.experimental.start(str(self.monitor.workdir / "tensorboard"))
            self.profiling = True

    def _report(self, step: int, total: int) -> None:
        """Scalars, pictures and histograms, as due at `step`."""
        options = self.options
        if step % options.log_steps == 0 or step == total:
            if self.monitor:
                self.monitor.log(step, self.scalars())
            self.model.means.reset_state()
        if self.monitor is None:
            return
        if step % options.picture_steps == 0 or step == total:
            self.show_pictures(step)
        if options.histogram_steps and step % options.histogram_steps == 0:
            self.show_histograms(step)

    def show_pictures(self, step: int) -> None:
        """The picture strip and the first layer's kernels, to the monitor."""
        self.monitor.pictures(step, self._pictures())
        self.monitor.filters(step, self.model.filters())

    def show_histograms(self, step: int) -> None:
        """Histograms of weights, gradients and activations on the samples, to the monitor."""
        self.monitor.histograms(step, self._histograms())

    def close(self) -> None:
        """Ends the monitoring."""
        if self.monitor:
            self.monitor.close()

    def scalars(self) -> dict:
        """Means since the last line, and the learning rates."""
        values = {name: float(mean) for name, mean in self.model.means.result().items()}
        values["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        if getattr(self.model, "g_optimizer", None) is not None:
            values["repair_learning_rate"] = float(keras.ops.convert_to_numpy(self.model.g_optimizer.learning_rate))
        return values

    def _save(self, step: int) -> None:
        """Writes a checkpoint; the chief alone."""
        if self.monitor:
            self.monitor.flush()
            self.checkpoints.save(step)


def steps_done(model: keras.Model) -> int:
    """Training steps the model has behind it."""
    return int(keras.ops.convert_to_numpy(model.optimizer.iterations))
