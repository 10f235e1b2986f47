"""Options of monitoring and checkpoints."""

import dataclasses

from lts.config.fields import CheckedFields, field


@dataclasses.dataclass(frozen=True)
class MonitoringOptions(CheckedFields):
    """Intervals of monitoring and checkpoints.

    No option changes a weight. `ConfigError` is raised for a value outside of its bounds.
    """

    log_steps: int = field(50, "steps between two lines of scalars", minimum=1)
    picture_steps: int = field(500, "steps between two picture strips", minimum=1)
    histogram_steps: int = field(2000, "steps between two sets of histograms; 0: none", minimum=0)
    probe_steps: int = field(0, "steps between two online evaluations of the features; 0: none", minimum=0)
    profile_steps: tuple[int, int] | None = field(
        None, "first and last step to profile for TensorBoard, such as 100,110", length=2, minimum=1, ascending=True
    )
    checkpoint_minutes: float = field(10.0, "minutes between two checkpoints; the end writes one too", minimum=0)
    keep_checkpoints: int = field(3, "checkpoints to keep", minimum=1)

    def steps_to_next(self, step: int) -> int:
        """Return the steps until monitoring is due."""
        # The loop runs this many steps at once, without looking at results in between.
        intervals = (self.log_steps, self.picture_steps, self.histogram_steps, self.probe_steps)
        due = [interval - step % interval for interval in intervals if interval]
        if self.profile_steps:
            first, last = self.profile_steps
            # The profiler starts before `first` and stops after `last`.
            due += [edge - step for edge in (first - 1, last) if edge > step]
        return min(due)
